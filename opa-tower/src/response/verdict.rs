use std::ops::RangeInclusive;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use opa_core::Value;

use super::headers;

/// What is wrong with a policy's answer, for the decision log.
pub(crate) type Problem = String;

/// A policy's answer, read as a decision on a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Allow(Allowance),
    Deny(Denial),
}

/// What an allow changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Allowance {
    remove: Vec<HeaderName>,
    add: HeaderMap,
    pub(crate) add_to_response: HeaderMap,
}

/// How a policy answers the client.
#[derive(Debug, PartialEq)]
pub(crate) struct Denial {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A denial is no success.
const DENIAL_STATUSES: RangeInclusive<i64> = 300..=599;

impl Verdict {
    /// # Errors
    /// Why the answer is no decision.
    pub(crate) fn read(answer: &Value) -> Result<Self, Problem> {
        if let Some(allowed) = answer.as_bool() {
            return Ok(match allowed {
                true => Self::Allow(Allowance::default()),
                false => Self::Deny(Denial::forbidden()),
            });
        }
        if answer.as_object().is_none() {
            return Err("the decision is neither a boolean nor an object".into());
        }
        if answer
            .get("dynamic_metadata")
            .is_some_and(|metadata| metadata.as_object().is_none())
        {
            return Err("`dynamic_metadata` is no object".into());
        }
        let allowed = answer
            .get("allowed")
            .ok_or("the decision has no `allowed`")?;
        match allowed.as_bool().ok_or("`allowed` is no boolean")? {
            true => Allowance::read(answer).map(Self::Allow),
            false => Denial::read(answer).map(Self::Deny),
        }
    }
}

impl Allowance {
    fn read(answer: &Value) -> Result<Self, Problem> {
        for member in ["query_parameters_to_remove", "query_parameters_to_set"] {
            if answer
                .get(member)
                .is_some_and(|value| value.len() != Some(0))
            {
                return Err(format!(
                    "`{member}` is not supported: the query is not rewritten"
                ));
            }
        }
        let mut remove = names(answer, "request_headers_to_remove")?;
        let replace = headers::read(answer, "headers")?;
        // A name that is listed without a value is replaced by nothing: what the client sent under
        // it must not pass for the policy's word.
        remove.extend(replace.names);
        let add_to_response = headers::read(answer, "response_headers_to_add")?.headers;
        Ok(Self {
            remove,
            add: replace.headers,
            add_to_response,
        })
    }

    /// Removes, then replaces. Both the request's and the policy's headers are few enough for a map.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

fn names(answer: &Value, member: &str) -> Result<Vec<HeaderName>, Problem> {
    let Some(names) = answer.get(member) else {
        return Ok(Vec::new());
    };
    let names = names
        .as_array()
        .ok_or_else(|| format!("`{member}` is no array"))?;
    names
        .iter()
        .map(|name| {
            let name = name
                .as_str()
                .ok_or_else(|| format!("`{member}` has a name that is no string"))?;
            headers::read_name(name, member)
        })
        .collect()
}

impl Denial {
    fn forbidden() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    fn read(answer: &Value) -> Result<Self, Problem> {
        let body = answer
            .get("body")
            .map(|body| body.as_str().ok_or("`body` is no string"));
        Ok(Self {
            status: answer
                .get("http_status")
                .map_or(Ok(StatusCode::FORBIDDEN), status)?,
            headers: headers::read(answer, "headers")?.headers,
            body: body
                .transpose()?
                .map(|body| Bytes::copy_from_slice(body.as_bytes()))
                .unwrap_or_default(),
        })
    }
}

fn status(status: &Value) -> Result<StatusCode, Problem> {
    let number = status.as_i64().ok_or("`http_status` is no integer")?;
    Some(number)
        .filter(|number| DENIAL_STATUSES.contains(number))
        .and_then(|number| StatusCode::from_u16(number.try_into().ok()?).ok())
        .ok_or_else(|| format!("`http_status` is `{number}`, which is no status of a denial"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(answer: &str) -> Result<Verdict, Problem> {
        Verdict::read(&Value::from_json(answer.as_bytes()).unwrap())
    }

    fn allowance(answer: &str) -> Allowance {
        match read(answer) {
            Ok(Verdict::Allow(allowance)) => allowance,
            other => panic!("{answer}: {other:?}"),
        }
    }

    fn denial(answer: &str) -> Denial {
        match read(answer) {
            Ok(Verdict::Deny(denial)) => denial,
            other => panic!("{answer}: {other:?}"),
        }
    }

    /// What `answer` makes of a request with these headers.
    fn applied(answer: &str, headers: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        allowance(answer).apply(&mut map);
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            (
                name.to_string(),
                String::from_utf8(value.as_bytes().to_vec()).unwrap(),
            )
        };
        map.iter().map(shown).collect()
    }

    #[test]
    fn booleans_decide_alone() {
        assert_eq!(read("true"), Ok(Verdict::Allow(Allowance::default())));
        assert_eq!(read("false"), Ok(Verdict::Deny(Denial::forbidden())));
        assert_eq!(
            read(r#"{"allowed": true}"#),
            Ok(Verdict::Allow(Allowance::default()))
        );
        assert_eq!(
            read(r#"{"allowed": false}"#),
            Ok(Verdict::Deny(Denial::forbidden()))
        );
    }

    #[test]
    fn what_is_no_decision_is_invalid() {
        for answer in [
            "null",
            "1",
            r#""true""#,
            "[]",
            "[true]",
            "{}",
            r#"{"allow": true}"#,
            r#"{"allowed": 1}"#,
            r#"{"allowed": "true"}"#,
            r#"{"allowed": null}"#,
            r#"{"allowed": true, "headers": 1}"#,
            r#"{"allowed": true, "headers": null}"#,
            r#"{"allowed": true, "headers": [1]}"#,
            r#"{"allowed": true, "headers": {"x": 1}}"#,
            r#"{"allowed": true, "headers": {"x": ["a", 1]}}"#,
            r#"{"allowed": true, "headers": {"x": {"a": "b"}}}"#,
            r#"{"allowed": true, "headers": {"": "a"}}"#,
            r#"{"allowed": true, "headers": {"a b": "a"}}"#,
            r#"{"allowed": true, "headers": {"x": "a\r\nset-cookie: b"}}"#,
            r#"{"allowed": true, "headers": {"x": "a\u0000b"}}"#,
            r#"{"allowed": true, "response_headers_to_add": "x"}"#,
            r#"{"allowed": true, "request_headers_to_remove": "x"}"#,
            r#"{"allowed": true, "request_headers_to_remove": [1]}"#,
            r#"{"allowed": true, "request_headers_to_remove": ["a b"]}"#,
            r#"{"allowed": true, "dynamic_metadata": []}"#,
            r#"{"allowed": true, "query_parameters_to_set": {"a": "b"}}"#,
            r#"{"allowed": true, "query_parameters_to_remove": ["a"]}"#,
            r#"{"allowed": true, "query_parameters_to_remove": 1}"#,
            r#"{"allowed": false, "headers": 1}"#,
            r#"{"allowed": false, "body": 1}"#,
            r#"{"allowed": false, "http_status": "403"}"#,
            r#"{"allowed": false, "http_status": 403.5}"#,
        ] {
            assert!(read(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn the_problem_names_the_member() {
        for (answer, member) in [
            (
                r#"{"allowed": true, "query_parameters_to_set": {"a": "b"}}"#,
                "query_parameters_to_set",
            ),
            (
                r#"{"allowed": false, "http_status": 200}"#,
                "`http_status` is `200`",
            ),
            (
                r#"{"allowed": true, "headers": {"Host": "a"}}"#,
                "`headers` names `host`",
            ),
        ] {
            let problem = read(answer).unwrap_err();
            assert!(problem.contains(member), "{problem}");
        }
    }

    #[test]
    fn names_that_a_policy_must_not_touch_are_invalid_everywhere() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "keep-alive",
            "Proxy-Authorization",
            "proxy-connection",
            "TE",
            "Trailer",
            "Upgrade",
            ":path",
            "X-Envoy-Auth-Partial-Body",
        ] {
            for answer in [
                format!(r#"{{"allowed": true, "headers": {{"{name}": "a"}}}}"#),
                format!(r#"{{"allowed": true, "headers": {{"{name}": []}}}}"#),
                format!(r#"{{"allowed": true, "response_headers_to_add": [{{"{name}": "a"}}]}}"#),
                format!(r#"{{"allowed": true, "request_headers_to_remove": ["{name}"]}}"#),
                format!(r#"{{"allowed": false, "headers": {{"{name}": "a"}}}}"#),
            ] {
                assert!(read(&answer).is_err(), "{answer}");
            }
        }
    }

    #[test]
    fn members_of_the_other_outcome_are_not_looked_at() {
        allowance(r#"{"allowed": true, "http_status": "x", "body": 1, "reasons": [1]}"#);
        denial(
            r#"{"allowed": false, "request_headers_to_remove": 1, "response_headers_to_add": 1,
                "query_parameters_to_set": 1}"#,
        );
    }

    #[test]
    fn members_that_change_nothing_are_fine() {
        allowance(
            r#"{"allowed": true, "query_parameters_to_set": {}, "query_parameters_to_remove": []}"#,
        );
        allowance(r#"{"allowed": true, "dynamic_metadata": {"a": 1}}"#);
    }

    #[test]
    fn request_headers_are_removed_then_replaced_with_all_values() {
        let sent = [
            ("x-u", "client"),
            ("x-u", "twice"),
            ("x-gone", "1"),
            ("x-kept", "1"),
        ];
        let answer = r#"{"allowed": true, "headers": [{"X-U": ["a", "b"]}, {"x-u": "c", "x-gone": "new"}],
                         "request_headers_to_remove": ["x-gone", "x-never"]}"#;
        let mut headers = applied(answer, &sent);
        headers.sort();
        let expected = [
            ("x-gone", "new"),
            ("x-kept", "1"),
            ("x-u", "a"),
            ("x-u", "b"),
            ("x-u", "c"),
        ];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_header_replaced_by_no_value_is_gone() {
        let answer = r#"{"allowed": true, "headers": {"x-roles": []}}"#;
        assert_eq!(applied(answer, &[("x-roles", "admin")]), []);
    }

    #[test]
    fn values_may_be_utf_8() {
        let answer = r#"{"allowed": true, "headers": {"x": "ü"}}"#;
        assert_eq!(applied(answer, &[]), [("x".to_owned(), "ü".to_owned())]);
    }

    #[test]
    fn a_denial_has_status_headers_and_body() {
        let denial = denial(
            r#"{"allowed": false, "http_status": 401, "body": "who?",
                "headers": {"www-authenticate": ["Basic", "Bearer"]}}"#,
        );
        assert_eq!((denial.status.as_u16(), &*denial.body), (401, &b"who?"[..]));
        assert_eq!(denial.headers.get_all("www-authenticate").iter().count(), 2);
    }

    #[test]
    fn statuses_from_300_to_599_deny() {
        for number in [300, 302, 403, 418, 451, 599] {
            let answer = format!(r#"{{"allowed": false, "http_status": {number}}}"#);
            assert_eq!(denial(&answer).status.as_u16(), number);
        }
        for number in [
            "-1", "0", "100", "200", "204", "299", "600", "999", "65939", "1e9",
        ] {
            let answer = format!(r#"{{"allowed": false, "http_status": {number}}}"#);
            assert!(read(&answer).is_err(), "{number}");
        }
    }

    #[test]
    fn the_number_of_headers_is_bounded() {
        let answer = |n| {
            let values = vec!["\"a\""; n].join(",");
            format!(r#"{{"allowed": true, "response_headers_to_add": {{"x": [{values}]}}}}"#)
        };
        assert_eq!(allowance(&answer(1_000)).add_to_response.len(), 1_000);
        assert!(read(&answer(1_001)).is_err());
    }
}
