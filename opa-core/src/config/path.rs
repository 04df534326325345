//! The path of a decision: `envoy/authz/allow`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The path of a policy decision below `data`, such as `envoy/authz/allow`.
///
/// Its segments aren't empty. One leading `/` is accepted, as in OPA's `default_decision`, and
/// doesn't count.
///
/// ```
/// use opa_core::config::DecisionPath;
///
/// let path: DecisionPath = "/orders/allow".parse()?;
/// assert_eq!(path.as_str(), "orders/allow");
/// assert_eq!(path.segments().collect::<Vec<_>>(), ["orders", "allow"]);
/// assert!("orders//allow".parse::<DecisionPath>().is_err());
/// # Ok::<(), opa_core::config::DecisionPathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionPath(String);

impl DecisionPath {
    /// The path without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments; there is at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Reads the plain form `data.a.b` of a query.
    pub(crate) fn from_reference(query: &str) -> Option<Self> {
        let segments: Vec<&str> = query.trim().strip_prefix("data.")?.split('.').collect();
        segments
            .iter()
            .all(|s| is_variable(s))
            .then(|| Self(segments.join("/")))
    }

    pub(crate) fn from_static(path: &'static str) -> Self {
        Self(path.to_owned())
    }
}

/// Whether Rego reads the text as a name, so that it may follow a dot.
fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

impl FromStr for DecisionPath {
    type Err = DecisionPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix('/').unwrap_or(text);
        if path.split('/').any(str::is_empty) {
            return Err(DecisionPathError(text.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }
}

impl fmt::Display for DecisionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text isn't the path of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionPathError(String);

impl fmt::Display for DecisionPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a path such as `envoy/authz/allow`, found `{}`",
            self.0
        )
    }
}

impl Error for DecisionPathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_never_empty() {
        for text in ["", "/", "//", "a//b", "a/", "//a", "/a/"] {
            let error = text.parse::<DecisionPath>().unwrap_err();
            assert!(
                error.to_string().ends_with(&format!("found `{text}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn one_leading_slash_does_not_count() {
        let path: DecisionPath = "/system/main".parse().unwrap();
        assert_eq!(path, "system/main".parse().unwrap());
        assert_eq!(path.to_string(), "system/main");
    }

    #[test]
    fn segments_may_hold_any_other_character() {
        let path: DecisionPath = "a.b/c d/ü/1".parse().unwrap();
        assert_eq!(
            path.segments().collect::<Vec<_>>(),
            ["a.b", "c d", "ü", "1"]
        );
    }

    #[test]
    fn only_plain_references_are_read() {
        let read = |query| DecisionPath::from_reference(query).map(|p| p.to_string());
        assert_eq!(read("data.a.b_1"), Some("a/b_1".to_owned()));
        assert_eq!(read(" data.a "), Some("a".to_owned()));
        for query in [
            "data",
            "data.",
            "data.a.",
            "data..a",
            "a.b",
            "input.a",
            "data.a[0]",
            "data.a[\"b\"]",
            "data.a = x",
            "data.a; data.b",
            "data.a.1",
            "data.a b",
            "x := data.a",
            "data.a # c",
        ] {
            assert_eq!(read(query), None, "{query}");
        }
    }
}
