use std::fmt;
use std::sync::Arc;

/// The path of a decision below `data`, such as `orders/allow`.
///
/// Segments are separated by `/`; empty ones are dropped as OPA does. The path becomes a reference
/// by construction and is never read as query text.
///
/// ```
/// use opa_core::engine::EntrypointPath;
///
/// let path = EntrypointPath::parse("/envoy/authz/allow")?;
/// assert_eq!(path.as_str(), "envoy/authz/allow");
/// assert_eq!(path.segments().collect::<Vec<_>>(), ["envoy", "authz", "allow"]);
/// # Ok::<(), opa_core::engine::InvalidPath>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntrypointPath(Arc<str>);

impl EntrypointPath {
    /// The longest path, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Reads a path.
    ///
    /// # Errors
    /// When no segment is left, the path is too long, or it has a control character.
    pub fn parse(path: &str) -> Result<Self, InvalidPath> {
        let segments: Vec<_> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        if segments.is_empty() {
            return Err(InvalidPath::new(path, "it has no segment"));
        }
        if path.len() > Self::MAX_LEN {
            return Err(InvalidPath::new(path, "it is longer than 4096 bytes"));
        }
        if path.chars().any(char::is_control) {
            return Err(InvalidPath::new(path, "it has a control character"));
        }
        Ok(Self(segments.join("/").into()))
    }

    /// Reads the plain form `data.a.b` of a query, which is never evaluated as one.
    pub(crate) fn from_reference(query: &str) -> Option<Self> {
        let segments: Vec<&str> = query.trim().strip_prefix("data.")?.split('.').collect();
        if !segments.iter().all(|segment| is_variable(segment)) {
            return None;
        }
        Self::parse(&segments.join("/")).ok()
    }

    /// A path that is known to be one.
    pub(crate) fn from_static(path: &'static str) -> Self {
        Self(path.into())
    }

    /// The normalised path, without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as a shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The segments below `data`; there is at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// Whether Rego reads the text as a name, so that it may follow a dot.
fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

impl std::str::FromStr for EntrypointPath {
    type Err = InvalidPath;

    fn from_str(path: &str) -> Result<Self, InvalidPath> {
        Self::parse(path)
    }
}

impl fmt::Display for EntrypointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntrypointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntrypointPath({:?})", &*self.0)
    }
}

/// A text that is no [`EntrypointPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPath {
    path: String,
    problem: &'static str,
}

impl InvalidPath {
    fn new(path: &str, problem: &'static str) -> Self {
        Self {
            path: path.chars().take(64).collect(),
            problem,
        }
    }
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid decision path `{}`: {}",
            self.path.escape_debug(),
            self.problem
        )
    }
}

impl std::error::Error for InvalidPath {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_segments_are_dropped() {
        assert_eq!(EntrypointPath::parse("//a///b/").unwrap().as_str(), "a/b");
    }

    #[test]
    fn refuses_what_names_nothing() {
        for path in ["", "/", "///", "a\nb", &"a".repeat(5000)] {
            assert!(EntrypointPath::parse(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn only_plain_references_are_read_from_queries() {
        let read = |query| EntrypointPath::from_reference(query).map(|path| path.to_string());
        assert_eq!(read("data.a.b_1").as_deref(), Some("a/b_1"));
        assert_eq!(read(" data.a ").as_deref(), Some("a"));
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
            "",
        ] {
            assert_eq!(read(query), None, "{query}");
        }
    }

    /// CVE-2025-46569: the path of a decision was put into a query as text.
    #[test]
    fn cve_2025_46569_a_segment_is_never_query_text() {
        let path = EntrypointPath::parse("a/b\"]; x := 1 #").unwrap();
        assert_eq!(path.segments().collect::<Vec<_>>(), ["a", "b\"]; x := 1 #"]);
    }
}
