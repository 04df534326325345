//! Writes bundles.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, GzBuilder};
use opa_rego::{RegoVersion, Value};
use tar::{Builder, EntryType, Header};

use super::assemble::Assembler;
use super::digest::{hex, sha256};
use super::directory::for_each_file;
use super::error::{BundleError, BundleErrorKind};
use super::path::{EntryPath, FileKind};
use super::{Bundle, Limits, Manifest};

/// How much of a name the header of an entry holds.
const SHORT_NAME: usize = 100;

/// Puts a bundle together and writes it as OPA reads it.
///
/// Equal content gives equal bytes: entries are sorted, and there are no times and no owners in
/// the archive. Nothing is written that [`read`](super::read) would refuse.
///
/// ```
/// use opa_core::bundle::{BundleWriter, etag};
///
/// let write = |source| BundleWriter::new().module("policy.rego", source)?.to_vec();
/// let archive = write("package app\n\nallow := true")?;
/// assert_eq!(archive, write("package app\n\nallow := true")?);
/// assert_ne!(etag(&archive), etag(&write("package app\n\nallow := false")?));
/// # Ok::<(), opa_core::bundle::BundleError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct BundleWriter {
    manifest: Manifest,
    files: BTreeMap<Arc<str>, Vec<u8>>,
}

impl BundleWriter {
    /// A bundle without files, with the default [`Manifest`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the policy and data files of a directory and its `.manifest`, if it has one.
    /// The rules and the default limits of [`read_path`](super::read_path) hold. This call blocks.
    ///
    /// # Errors
    ///
    /// The directory cannot be read or holds something that has no place in a bundle.
    pub fn from_directory(path: impl AsRef<Path>) -> Result<Self, BundleError> {
        let mut writer = Self::new();
        for_each_file(path.as_ref(), &Limits::default(), |path, content| {
            match path.kind() {
                FileKind::Other => {}
                FileKind::Manifest if path.relative() == ".manifest" => {
                    writer.manifest = Manifest::from_json(&content()?)?;
                }
                _ => writer.insert(&path, content()?)?,
            }
            Ok(())
        })?;
        Ok(writer)
    }

    /// Sets the whole manifest.
    pub fn manifest(self, manifest: Manifest) -> Self {
        Self { manifest, ..self }
    }

    /// Sets the revision.
    pub fn revision(self, revision: impl Into<Arc<str>>) -> Self {
        Self {
            manifest: self.manifest.with_revision(revision),
            ..self
        }
    }

    /// Sets the roots, the paths that the bundle owns. The default is one empty root.
    ///
    /// # Errors
    ///
    /// Two of them overlap.
    pub fn roots(
        self,
        roots: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, BundleError> {
        Ok(Self {
            manifest: self.manifest.with_roots(roots)?,
            ..self
        })
    }

    /// Sets the metadata.
    ///
    /// # Errors
    ///
    /// It is not an object.
    pub fn metadata(self, metadata: Value) -> Result<Self, BundleError> {
        Ok(Self {
            manifest: self.manifest.with_metadata(metadata)?,
            ..self
        })
    }

    /// Sets the Rego version of the policies. The default of readers is version 1.
    pub fn rego_version(self, version: RegoVersion) -> Self {
        Self {
            manifest: self.manifest.with_rego_version(version),
            ..self
        }
    }

    /// Adds a policy file; its name ends in `.rego`.
    ///
    /// # Errors
    ///
    /// The path has another ending or no place in a bundle, or is taken.
    pub fn module(
        self,
        path: impl AsRef<str>,
        source: impl Into<String>,
    ) -> Result<Self, BundleError> {
        let path = EntryPath::new(path.as_ref().as_bytes())?;
        if path.kind() != FileKind::Rego {
            return Err(misplaced(&path, "a name that ends in `.rego`"));
        }
        self.with(&path, source.into().into_bytes())
    }

    /// Adds data at a path of the tree, say `users/roles`; the empty path is the whole tree. It
    /// becomes a file `data.json`.
    ///
    /// # Errors
    ///
    /// The path has no place in a bundle, or is taken.
    pub fn data(self, path: impl AsRef<str>, value: &Value) -> Result<Self, BundleError> {
        let at = path.as_ref().trim_matches('/');
        let name = match at {
            "" => "data.json".to_owned(),
            at => format!("{at}/data.json"),
        };
        let path = EntryPath::new(name.as_bytes())?;
        if path.data_path()?.join("/") != at {
            return Err(misplaced(&path, "a path that does not begin with a dot"));
        }
        self.with(&path, value.to_json().into_bytes())
    }

    /// Adds a policy or data file as it is, say `users/data.yaml`.
    ///
    /// # Errors
    ///
    /// Readers would ignore a file of that name, or the path has no place in a bundle or is
    /// taken. (What is in it is checked when the bundle is written.)
    pub fn file(
        self,
        path: impl AsRef<str>,
        content: impl Into<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let path = EntryPath::new(path.as_ref().as_bytes())?;
        match path.kind() {
            FileKind::Rego | FileKind::DataJson | FileKind::DataYaml => {
                self.with(&path, content.into())
            }
            _ => Err(misplaced(
                &path,
                "`*.rego`, `data.json`, `data.yaml` or `data.yml`",
            )),
        }
    }

    /// The bundle, as a reader of the archive would see it.
    ///
    /// # Errors
    ///
    /// Something in it is not in order: a module or data outside of the roots, data that does not
    /// parse or that collides.
    pub fn bundle(&self) -> Result<Bundle, BundleError> {
        let mut assembler = Assembler::new();
        for (name, content) in self.entries() {
            let path = EntryPath::new(name.as_bytes())?;
            if assembler.announce(&path)? {
                assembler.add_whole(path, &content)?;
            }
        }
        assembler.finish()
    }

    /// Writes the archive.
    ///
    /// # Errors
    ///
    /// As [`bundle`](Self::bundle), or `out` fails.
    pub fn write(&self, out: impl Write) -> Result<(), BundleError> {
        self.bundle()?;
        self.archive(out)
            .map_err(|error| BundleError::io("cannot write bundle", error))
    }

    /// Writes the archive to memory.
    ///
    /// # Errors
    ///
    /// As [`bundle`](Self::bundle).
    pub fn to_vec(&self) -> Result<Vec<u8>, BundleError> {
        let mut archive = Vec::new();
        self.write(&mut archive)?;
        Ok(archive)
    }

    fn with(mut self, path: &EntryPath, content: Vec<u8>) -> Result<Self, BundleError> {
        self.insert(path, content)?;
        Ok(self)
    }

    fn insert(&mut self, path: &EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        match self.files.insert(Arc::clone(path.shown()), content) {
            None => Ok(()),
            Some(_) => Err(misplaced(path, "a path that is not taken")),
        }
    }

    /// All files in the order of the archive, the manifest first.
    ///
    /// The manifest says its Rego version even if it is the default, as `opa build` does: an OPA in
    /// its compatibility mode would read the policies as v0 else.
    fn entries(&self) -> impl Iterator<Item = (Arc<str>, Vec<u8>)> {
        let version = self.manifest.rego_version().unwrap_or_default();
        let manifest = self.manifest.clone().with_rego_version(version);
        let manifest = manifest.to_value().to_json().into_bytes();
        let files = self.files.iter();
        std::iter::once((Arc::from("/.manifest"), manifest))
            .chain(files.map(|(path, content)| (Arc::clone(path), content.clone())))
    }

    fn archive(&self, out: impl Write) -> io::Result<()> {
        // 255 is "unknown"; the default would name the machine that wrote the file.
        let gzip = GzBuilder::new().mtime(0).operating_system(255);
        let mut archive = Builder::new(gzip.write(out, Compression::default()));
        for (name, content) in self.entries() {
            append(&mut archive, name.as_bytes(), &content)?;
        }
        archive.into_inner()?.finish()?.flush()
    }
}

/// Packs a directory as it is: the files that bundles are made of, and all of them if there is a
/// signature, which speaks of all. This call blocks.
pub(super) fn pack(path: &Path, limits: &Limits) -> Result<Vec<u8>, BundleError> {
    let mut signed = false;
    for_each_file(path, limits, |path, _| {
        signed |= path.kind() == FileKind::Signatures;
        Ok(())
    })?;
    let failed = |error| BundleError::io("bundle write failed", error);
    let gzip = GzBuilder::new().mtime(0).operating_system(255);
    let mut archive = Builder::new(gzip.write(Vec::new(), Compression::fast()));
    for_each_file(path, limits, |path, content| {
        if signed || path.kind() != FileKind::Other {
            append(&mut archive, path.shown().as_bytes(), &content()?).map_err(failed)?;
        }
        Ok(())
    })?;
    let gzip = archive.into_inner().map_err(failed)?;
    gzip.finish().map_err(failed)
}

/// Appends a file. The crate's own way refuses names with a leading "/", which OPA's writer sets
/// and patterns of `file_rego_versions` expect.
pub(super) fn append(
    archive: &mut Builder<impl Write>,
    name: &[u8],
    content: &[u8],
) -> io::Result<()> {
    if name.len() > SHORT_NAME {
        let with_end = [name, b"\0"].concat();
        let mut header = header(b"././@LongLink", with_end.len() as u64);
        header.set_entry_type(EntryType::GNULongName);
        header.set_cksum();
        archive.append(&header, with_end.as_slice())?;
    }
    archive.append(&header(name, content.len() as u64), content)
}

fn header(name: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    for (to, from) in header.as_old_mut().name.iter_mut().zip(name) {
        *to = *from;
    }
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A strong entity tag for an archive: the SHA-256 of its bytes, in quotes.
#[must_use]
pub fn etag(archive: &[u8]) -> String {
    format!("\"{}\"", hex(&sha256(archive)))
}

fn misplaced(path: &EntryPath, expected: &str) -> BundleError {
    BundleError::new(
        BundleErrorKind::Entry,
        format!("cannot write `{}`: expected {expected}", path.shown()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = format!("{}/policy.rego", ["segment"; 20].join("/"));
        let writer = BundleWriter::new()
            .revision("r")
            .roots(["a", "b"])
            .unwrap()
            .metadata(Value::object([("k".into(), 1.into())]))
            .unwrap()
            .rego_version(RegoVersion::V0)
            .module(&long, "package a.long")
            .unwrap()
            .module("/a.rego", "package a")
            .unwrap()
            .data("b/c", &Value::from(1))
            .unwrap()
            .file("b/data.yml", "d: 2")
            .unwrap();
        let archive = writer.to_vec().unwrap();
        let bundle = read(archive.as_slice(), &Limits::default()).unwrap();
        assert_eq!(bundle.manifest(), writer.bundle().unwrap().manifest());
        assert_eq!(&**bundle.modules()[0].path(), "/a.rego");
        assert_eq!(**bundle.modules()[1].path(), format!("/{long}"));
        assert_eq!(bundle.modules()[0].rego_version(), RegoVersion::V0);
        assert_eq!(bundle.data().to_json(), r#"{"b":{"c":1,"d":2}}"#);
        assert_eq!(bundle.data_digest(), writer.bundle().unwrap().data_digest());
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        let writer = || BundleWriter::new().revision("r");
        let one = writer()
            .module("a.rego", "package a")
            .and_then(|writer| writer.module("b.rego", "package b"))
            .and_then(|writer| writer.to_vec())
            .unwrap();
        let other = writer()
            .module("./b.rego", "package b")
            .and_then(|writer| writer.module("/a.rego", "package a"))
            .and_then(|writer| writer.to_vec())
            .unwrap();
        assert_eq!(one, other);
        assert_eq!(etag(&one), etag(&other));
        // No time and no operating system in the gzip header.
        assert_eq!(&one[4..8], [0; 4]);
        assert_eq!(one[9], 255);
    }

    #[test]
    fn misplaced_files_are_refused() {
        let writer = || BundleWriter::new().module("a.rego", "package a").unwrap();
        for result in [
            writer().module("a.rego", "package b"),
            writer().module("b.txt", "package b"),
            writer().module("../b.rego", "package b"),
            writer().file("notes.txt", "x"),
            writer().file(".manifest", "{}"),
            writer().file("patch.json", "{}"),
            writer().data("../x", &Value::NULL),
            writer().data(".hidden", &Value::NULL),
            writer().data("a%20b", &Value::NULL),
            writer()
                .data("x", &Value::NULL)
                .and_then(|writer| writer.data("/x/", &Value::NULL)),
        ] {
            assert_eq!(result.unwrap_err().kind(), BundleErrorKind::Entry);
        }
    }

    #[test]
    fn nothing_is_written_that_would_be_refused() {
        let writer = BundleWriter::new().roots(["a"]).unwrap();
        let outside = writer.clone().module("b.rego", "package b").unwrap();
        let mut out = Vec::new();
        let error = outside.write(&mut out).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Roots);
        assert!(out.is_empty());
        let malformed = writer.file("a/data.json", "{").unwrap();
        assert_eq!(
            malformed.to_vec().unwrap_err().kind(),
            BundleErrorKind::Data
        );
    }

    #[test]
    fn from_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        file(
            ".manifest",
            r#"{"revision":"old","roots":["a"],"file_rego_versions":{"/a/old/*":0}}"#,
        );
        file("a/old/p.rego", "package a.old");
        file("a/data.yaml", "x: 1");
        file("README", "not for the bundle");
        let writer = BundleWriter::from_directory(directory.path())
            .unwrap()
            .revision("new");
        let bundle = read(writer.to_vec().unwrap().as_slice(), &Limits::default()).unwrap();
        assert_eq!(bundle.manifest().revision(), "new");
        assert_eq!(bundle.manifest().roots(), ["a"]);
        assert_eq!(bundle.modules()[0].rego_version(), RegoVersion::V0);
        assert_eq!(bundle.data().to_json(), r#"{"a":{"x":1}}"#);
        file("sub/patch.json", "{}");
        let delta = BundleWriter::from_directory(directory.path()).unwrap();
        assert_eq!(
            delta.to_vec().unwrap_err().kind(),
            BundleErrorKind::Unsupported
        );
    }
}
