use std::sync::Arc;

/// Which parts of the input an entrypoint can read.
///
/// The input document is built with these parts only; the engine must name every part that can
/// change the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPaths(Option<Arc<[Vec<String>]>>);

impl InputPaths {
    /// The engine can't tell, or the whole input is read.
    #[must_use]
    pub const fn all() -> Self {
        Self(None)
    }

    /// Exactly these paths, each from the input's root, with everything below them.
    pub fn only<P, S>(paths: impl IntoIterator<Item = P>) -> Self
    where
        P: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let paths = paths
            .into_iter()
            .map(|path| path.into_iter().map(Into::into).collect());
        Self(Some(paths.collect()))
    }

    /// Whether the whole input may be read.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|paths| paths.iter().any(Vec::is_empty))
    }

    /// Whether something at `path`, above it or below it can be read.
    #[must_use]
    pub fn reads(&self, path: &[&str]) -> bool {
        let Some(paths) = &self.0 else { return true };
        paths
            .iter()
            .any(|read| read.iter().zip(path).all(|(read, asked)| read == asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_when_it_lies_above_or_below_a_named_path() {
        let paths = InputPaths::only([vec!["attributes", "request", "http", "method"]]);
        assert!(paths.reads(&["attributes"]));
        assert!(paths.reads(&["attributes", "request", "http", "method"]));
        assert!(paths.reads(&["attributes", "request", "http", "method", "x"]));
        assert!(!paths.reads(&["attributes", "request", "http", "headers"]));
        assert!(!paths.reads(&["parsed_path"]));
        assert!(!paths.is_all());
    }

    #[test]
    fn nothing_and_everything() {
        assert!(!InputPaths::only(Vec::<Vec<String>>::new()).reads(&["a"]));
        assert!(InputPaths::all().reads(&["a"]));
        assert!(InputPaths::only([Vec::<String>::new()]).is_all());
    }
}
