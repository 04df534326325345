//! The `.manifest` of a bundle.

use std::sync::Arc;

use opa_rego::{RegoVersion, Value};

use super::error::{BundleError, BundleErrorKind};
use super::glob::Glob;
use super::roots;
use fields::Fields;

mod fields;

/// Matching all patterns of `file_rego_versions` against all policy files may cost this many
/// steps; a bundle that asks for more is refused.
const MAX_GLOB_STEPS: u64 = 50_000_000;

/// What a bundle says about itself: its revision, the roots that it owns, the Rego version of its
/// policies, and metadata for its readers.
///
/// The default is that of a bundle without a `.manifest`: no revision, and one empty root, which
/// owns everything. Keys that OPA does not know are ignored, as OPA does.
///
/// ```
/// use opa_core::bundle::Manifest;
///
/// let manifest = Manifest::from_json(br#"{"revision": "r1", "roots": ["/orders/"]}"#)?;
/// assert_eq!(manifest.revision(), "r1");
/// assert_eq!(manifest.roots(), ["orders"]);
/// assert_eq!(manifest.rego_version(), None);
/// # Ok::<(), opa_core::bundle::BundleError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    revision: Arc<str>,
    roots: Vec<String>,
    rego_version: Option<RegoVersion>,
    /// Sorted by pattern, which is the order in which OPA tries them.
    file_rego_versions: Vec<FileRegoVersion>,
    metadata: Option<Value>,
}

#[derive(Debug, Clone, PartialEq)]
struct FileRegoVersion {
    pattern: String,
    glob: Glob,
    version: RegoVersion,
}

impl Manifest {
    /// Reads the content of a `.manifest` file.
    ///
    /// # Errors
    ///
    /// The bytes are not one JSON object, a key has a value of the wrong type, roots overlap, a
    /// Rego version is unknown or a pattern of `file_rego_versions` is faulty. Policies compiled
    /// to WebAssembly (`wasm`) are not supported.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        let document = Value::from_json(bytes).map_err(|error| {
            BundleError::with_source(
                BundleErrorKind::Manifest,
                format!("bundle load failed on manifest decode: {error}"),
                error,
            )
        })?;
        let fields = Fields::new(&document)?;
        fields.refuse_wasm()?;
        Self {
            revision: fields.revision()?,
            rego_version: fields.rego_version()?,
            file_rego_versions: fields.file_rego_versions()?,
            metadata: fields.metadata()?,
            ..Self::default()
        }
        .with_roots(fields.roots()?)
    }

    /// The revision, empty if there is none.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The paths that the bundle owns, without "/" at either end. The empty root owns everything.
    #[must_use]
    pub fn roots(&self) -> &[String] {
        &self.roots
    }

    /// The Rego version of policies that no pattern of `file_rego_versions` matches; `None` means
    /// the default of the runtime, which is version 1.
    #[must_use]
    pub fn rego_version(&self) -> Option<RegoVersion> {
        self.rego_version
    }

    /// The patterns that give single files another Rego version.
    pub fn file_rego_versions(&self) -> impl Iterator<Item = (&str, RegoVersion)> {
        self.file_rego_versions
            .iter()
            .map(|file| (file.pattern.as_str(), file.version))
    }

    /// The metadata, an object.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata.as_ref()
    }

    /// Sets the revision.
    #[must_use]
    pub fn with_revision(self, revision: impl Into<Arc<str>>) -> Self {
        Self {
            revision: revision.into(),
            ..self
        }
    }

    /// Sets the roots; "/" at either end does not count.
    ///
    /// # Errors
    ///
    /// Two of them overlap.
    pub fn with_roots(
        self,
        roots: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, BundleError> {
        let roots: Vec<String> = roots
            .into_iter()
            .map(|root| root.into().trim_matches('/').to_owned())
            .collect();
        if let Some((a, b)) = roots::overlap(&roots) {
            let shown = |position| roots.get(position).map_or("", String::as_str);
            return Err(fault(format!(
                "manifest has overlapped roots: '{}' and '{}'",
                shown(a),
                shown(b)
            )));
        }
        Ok(Self { roots, ..self })
    }

    /// Sets the Rego version of all policies.
    #[must_use]
    pub fn with_rego_version(self, version: RegoVersion) -> Self {
        Self {
            rego_version: Some(version),
            ..self
        }
    }

    /// Sets the metadata.
    ///
    /// # Errors
    ///
    /// It is not an object.
    pub fn with_metadata(self, metadata: Value) -> Result<Self, BundleError> {
        if metadata.as_object().is_none() {
            return Err(wrong_type("metadata", "an object"));
        }
        Ok(Self {
            metadata: Some(metadata),
            ..self
        })
    }

    /// The manifest as OPA writes it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |text: &str| Value::from(text);
        let roots = self.roots.iter().map(|root| text(root));
        let mut fields = vec![
            (text("revision"), text(&self.revision)),
            (text("roots"), Value::array(roots)),
        ];
        if let Some(version) = self.rego_version {
            fields.push((text("rego_version"), version_number(version)));
        }
        if !self.file_rego_versions.is_empty() {
            let files = self
                .file_rego_versions()
                .map(|(pattern, version)| (text(pattern), version_number(version)));
            fields.push((text("file_rego_versions"), Value::object(files)));
        }
        if let Some(metadata) = &self.metadata {
            fields.push((text("metadata"), metadata.clone()));
        }
        Value::object(fields)
    }

    pub(super) fn shared_revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// Tells the Rego versions of files by their names as the archive spells them.
    pub(super) fn versions(&self) -> Versions<'_> {
        Versions {
            manifest: self,
            steps: 0,
        }
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            revision: Arc::from(""),
            roots: vec![String::new()],
            rego_version: None,
            file_rego_versions: Vec::new(),
            metadata: None,
        }
    }
}

/// Looks up the Rego versions of files, with a bound on the work of all look-ups together.
pub(super) struct Versions<'a> {
    manifest: &'a Manifest,
    steps: u64,
}

impl Versions<'_> {
    pub(super) fn of(&mut self, raw_path: &str) -> Result<RegoVersion, BundleError> {
        for file in &self.manifest.file_rego_versions {
            self.steps = self.steps.saturating_add(file.glob.cost(raw_path));
            if self.steps > MAX_GLOB_STEPS {
                return Err(BundleError::new(
                    BundleErrorKind::Limit,
                    "manifest has too many or too long patterns in `file_rego_versions` for the \
                     number of policy files",
                ));
            }
            if file.glob.matches(raw_path) {
                return Ok(file.version);
            }
        }
        Ok(self.manifest.rego_version.unwrap_or_default())
    }
}

/// The number that stands for a version.
fn version_number(version: RegoVersion) -> Value {
    Value::from(match version {
        RegoVersion::V0 => 0_i64,
        RegoVersion::V1 => 1,
        RegoVersion::V2 => 2,
    })
}

fn wrong_type(key: &str, expected: &str) -> BundleError {
    fault(format!("manifest has a wrong `{key}`: expected {expected}"))
}

fn fault(message: String) -> BundleError {
    BundleError::new(BundleErrorKind::Manifest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(json: &str) -> Result<Manifest, String> {
        Manifest::from_json(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_fields() {
        let manifest = manifest(
            r#"{"revision":"abc","roots":["/a/","b/c"],"rego_version":0,"unknown":[1],
                "file_rego_versions":{"/b/*":1,"/b/c.rego":0,"/d":2},"metadata":{"x":[1.50]},"wasm":[]}"#,
        )
        .unwrap();
        assert_eq!(manifest.revision(), "abc");
        assert_eq!(manifest.roots(), ["a", "b/c"]);
        assert_eq!(manifest.rego_version(), Some(RegoVersion::V0));
        assert_eq!(manifest.metadata().unwrap().to_json(), r#"{"x":[1.50]}"#);
        // "/b/*" sorts before "/b/c.rego" and so wins, as in OPA.
        let mut versions = manifest.versions();
        assert_eq!(versions.of("/b/c.rego").unwrap(), RegoVersion::V1);
        assert_eq!(versions.of("/x.rego").unwrap(), RegoVersion::V0);
        assert_eq!(versions.of("/d").unwrap(), RegoVersion::V2);
        let again = Manifest::from_json(manifest.to_value().to_json().as_bytes()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn defaults() {
        for json in [
            "{}",
            r#"{"roots":null,"revision":null,"metadata":null,"rego_version":null}"#,
        ] {
            let manifest = manifest(json).unwrap();
            assert_eq!(manifest, Manifest::default());
            assert_eq!(manifest.roots(), [""]);
            assert_eq!(manifest.versions().of("/x.rego").unwrap(), RegoVersion::V1);
        }
        assert!(manifest(r#"{"roots":[]}"#).unwrap().roots().is_empty());
    }

    #[test]
    fn keys_in_any_case_as_go_reads_them() {
        assert_eq!(manifest(r#"{"Roots":["a"]}"#).unwrap().roots(), ["a"]);
        assert_eq!(
            manifest(r#"{"Roots":["a"],"roots":[""]}"#).unwrap_err(),
            "manifest has key `roots` in several spellings"
        );
    }

    #[test]
    fn faults() {
        let message = |json| manifest(json).unwrap_err();
        assert_eq!(
            message(r#"{"roots":["a","b","/a/b"]}"#),
            "manifest has overlapped roots: 'a' and 'a/b'"
        );
        assert_eq!(
            message(r#"{"rego_version":3}"#),
            "manifest has unknown rego-version 3"
        );
        assert_eq!(
            message(r#"{"file_rego_versions":{"/x":7}}"#),
            "manifest has unknown rego-version 7 for file '/x'"
        );
        assert_eq!(
            message(r#"{"rego_version":-1}"#),
            "manifest has unknown rego-version -1"
        );
        assert_eq!(
            message(r#"{"file_rego_versions":{"[":1}}"#),
            "failed to compile glob pattern [: unclosed `[`"
        );
        assert!(
            message(r#"{"wasm":[{"entrypoint":"a","module":"/policy.wasm"}]}"#).contains("wasm")
        );
        assert!(message(r#"{"wasm":{}}"#).contains("wasm"));
        assert!(message("").contains("bundle load failed on manifest decode"));
        assert!(message("{}{}").contains("bundle load failed on manifest decode"));
        for json in [
            "[]",
            "null",
            r#"{"revision":1}"#,
            r#"{"roots":"a"}"#,
            r#"{"roots":[null]}"#,
            r#"{"rego_version":"1"}"#,
            r#"{"rego_version":0.5}"#,
            r#"{"rego_version":1.0}"#,
            r#"{"file_rego_versions":[]}"#,
            r#"{"file_rego_versions":{"x":"1"}}"#,
            r#"{"metadata":[]}"#,
        ] {
            let error = Manifest::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), BundleErrorKind::Manifest, "{json}");
        }
    }

    fn with_patterns(patterns: impl Iterator<Item = String>) -> Manifest {
        let patterns: Vec<String> = patterns.map(|pattern| format!("\"{pattern}\":0")).collect();
        manifest(&format!(
            "{{\"file_rego_versions\":{{{}}}}}",
            patterns.join(",")
        ))
        .unwrap()
    }

    #[test]
    fn a_pattern_for_each_file_as_opa_build_writes_them() {
        let name = |number: usize| format!("/a/long/path/to/the/policy/{number}.rego");
        let manifest = with_patterns((0..2_000).map(name));
        let mut versions = manifest.versions();
        for number in 0..2_000 {
            assert_eq!(versions.of(&name(number)).unwrap(), RegoVersion::V0);
        }
    }

    #[test]
    fn costly_patterns_are_refused() {
        let manifest = with_patterns((0..100).map(|number| format!("/{{a,b}}{number}*")));
        let mut versions = manifest.versions();
        let long = "x".repeat(4_000);
        let results = (0..1_000).map(|_| versions.of(&long));
        let error = results.collect::<Result<Vec<_>, _>>().unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Limit);
    }
}
