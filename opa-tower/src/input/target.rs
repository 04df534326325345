use std::borrow::Cow;
use std::collections::BTreeMap;

use opa_core::Value;
use percent_encoding::percent_decode;

use super::Unreadable;

/// More segments or parameters than this are refused: Go reads no more parameters either.
const MAX_PARTS: usize = 10_000;

/// A request target, read as opa-envoy-plugin reads it: cut at the first `?`, percent-decoded once.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Target<'a> {
    /// Decoded as a whole, so that an escaped slash separates as well.
    path: Cow<'a, str>,
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Target<'a> {
    /// # Errors
    /// When an escape is not `%` and two hexadecimal digits, or what it stands for is not UTF-8.
    pub(crate) fn read(path: &'a str, query: Option<&'a str>) -> Result<Self, Unreadable> {
        let path = decode(Cow::Borrowed(path)).ok_or(Unreadable::Path)?;
        if path.bytes().filter(|byte| *byte == b'/').count() > MAX_PARTS {
            return Err(Unreadable::TooManyParts);
        }
        let mut parameters = Vec::new();
        // A `;` is data, as in RFC 3986; only `&` separates.
        for parameter in query
            .unwrap_or_default()
            .split('&')
            .filter(|it| !it.is_empty())
        {
            if parameters.len() == MAX_PARTS {
                return Err(Unreadable::TooManyParts);
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let decoded = decode_form(name).zip(decode_form(value));
            parameters.push(decoded.ok_or(Unreadable::Query)?);
        }
        Ok(Self { path, parameters })
    }

    /// `parsed_path`: without leading slashes, split at the others.
    pub(super) fn parsed_path(&self) -> Value {
        Value::array(
            self.path
                .trim_start_matches('/')
                .split('/')
                .map(Value::from),
        )
    }

    /// `parsed_query`: each name with its values, in order.
    pub(super) fn parsed_query(&self) -> Value {
        let mut values: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (name, value) in &self.parameters {
            values.entry(name).or_default().push(Value::from(&**value));
        }
        Value::object(
            values
                .into_iter()
                .map(|(name, values)| (Value::from(name), Value::array(values))),
        )
    }
}

/// As `application/x-www-form-urlencoded`: `+` stands for a space.
fn decode_form(text: &str) -> Option<Cow<'_, str>> {
    let text = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        Cow::Borrowed(text)
    };
    decode(text)
}

/// Decodes once: a percent that is still there afterwards is data.
fn decode(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text);
    }
    let escapes_are_whole = text.split('%').skip(1).all(|after| {
        matches!(after.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    });
    if !escapes_are_whole {
        return None;
    }
    let decoded: Vec<u8> = percent_decode(text.as_bytes()).collect();
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> String {
        Target::read(path, None).unwrap().parsed_path().to_json()
    }

    fn query(query: &str) -> String {
        Target::read("/", Some(query))
            .unwrap()
            .parsed_query()
            .to_json()
    }

    #[test]
    fn paths_are_split_as_the_plugin_does() {
        assert_eq!(path("/my/test/path"), r#"["my","test","path"]"#);
        assert_eq!(path("/"), r#"[""]"#);
        assert_eq!(path(""), r#"[""]"#);
        assert_eq!(path("*"), r#"["*"]"#);
        assert_eq!(path("/a/"), r#"["a",""]"#);
        assert_eq!(path("/a//b/./.."), r#"["a","","b",".",".."]"#);
        assert_eq!(path("%2Fmy%2Ftest"), r#"["my","test"]"#);
        assert_eq!(path("/a+b;c"), r#"["a+b;c"]"#);
        assert_eq!(path("/%C3%BC/ü"), r#"["ü","ü"]"#);
    }

    /// The first segment was once read as a host and hidden from the policy.
    #[test]
    fn cve_2026_26205_no_segment_is_lost_after_several_slashes() {
        assert_eq!(path("//admin/dashboard"), r#"["admin","dashboard"]"#);
        assert_eq!(path("///admin"), r#"["admin"]"#);
        assert_eq!(path("//x:80/people"), r#"["x:80","people"]"#);
    }

    #[test]
    fn double_encoding_is_decoded_once() {
        assert_eq!(path("/%2561dmin"), r#"["%61dmin"]"#);
        assert_eq!(query("a=%2561"), r#"{"a":["%61"]}"#);
    }

    #[test]
    fn queries_are_split_as_forms() {
        assert_eq!(query(""), "{}");
        assert_eq!(query("&&"), "{}");
        assert_eq!(query("a=1&b=2&a=3"), r#"{"a":["1","3"],"b":["2"]}"#);
        assert_eq!(query("a&b="), r#"{"a":[""],"b":[""]}"#);
        assert_eq!(query("=x"), r#"{"":["x"]}"#);
        assert_eq!(query("a=b=c"), r#"{"a":["b=c"]}"#);
        assert_eq!(
            query("q=a+b%20c%2B&a%3Db=1"),
            r#"{"a=b":["1"],"q":["a b c+"]}"#
        );
        assert_eq!(query("a=new%0aline"), r#"{"a":["new\nline"]}"#);
        assert_eq!(query("a?b"), r#"{"a?b":[""]}"#);
    }

    #[test]
    fn a_semicolon_in_a_query_is_data() {
        assert_eq!(query("a=1;b=2"), r#"{"a":["1;b=2"]}"#);
        assert_eq!(query("a;b"), r#"{"a;b":[""]}"#);
    }

    #[test]
    fn bad_escapes_and_bad_utf_8_are_refused() {
        for text in [
            "/%", "/%2", "/%zz", "/%2%32", "/%+1", "/%ff", "/a%C3", "/%é1",
        ] {
            assert_eq!(Target::read(text, None), Err(Unreadable::Path), "{text}");
        }
        for text in ["%", "a=%2", "a=%zz", "%ff=a", "a=%ff", "b=1&a=%C3"] {
            assert_eq!(
                Target::read("/", Some(text)),
                Err(Unreadable::Query),
                "{text}"
            );
        }
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let slashes = "/a".repeat(MAX_PARTS);
        assert!(Target::read(&slashes, None).is_ok());
        assert_eq!(
            Target::read(&format!("{slashes}/"), None),
            Err(Unreadable::TooManyParts)
        );
        let parameters = "a&".repeat(MAX_PARTS);
        assert!(Target::read("/", Some(&parameters)).is_ok());
        let more = format!("{parameters}b");
        assert_eq!(
            Target::read("/", Some(&more)),
            Err(Unreadable::TooManyParts)
        );
    }
}
