//! Makes a bundle of files, wherever they come from.

use std::collections::HashSet;
use std::sync::Arc;

use opa_rego::Value;

use super::data::Tree;
use super::digest::{sha256, sha256_of_named};
use super::error::{BundleError, BundleErrorKind};
use super::manifest::{Manifest, Versions};
use super::package::{self, package};
use super::path::{EntryPath, FileKind};
use super::roots::{self, RootTree};
use super::signature::Signatures;
use super::{Bundle, ModuleFile, yaml};

/// Collects the files of a bundle; the order does not matter.
#[derive(Debug)]
pub(super) struct Assembler {
    names: HashSet<Arc<str>>,
    manifest: Option<(EntryPath, Manifest)>,
    policies: Vec<Policy>,
    tree: Tree,
    data_files: Vec<(Arc<str>, [u8; 32])>,
    signatures: Option<(EntryPath, Option<Signatures>)>,
    /// A policy in a form that is not Rego.
    compiled: Option<EntryPath>,
}

/// A policy file whose manifest may still come.
#[derive(Debug)]
struct Policy {
    path: EntryPath,
    source: Arc<str>,
    sha256: [u8; 32],
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            names: HashSet::new(),
            manifest: None,
            policies: Vec::new(),
            tree: Tree::new(),
            data_files: Vec::new(),
            signatures: None,
            compiled: None,
        }
    }

    /// Decides by its name whether the content of a file is needed.
    pub(super) fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        let kind = path.kind();
        if kind != FileKind::Other && !self.names.insert(Arc::clone(path.shown())) {
            return Err(BundleError::new(
                BundleErrorKind::Entry,
                format!("bundle contains `{}` twice", path.shown()),
            ));
        }
        match kind {
            FileKind::Rego
            | FileKind::DataJson
            | FileKind::DataYaml
            | FileKind::Manifest
            | FileKind::Signatures => Ok(true),
            FileKind::Wasm | FileKind::Plan => {
                self.compiled.get_or_insert_with(|| path.clone());
                Ok(false)
            }
            FileKind::Patch => Err(unsupported(path, "delta bundles", "a snapshot bundle")),
            FileKind::ManifestProto => Err(unsupported(
                path,
                "manifests in protobuf",
                "`.manifest` in JSON",
            )),
            FileKind::Other => Ok(false),
        }
    }

    /// Takes the content of a file that was announced.
    pub(super) fn add(&mut self, path: EntryPath, bytes: Vec<u8>) -> Result<(), BundleError> {
        match path.kind() {
            FileKind::Rego => self.add_policy(path, bytes),
            FileKind::Manifest => self.add_manifest(path, &bytes),
            FileKind::Signatures => self.add_signatures(path, &bytes),
            FileKind::DataJson => {
                let value = json(&path, &bytes)?;
                self.add_data(&path, value, &bytes)
            }
            FileKind::DataYaml => {
                let value = yaml(&path, &bytes)?;
                self.add_data(&path, value, &bytes)
            }
            _ => Ok(()),
        }
    }

    /// Checks what can be checked only with all files at hand.
    pub(super) fn finish(self) -> Result<Bundle, BundleError> {
        if let (Some(compiled), []) = (&self.compiled, self.policies.as_slice()) {
            return Err(unsupported(
                compiled,
                "policies that are not in Rego",
                "at least one `.rego` file",
            ));
        }
        let manifest = self.manifest.map(|(_, manifest)| manifest);
        let manifest = manifest.unwrap_or_default();
        let owned = RootTree::new(manifest.roots().iter().map(String::as_str));
        let mut versions = manifest.versions();
        let mut modules = self
            .policies
            .into_iter()
            .map(|policy| policy.module(&manifest, &owned, &mut versions))
            .collect::<Result<Vec<_>, _>>()?;
        modules.sort_by(|a, b| a.path.cmp(&b.path));

        let data = self.tree.finish();
        if let Some(path) = owned.outside(&data) {
            return Err(BundleError::new(
                BundleErrorKind::Roots,
                format!(
                    "manifest roots {} do not permit data at path '/{path}' \
                     (hint: check bundle directory structure)",
                    roots::shown(manifest.roots())
                ),
            ));
        }
        let files = self.data_files.iter();
        let data_digest = sha256_of_named(files.map(|(path, digest)| (&**path, *digest)));
        Ok(Bundle {
            modules,
            data,
            data_digest,
            signed: matches!(self.signatures, Some((_, Some(_)))),
            issued_at: None,
            patched_bytes: 0,
            manifest,
        })
    }

    fn add_signatures(&mut self, path: EntryPath, bytes: &[u8]) -> Result<(), BundleError> {
        if let Some((first, _)) = &self.signatures {
            return Err(multiple("signatures", first, &path));
        }
        self.signatures = Some((path, Signatures::read(bytes)?));
        Ok(())
    }

    fn add_manifest(&mut self, path: EntryPath, bytes: &[u8]) -> Result<(), BundleError> {
        if let Some((first, _)) = &self.manifest {
            return Err(multiple("manifest", first, &path));
        }
        self.manifest = Some((path, Manifest::from_json(bytes)?));
        Ok(())
    }

    fn add_policy(&mut self, path: EntryPath, bytes: Vec<u8>) -> Result<(), BundleError> {
        let sha256 = sha256(&bytes);
        let source = String::from_utf8(bytes).map_err(|error| {
            BundleError::with_source(
                BundleErrorKind::Module,
                format!("{}: expected text in UTF-8: {error}", path.shown()),
                error,
            )
        })?;
        let source = Arc::from(source.strip_prefix('\u{feff}').unwrap_or(&source));
        self.policies.push(Policy {
            path,
            source,
            sha256,
        });
        Ok(())
    }

    fn add_data(
        &mut self,
        path: &EntryPath,
        value: Value,
        bytes: &[u8],
    ) -> Result<(), BundleError> {
        self.data_files
            .push((Arc::clone(path.shown()), sha256(bytes)));
        let at = path.data_path()?;
        // A file with nothing in it, say a YAML file of comments, places nothing, as in OPA's
        // server.
        if value.is_null() {
            return Ok(());
        }
        self.tree.insert(&at, value, path.shown())
    }
}

impl Policy {
    fn module(
        self,
        manifest: &Manifest,
        owned: &RootTree,
        versions: &mut Versions<'_>,
    ) -> Result<ModuleFile, BundleError> {
        let path = Arc::clone(self.path.shown());
        let package = package(&self.source).map_err(|error| {
            BundleError::new(
                BundleErrorKind::Module,
                format!("{path}:{}: rego_parse_error: {}", error.line, error.message),
            )
        })?;
        if !owned.contains(package.path.iter().map(String::as_str)) {
            return Err(BundleError::new(
                BundleErrorKind::Roots,
                format!(
                    "manifest roots {} do not permit '{}' in module '{path}'",
                    roots::shown(manifest.roots()),
                    package::shown(&package.path)
                ),
            ));
        }
        Ok(ModuleFile {
            path,
            source: self.source,
            sha256: self.sha256,
            rego_version: versions.of(self.path.raw())?,
            package: Arc::from(package.path),
            has_rules: package.has_rules,
        })
    }
}

/// The content of a JSON file.
pub(super) fn json(path: &EntryPath, bytes: &[u8]) -> Result<Value, BundleError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Value::from_json(bytes).map_err(|error| malformed(path, error))
}

/// The content of a YAML file.
pub(super) fn yaml(path: &EntryPath, bytes: &[u8]) -> Result<Value, BundleError> {
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(path, error))?;
    yaml::read(text).map_err(|error| malformed(path, error))
}

fn malformed(
    path: &EntryPath,
    error: impl std::error::Error + Send + Sync + 'static,
) -> BundleError {
    BundleError::with_source(
        BundleErrorKind::Data,
        format!("bundle load failed on {}: {error}", path.shown()),
        error,
    )
}

fn multiple(what: &str, first: &EntryPath, second: &EntryPath) -> BundleError {
    BundleError::new(
        BundleErrorKind::Entry,
        format!(
            "bundle contains multiple {what} files: \"{}\" and \"{}\"",
            first.shown(),
            second.shown()
        ),
    )
}

fn unsupported(path: &EntryPath, what: &str, expected: &str) -> BundleError {
    BundleError::new(
        BundleErrorKind::Unsupported,
        format!(
            "bundle has `{}`, but {what} are not supported: expected {expected}",
            path.shown()
        ),
    )
}
