//! What a client is answered when its request does not pass, and how a policy's answer is read.
//!
//! | [reason](Reason) | status | |
//! | --- | --- | --- |
//! | `denied` | `http_status` of the policy, else 403 | with its `headers` and `body` |
//! | `malformed_request` | 400 | |
//! | `unknown_app` | 404, or what the extractor's [`Rejection`](crate::app::Rejection) says | |
//! | `body_unseen` | 415 | |
//! | `too_many_headers` | 431 | |
//! | `not_ready`, `stale`, `overloaded`, `closed`, `log_unavailable` | 503 | `Retry-After: 1` |
//! | every other: `undefined`, `invalid_decision`, `eval_error`, `engine_panic`, the budgets, `io_rounds`, `invalid_entrypoint`, … | 500 | |
//!
//! A fault's body is empty: what went wrong is in the decision log, not with the client. A
//! [`Responder`] shapes these answers otherwise.
//!
//! # The policy's answer
//! A boolean, or an object as opa-envoy-plugin knows it:
//!
//! | member | type | |
//! | --- | --- | --- |
//! | `allowed` | boolean, required | |
//! | `headers` | object or array of objects; values are strings or arrays of strings | allowed: replace the request's headers of these names, with all values listed; denied: headers of the response |
//! | `request_headers_to_remove` | array of strings | allowed: taken out before `headers` come in |
//! | `response_headers_to_add` | as `headers` | allowed: appended to the response of the service |
//! | `http_status` | integer from 300 to 599, default 403 | denied |
//! | `body` | string | denied; `text/plain` unless `headers` say otherwise |
//! | `dynamic_metadata` | object | for the handler, in [`Decision::result`](opa_core::Decision::result) |
//! | `query_parameters_to_set`, `query_parameters_to_remove` | empty | anything else is an invalid decision of an allow: this version does not rewrite the query |
//!
//! Other members are the policy's own business. Those for a denial are not looked at when the
//! policy allows, and the other way round. Whatever has the wrong type makes the decision
//! [invalid](Reason::InvalidDecision), and so do names that a policy must not touch: `Host`,
//! `Content-Length`, `Transfer-Encoding`, the hop-by-hop headers (`Connection`, `Keep-Alive`,
//! `Proxy-*`, `TE`, `Trailer`, `Upgrade`), `:pseudo` headers and `x-envoy-auth-partial-body`.

mod headers;
mod refusal;
mod responder;
mod verdict;

use http::StatusCode;
use opa_core::Reason;

pub use refusal::Refusal;
pub use responder::{DefaultResponder, Responder};

pub(crate) use verdict::{Allowance, Denial, Verdict};

/// The status that a request is answered with when it did not pass for `reason`, unless the policy
/// or an extractor chooses one; see the table [above](self).
#[must_use]
pub fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::Denied => StatusCode::FORBIDDEN,
        Reason::MalformedRequest => StatusCode::BAD_REQUEST,
        Reason::UnknownApp => StatusCode::NOT_FOUND,
        Reason::BodyUnseen => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason if is_passing(reason) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether the same request may well be answered otherwise in a moment.
fn is_passing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotReady
            | Reason::Stale
            | Reason::Overloaded
            | Reason::Closed
            | Reason::LogUnavailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_is_answered_with_success() {
        for reason in Reason::ALL {
            let status = status_of(reason);
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{reason}: {status}"
            );
        }
    }

    #[test]
    fn the_table_in_the_docs_is_the_table_in_the_code() {
        let docs = include_str!("mod.rs")
            .lines()
            .take_while(|line| !line.contains("# The policy"));
        let docs = docs.filter_map(|line| line.strip_prefix("//! | "));
        let mut named = 0;
        for row in docs {
            let cells: Vec<_> = row.split(" | ").collect();
            let [reasons, status, ..] = cells[..] else {
                continue;
            };
            let names = reasons
                .split(['`', ',', ' '])
                .filter(|name| !name.is_empty());
            for reason in
                names.filter_map(|name| Reason::ALL.into_iter().find(|it| it.as_str() == name))
            {
                assert!(
                    status.contains(status_of(reason).as_str()),
                    "{reason}: {status}"
                );
                named += 1;
            }
        }
        assert!(named > 12, "the table was read");
    }
}
