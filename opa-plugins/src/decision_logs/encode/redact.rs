//! What the console doesn't tell of requests and answers.

use opa_core::Value;

use crate::json;

/// The headers that tell who somebody is to everybody who has them.
const SECRET: [&str; 6] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-amz-security-token",
    "x-api-key",
];

/// What stands for a value, as in OPA's own log.
const REDACTED: &str = "REDACTED";

/// Whether the values of a header, or of what is named as one, are hidden.
pub(super) fn is_secret(name: &str) -> bool {
    SECRET
        .iter()
        .any(|secret| secret.eq_ignore_ascii_case(name))
}

/// Writes something else for a member that is such a header: a text or a number, or a list or set
/// of whatever. An object of that name is no header.
pub(super) fn member(name: &str, value: &Value, out: &mut Vec<u8>) -> bool {
    if !is_secret(name) {
        return false;
    }
    if value.as_str().is_some() || value.as_number().is_some() {
        json::string(REDACTED, out);
        return true;
    }
    let is_list = value.as_array().is_some() || value.as_set().is_some();
    if is_list {
        json::array([REDACTED], out, json::string);
    }
    is_list
}

/// Writes the values of a header of the request, or what stands for them.
pub(super) fn values<T: AsRef<str>>(hidden: bool, values: &[T], out: &mut Vec<u8>) {
    match hidden {
        true => json::array([REDACTED], out, json::string),
        false => json::array(values, out, |value, out| json::string(value.as_ref(), out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str) -> String {
        let value = Value::from_json(value.as_bytes()).unwrap();
        let mut out = Vec::new();
        assert!(json::value_by(&value, usize::MAX, &mut out, member));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_are_hidden_wherever_they_stand() {
        for (given, told) in [
            (
                r#"{"headers":{"authorization":"Bearer x","host":"a"}}"#,
                r#"{"headers":{"authorization":"REDACTED","host":"a"}}"#,
            ),
            (
                r#"[{"Set-Cookie":["a","b"]}]"#,
                r#"[{"Set-Cookie":["REDACTED"]}]"#,
            ),
            (
                r#"{"X-Api-Key":"a","x-amz-security-token":"b","x-api":"c"}"#,
                r#"{"X-Api-Key":"REDACTED","x-amz-security-token":"REDACTED","x-api":"c"}"#,
            ),
            (r#"{"COOKIE":1,"x":[]}"#, r#"{"COOKIE":"REDACTED","x":[]}"#),
            (
                r#"{"Proxy-Authorization":[]}"#,
                r#"{"Proxy-Authorization":["REDACTED"]}"#,
            ),
        ] {
            assert_eq!(written(given), told);
        }
    }

    #[test]
    fn what_is_no_header_stays() {
        for given in [
            r#"{"authorization":{"role":"admin"}}"#,
            r#"{"authorization":true,"cookie":null,"cookies":"3"}"#,
            r#"["authorization","cookie"]"#,
        ] {
            assert_eq!(written(given), given);
        }
        let within = written(r#"{"authorization":{"cookie":"x"}}"#);
        assert_eq!(within, r#"{"authorization":{"cookie":"REDACTED"}}"#);
    }
}
