//! What becomes of the files of an archive.

use std::collections::HashMap;
use std::sync::Arc;

use opa_rego::Value;

use super::super::Bundle;
use super::super::assemble::Assembler;
use super::super::content::Content;
use super::super::data::Tree;
use super::super::data_file::{format, place, value_of};
use super::super::error::BundleError;
use super::super::path::{EntryPath, FileKind};
use super::super::refusals::damaged;
use super::super::signature::{Listed, Signatures};
use super::super::store::{Sha256Digest, Store};

/// What takes the files of an archive, in their order.
pub(super) trait Files {
    /// Whether the content of a file is needed.
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError>;

    /// Takes a file whose content is needed.
    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError>;
}

/// The hashes of data files, by their paths.
pub(super) type Hashes = HashMap<Arc<str>, Sha256Digest>;

impl Files for Assembler {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        self.add(path, content)
    }
}

/// All files of a bundle, but of data files only their hashes.
pub(super) struct Listing(pub(super) Assembler);

impl Files for Listing {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.0.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        match format(&path) {
            Some(_) => {
                let size = content.size();
                self.0.list(&path, content.sha256()?, size)
            }
            None => self.0.add(path, content),
        }
    }
}

/// The data files whose hashes are known. What somebody else holds is not read again.
pub(super) struct DataFiles<'a> {
    hashes: Hashes,
    store: &'a Store,
    tree: Tree,
}

impl<'a> DataFiles<'a> {
    pub(super) fn new(hashes: &[(Arc<str>, Sha256Digest)], store: &'a Store) -> Self {
        Self {
            hashes: hashes.iter().cloned().collect(),
            store,
            tree: Tree::new(),
        }
    }

    pub(super) fn finish(self) -> Value {
        self.tree.finish()
    }
}

impl Files for DataFiles<'_> {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        Ok(format(path).is_some())
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        let value = shared(self.store, &self.hashes, &path, content)?;
        place(&mut self.tree, &path, value)
    }
}

/// What has to be known before the files of a signed bundle are looked at: its signature file, and
/// the hashes of its data files. A second file of one name is an error of the [`Assembler`].
#[derive(Default)]
pub(super) struct Survey {
    signatures: Option<Vec<u8>>,
    hashes: Hashes,
}

impl Survey {
    /// The signatures, if there are any.
    pub(super) fn signatures(&self) -> Result<Option<Signatures>, BundleError> {
        match &self.signatures {
            Some(content) => Signatures::read(content),
            None => Ok(None),
        }
    }

    pub(super) fn hashes(self) -> Hashes {
        self.hashes
    }
}

impl Files for Survey {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        let is_signatures = path.kind() == FileKind::Signatures && self.signatures.is_none();
        Ok(is_signatures || format(path).is_some())
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        if format(&path).is_some() {
            let hash = content.sha256()?;
            self.hashes.insert(Arc::clone(path.shown()), hash);
        } else {
            self.signatures = Some(content.bytes()?);
        }
        Ok(())
    }
}

/// Files that must be those that were signed; all of them, whatever they are.
pub(super) struct SignedFiles<'a> {
    assembler: Assembler,
    listed: Listed<'a>,
    hashes: Hashes,
    store: &'a Store,
    data: Vec<(EntryPath, Value)>,
}

impl<'a> SignedFiles<'a> {
    pub(super) fn new(listed: Listed<'a>, hashes: Hashes, store: &'a Store) -> Self {
        Self {
            assembler: Assembler::new(),
            listed,
            hashes,
            store,
            data: Vec::new(),
        }
    }

    /// Checks that no file is missing, then the bundle as a whole.
    pub(super) fn finish(self) -> Result<Bundle, BundleError> {
        let issued_at = self.listed.issued_at();
        self.listed.finish()?;
        let data = self.data;
        let bundle = self.assembler.finish_shared(self.store, |_| {
            let mut tree = Tree::new();
            for (path, value) in data {
                place(&mut tree, &path, value)?;
            }
            Ok(tree.finish())
        })?;
        Ok(bundle.issued_at(issued_at))
    }

    fn add_data(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        let expected = self.listed.expected(&path)?;
        let size = content.size();
        let value = shared(self.store, &self.hashes, &path, content)?;
        if let Some(expected) = expected {
            expected.check(|take| {
                value.write_json_pieces(take);
                Ok(())
            })?;
        }
        let hash = hash_of(&self.hashes, &path)?;
        self.assembler.list(&path, hash, size)?;
        self.data.push((path, value));
        Ok(())
    }
}

impl Files for SignedFiles<'_> {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.assembler.announce(path)?;
        Ok(true)
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        match path.kind() {
            FileKind::Signatures => self.assembler.add(path, content),
            FileKind::DataJson | FileKind::DataYaml => self.add_data(path, content),
            // Nothing is made of it.
            FileKind::Other => match self.listed.expected(&path)? {
                Some(expected) => expected.check(|take| content.pieces(take)),
                None => Ok(()),
            },
            _ => {
                let expected = self.listed.expected(&path)?;
                let bytes = content.bytes()?;
                if let Some(expected) = expected {
                    expected.check_bytes(&path, &bytes)?;
                }
                self.assembler.add_bytes(path, bytes)
            }
        }
    }
}

/// The value of a data file, read if nobody holds it.
fn shared(
    store: &Store,
    hashes: &Hashes,
    path: &EntryPath,
    content: Content<'_>,
) -> Result<Value, BundleError> {
    let hash = hash_of(hashes, path)?;
    let format = format(path).ok_or_else(|| damaged("a file that was no data before"))?;
    let read = || value_of(format, path, content).map(|(value, _)| value);
    store.file(format, hash, read)
}

/// The archive is the same each time it is read, so this is known of all data files.
fn hash_of(hashes: &Hashes, path: &EntryPath) -> Result<Sha256Digest, BundleError> {
    let hash = hashes.get(path.shown()).copied();
    hash.ok_or_else(|| damaged("a file that was not there before"))
}
