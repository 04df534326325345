//! Traces: the trace that a decision belongs to, and what of the product is traced.
//!
//! Everything is told to [`tracing`](https://docs.rs/tracing); a subscriber of the program takes it
//! from there. Without one nothing is formatted and nothing allocated. What there is:
//!
//! | name | target and level | what |
//! | --- | --- | --- |
//! | `opa.decision` | `opa::decision`, debug | an event for each decision, on the span that is current when it is final |
//! | `open-policy-agent` | `opa::decision`, info | a span from question to decision instead of that event, by [`ManagerBuilder::decision_spans`](crate::ManagerBuilder::decision_spans) |
//! | `open-policy-agent.bundle` | `opa::bundle`, info | a span for each poll of a bundle, until it is active; a long poll's is as long as its wait |
//! | `open-policy-agent.http` | `opa::http`, info | a span for each request to a service until the headers of its response, below the poll's; of downloads that apps share it stands below the poll that asked |
//!
//! Of a decision are told, by the names of OPA and of Skipper where they have one:
//! `opa.decision_id`, `opa.decision.allowed` (absent where nobody read the answer as allow or deny,
//! false in dry-run), `opa.decision.reason` ([`Reason`](crate::Reason)), `opa.app` and
//! `opa.bundle_name` (both the app), `opa.path`, `opa.bundles` (`name=revision`), `opa.labels`,
//! and `error.type` (the code of what failed; its text can carry values of the input). The span
//! also has an attribute `opa.label.<name>` for each label, if there is a [`TraceContext`] that
//! can set it.
//!
//! Requests have the attributes of OpenTelemetry's semantic conventions for HTTP clients
//! (`http.request.method`, `url.full`, `server.address`, `server.port`,
//! `http.response.status_code`, `network.protocol.version`, `error.type`), `opa.service`, and
//! `opa.app` where one app alone sends them; `otel.name`, `otel.kind` and `otel.status_code` are
//! read by `tracing-opentelemetry`. URLs are told without userinfo, query and fragment, and headers
//! not at all.
//!
//! How a trace goes on across processes is the business of a [`TraceContext`], which
//! [`ManagerBuilder::trace_context`](crate::ManagerBuilder::trace_context) takes.

use std::fmt;

use http::HeaderMap;

/// What knows the trace that the running code belongs to, and how it is told to other processes.
///
/// It is called on the way of requests: it must not block, and not panic. The `opentelemetry`
/// feature of `opa-plugins` has one for OpenTelemetry.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use opa_core::trace::{SpanIds, TraceContext};
///
/// /// All belongs to one trace.
/// struct One;
///
/// impl TraceContext for One {
///     fn current(&self) -> Option<SpanIds> {
///         SpanIds::new([1; 16], [2; 8])
///     }
///     fn inject(&self, headers: &mut HeaderMap) {
///         let ids = "00-01010101010101010101010101010101-0202020202020202-01";
///         headers.insert("traceparent", HeaderValue::from_static(ids));
///     }
/// }
/// let ids = One.current().ok_or("no trace")?;
/// assert_eq!(ids.trace_id(), "01010101010101010101010101010101");
/// assert_eq!(ids.span_id(), "0202020202020202");
/// # Ok::<(), &str>(())
/// ```
pub trait TraceContext: Send + Sync + 'static {
    /// The current span, if there is one. Its ids become `trace_id` and `span_id` of the decision's
    /// event.
    fn current(&self) -> Option<SpanIds>;

    /// Writes the current span into the headers of a request, such as `traceparent`, `tracestate`
    /// and `baggage` (W3C Trace Context, W3C Baggage).
    fn inject(&self, headers: &mut HeaderMap);

    /// Gives the current span an attribute whose name isn't known in advance, such as
    /// `opa.label.team`. Default: nothing.
    fn set_attribute(&self, name: &str, value: &str) {
        let _ = (name, value);
    }
}

/// Which span of which trace (W3C Trace Context, 3.2.2.3 and 3.2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanIds {
    trace: u128,
    span: u64,
}

impl SpanIds {
    /// The ids as they are sent, first byte first; `None` if one is all zero, which names nothing.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Option<Self> {
        let (trace, span) = (u128::from_be_bytes(trace_id), u64::from_be_bytes(span_id));
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace, span })
    }

    /// The trace's id: 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span's id: 16 hexadecimal digits in lower case.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }
}

impl fmt::Debug for SpanIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanIds({:032x}-{:016x})", self.trace, self.span)
    }
}

/// A URL as it may be told: without userinfo, query and fragment, which can carry secrets.
pub(crate) struct SafeUrl<'a>(pub(crate) &'a reqwest::Url);

impl fmt::Display for SafeUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        write!(
            f,
            "{}://{}",
            url.scheme(),
            url.host_str().unwrap_or_default()
        )?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

/// A configured URL as it may be told.
pub(crate) fn safe_url(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => SafeUrl(&url).to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_in_full_length() {
        let mut trace = [0; 16];
        trace[15] = 0xAB;
        let ids = SpanIds::new(trace, [0, 0, 0, 0, 0, 0, 0x0C, 0xDE]).unwrap();
        assert_eq!(ids.trace_id(), "000000000000000000000000000000ab");
        assert_eq!(ids.span_id(), "0000000000000cde");
        assert_eq!(SpanIds::new([0; 16], [1; 8]), None);
        assert_eq!(SpanIds::new([1; 16], [0; 8]), None);
    }

    #[test]
    fn urls_are_told_without_what_can_be_secret() {
        for (url, told) in [
            (
                "https://u:s3cret@a.test/b?t=s3cret#s3cret",
                "https://a.test/b",
            ),
            ("http://s3cret@[::1]:8181", "http://[::1]:8181/"),
            ("http://a.test:80/", "http://a.test/"),
        ] {
            let url = reqwest::Url::parse(url).unwrap();
            assert_eq!(SafeUrl(&url).to_string(), told);
        }
    }
}
