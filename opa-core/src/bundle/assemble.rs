//! Makes a bundle of files, wherever they come from.

use std::collections::HashSet;
use std::sync::Arc;

use opa_rego::Value;

use super::content::Content;
use super::data::Tree;
use super::data_file::{format, place, value_of};
use super::digest::{sha256, sha256_of_named};
use super::error::{BundleError, BundleErrorKind};
use super::manifest::{Manifest, Versions};
use super::package::{self, package};
use super::path::{EntryPath, FileKind};
use super::roots::{self, RootTree};
use super::signature::Signatures;
use super::store::{Sha256Digest, Store, TreeOf};
use super::{Bundle, Limits, ModuleFile, ModuleText};

/// Collects the files of a bundle; the order does not matter.
#[derive(Debug)]
pub(super) struct Assembler {
    names: HashSet<Arc<str>>,
    manifest: Option<(EntryPath, Manifest)>,
    policies: Vec<Policy>,
    tree: Tree,
    data_files: Vec<(Arc<str>, [u8; 32])>,
    data_bytes: u64,
    signatures: Option<(EntryPath, Option<Signatures>)>,
    /// A policy in a form that is not Rego.
    compiled: Option<EntryPath>,
}

/// A policy file whose manifest may still come.
#[derive(Debug)]
struct Policy {
    path: EntryPath,
    source: String,
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
            data_bytes: 0,
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
    pub(super) fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        match format(&path) {
            Some(format) => {
                let size = content.size();
                let (value, sha256) = value_of(format, &path, content)?;
                self.list(&path, sha256, size)?;
                place(&mut self.tree, &path, value)
            }
            None => self.add_bytes(path, content.bytes()?),
        }
    }

    /// As [`add`](Self::add), of a file that is in memory.
    pub(super) fn add_whole(&mut self, path: EntryPath, bytes: &[u8]) -> Result<(), BundleError> {
        let size = bytes.len() as u64;
        self.add(path, Content::new(&mut &*bytes, size, Limits::default()))
    }

    /// Takes a file that was announced and is no data.
    pub(super) fn add_bytes(&mut self, path: EntryPath, bytes: Vec<u8>) -> Result<(), BundleError> {
        match path.kind() {
            FileKind::Rego => self.add_policy(path, bytes),
            FileKind::Manifest => self.add_manifest(path, &bytes),
            FileKind::Signatures => self.add_signatures(path, &bytes),
            _ => Ok(()),
        }
    }

    /// Takes the hash and the size of a data file whose value is placed elsewhere.
    pub(super) fn list(
        &mut self,
        path: &EntryPath,
        sha256: Sha256Digest,
        size: u64,
    ) -> Result<(), BundleError> {
        path.data_path()?;
        self.data_bytes = self.data_bytes.saturating_add(size);
        self.data_files.push((Arc::clone(path.shown()), sha256));
        Ok(())
    }

    pub(super) fn is_signed(&self) -> bool {
        matches!(self.signatures, Some((_, Some(_))))
    }

    /// Checks what can be checked only with all files at hand.
    pub(super) fn finish(mut self) -> Result<Bundle, BundleError> {
        let tree = std::mem::replace(&mut self.tree, Tree::new());
        self.finish_shared(&Store::default(), |_| Ok(tree.finish()))
    }

    /// As [`finish`](Self::finish), with what others hold in `store`. `data` makes the tree of the
    /// data files that were listed.
    pub(super) fn finish_shared(
        self,
        store: &Store,
        data: impl FnOnce(&[(Arc<str>, Sha256Digest)]) -> Result<Value, BundleError>,
    ) -> Result<Bundle, BundleError> {
        if let (Some(compiled), []) = (&self.compiled, self.policies.as_slice()) {
            return Err(unsupported(
                compiled,
                "policies that are not in Rego",
                "at least one `.rego` file",
            ));
        }
        let signed = self.is_signed();
        let manifest = self.manifest.map(|(_, manifest)| manifest);
        let manifest = manifest.unwrap_or_default();
        let owned = RootTree::new(manifest.roots().iter().map(String::as_str));
        let mut versions = manifest.versions();
        let mut modules = self
            .policies
            .into_iter()
            .map(|policy| policy.module(&manifest, &owned, &mut versions, store))
            .collect::<Result<Vec<_>, _>>()?;
        modules.sort_by(|a, b| a.path.cmp(&b.path));

        let files = self.data_files.iter();
        let data_digest = sha256_of_named(files.map(|(path, digest)| (&**path, *digest)));
        let make = || data(&self.data_files);
        let data = store.tree(TreeOf::Bundle, data_digest, make)?;
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
        Ok(Bundle {
            modules,
            data,
            data_digest,
            signed,
            issued_at: None,
            patched_bytes: 0,
            data_bytes: self.data_bytes,
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
        self.policies.push(Policy {
            path,
            source,
            sha256,
        });
        Ok(())
    }
}

impl Policy {
    fn module(
        self,
        manifest: &Manifest,
        owned: &RootTree,
        versions: &mut Versions<'_>,
        store: &Store,
    ) -> Result<ModuleFile, BundleError> {
        let path = Arc::clone(self.path.shown());
        let text = store.module(self.sha256, || self.text())?;
        if !owned.contains(text.package.iter().map(String::as_str)) {
            return Err(BundleError::new(
                BundleErrorKind::Roots,
                format!(
                    "manifest roots {} do not permit '{}' in module '{path}'",
                    roots::shown(manifest.roots()),
                    package::shown(&text.package)
                ),
            ));
        }
        Ok(ModuleFile {
            path,
            rego_version: versions.of(self.path.raw())?,
            text,
        })
    }

    /// What can be told from the bytes alone.
    fn text(&self) -> Result<ModuleText, BundleError> {
        let source = self.source.strip_prefix('\u{feff}').unwrap_or(&self.source);
        let package = package(source).map_err(|error| {
            let path = self.path.shown();
            BundleError::new(
                BundleErrorKind::Module,
                format!("{path}:{}: rego_parse_error: {}", error.line, error.message),
            )
        })?;
        Ok(ModuleText {
            source: Arc::from(source),
            sha256: self.sha256,
            package: package.path,
            has_rules: package.has_rules,
        })
    }
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
