//! Names of files inside a bundle: what is accepted, and what a name stands for.

use std::sync::Arc;

use super::error::{BundleError, BundleErrorKind};

/// A longer name is refused. Linux's own bound of a path.
const MAX_NAME_BYTES: usize = 4096;

/// The checked name of a file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPath {
    /// As OPA shows it: with one leading "/".
    shown: Arc<str>,
    /// As the archive spells it. OPA matches the patterns of `file_rego_versions` against it.
    raw: Box<str>,
}

/// What a file in a bundle is, told by its name alone as OPA does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Rego,
    DataJson,
    DataYaml,
    Manifest,
    ManifestProto,
    Signatures,
    Patch,
    Wasm,
    Plan,
    /// OPA reads nothing from it.
    Other,
}

impl EntryPath {
    /// Checks a name as an archive or a directory walk gives it.
    ///
    /// One leading "/" (as `opa build` writes it) or "./" (as `tar` does) is normal. Nothing is
    /// ever extracted to a disk, yet a name that other programs would resolve to another place
    /// is refused, since then two readers would see two different bundles.
    pub(super) fn new(raw: &[u8]) -> Result<Self, BundleError> {
        let text = std::str::from_utf8(raw)
            .map_err(|_| refused(&raw.escape_ascii(), &"a name in UTF-8"))?;
        if text.len() > MAX_NAME_BYTES {
            let start: String = text.chars().take(64).collect();
            return Err(refused(
                &format_args!("{}…", start.escape_debug()),
                &format_args!("a name of at most {MAX_NAME_BYTES} bytes"),
            ));
        }
        let inner = text
            .strip_prefix("./")
            .or_else(|| text.strip_prefix('/'))
            .unwrap_or(text);
        if let Some(expected) = fault(inner) {
            return Err(refused(&text.escape_debug(), &expected));
        }
        Ok(Self {
            shown: Arc::from(format!("/{inner}")),
            raw: Box::from(text),
        })
    }

    /// The name with one leading "/".
    pub(super) fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// The name without a leading "/".
    pub(super) fn relative(&self) -> &str {
        self.shown.strip_prefix('/').unwrap_or(&self.shown)
    }

    /// The last segment of the name.
    pub(super) fn base(&self) -> &str {
        self.shown.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    pub(super) fn kind(&self) -> FileKind {
        // The order and the mix of suffixes and exact names are those of OPA's bundle reader.
        let base = self.base();
        match base {
            ".signatures.json" => FileKind::Signatures,
            "patch.json" => FileKind::Patch,
            _ if base.ends_with(".rego") => FileKind::Rego,
            "policy.wasm" => FileKind::Wasm,
            "plan.json" | "plan.pb" => FileKind::Plan,
            "data.json" => FileKind::DataJson,
            "data.yaml" | "data.yml" => FileKind::DataYaml,
            _ if base.ends_with(".manifest.pb") => FileKind::ManifestProto,
            _ if base.ends_with(".manifest") => FileKind::Manifest,
            _ => FileKind::Other,
        }
    }

    /// Where the content of a data file hangs in the tree: the segments of its directory.
    ///
    /// As in OPA, dots that begin the first directory's name do not count (`.hidden/data.json`
    /// is `data.hidden`). A `%` in it is refused: OPA's server decodes it, `opa eval` does not.
    pub(super) fn data_path(&self) -> Result<Vec<&str>, BundleError> {
        let relative = self.relative();
        let directory = relative
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        if directory.contains('%') {
            return Err(refused(
                &self.relative(),
                &"a directory of a data file without `%`",
            ));
        }
        let directory = directory.trim_start_matches(['/', '.']);
        if directory.is_empty() {
            return Ok(Vec::new());
        }
        Ok(directory.split('/').collect())
    }
}

/// What was expected instead, if the name has no place in a bundle.
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a file name");
    }
    if name.contains('\0') {
        return Some("a name without NUL");
    }
    if name.contains('\\') {
        return Some("`/` between the segments of a name, never `\\`");
    }
    let mut bytes = name.bytes();
    if bytes
        .next()
        .is_some_and(|letter| letter.is_ascii_alphabetic())
        && bytes.next() == Some(b':')
    {
        return Some("a name without a drive letter");
    }
    name.split('/').find_map(|segment| match segment {
        "" => Some("a name without empty segments"),
        "." | ".." => Some("a name without `.` and `..` segments"),
        _ => None,
    })
}

fn refused(name: &dyn std::fmt::Display, expected: &dyn std::fmt::Display) -> BundleError {
    BundleError::new(
        BundleErrorKind::Entry,
        format!("bundle entry `{name}` refused: expected {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> FileKind {
        EntryPath::new(name.as_bytes()).unwrap().kind()
    }

    #[test]
    fn the_usual_spellings_are_one_name() {
        for raw in ["a/b.rego", "/a/b.rego", "./a/b.rego"] {
            let path = EntryPath::new(raw.as_bytes()).unwrap();
            assert_eq!(&**path.shown(), "/a/b.rego");
            assert_eq!(path.relative(), "a/b.rego");
            assert_eq!(path.raw(), raw);
        }
        assert_eq!(
            &**EntryPath::new(b"..data/x.rego").unwrap().shown(),
            "/..data/x.rego"
        );
    }

    #[test]
    fn hostile_names_are_refused_by_name() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for raw in [
            "../a.rego",
            "a/../b.rego",
            "a/..",
            "/../a.rego",
            "./../a.rego",
            "//a.rego",
            ".//a.rego",
            "/./a.rego",
            "a//b.rego",
            "a/./b.rego",
            "a/",
            "",
            "/",
            "./",
            "a\\b.rego",
            "..\\a.rego",
            "\\\\host\\share\\data.json",
            "C:/a.rego",
            "/C:/a.rego",
            "c:a.rego",
            "a\0b.rego",
            &long,
        ] {
            let error = EntryPath::new(raw.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), BundleErrorKind::Entry, "{raw:?}");
        }
        let error = EntryPath::new(b"a/../b.rego").unwrap_err();
        assert_eq!(
            error.to_string(),
            "bundle entry `a/../b.rego` refused: expected a name without `.` and `..` segments"
        );
        assert!(
            EntryPath::new(b"a\xff.rego")
                .unwrap_err()
                .to_string()
                .contains("a\\xff.rego")
        );
    }

    #[test]
    fn kinds_are_told_as_opa_tells_them() {
        assert_eq!(kind("a_test.rego"), FileKind::Rego);
        assert_eq!(kind("a/.rego"), FileKind::Rego);
        assert_eq!(kind("x/data.json"), FileKind::DataJson);
        assert_eq!(kind("mydata.json"), FileKind::Other);
        assert_eq!(kind("data.yml"), FileKind::DataYaml);
        assert_eq!(kind("data.yaml"), FileKind::DataYaml);
        assert_eq!(kind("x/my.manifest"), FileKind::Manifest);
        assert_eq!(kind(".manifest.pb"), FileKind::ManifestProto);
        assert_eq!(kind("x/.signatures.json"), FileKind::Signatures);
        assert_eq!(kind("signatures.json"), FileKind::Other);
        assert_eq!(kind("x/patch.json"), FileKind::Patch);
        assert_eq!(kind("x/policy.wasm"), FileKind::Wasm);
        assert_eq!(kind("other.wasm"), FileKind::Other);
        assert_eq!(kind("plan.pb"), FileKind::Plan);
        assert_eq!(kind("a.rego/readme"), FileKind::Other);
    }

    #[test]
    fn data_paths() {
        let of = |name: &str| {
            let path = EntryPath::new(name.as_bytes()).unwrap();
            path.data_path().map(|path| path.join("|"))
        };
        assert_eq!(of("/data.json").unwrap(), "");
        assert_eq!(of("/a/b/data.json").unwrap(), "a|b");
        assert_eq!(of(".hidden/x/data.json").unwrap(), "hidden|x");
        assert!(of("a%2Fb/data.json").is_err());
    }
}
