//! What becomes of the files of an archive.

use super::super::Bundle;
use super::super::assemble::Assembler;
use super::super::error::BundleError;
use super::super::path::{EntryPath, FileKind};
use super::super::signature::Listed;

/// What takes the files of an archive, in their order.
pub(super) trait Files {
    /// Whether the content of a file is needed.
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError>;

    /// Takes a file whose content is needed.
    fn add(&mut self, path: EntryPath, content: Vec<u8>) -> Result<(), BundleError>;
}

impl Files for Assembler {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        self.add(path, content)
    }
}

/// The signature file. A second one is an error of the [`Assembler`].
#[derive(Default)]
pub(super) struct FindSignatures(Option<Vec<u8>>);

impl FindSignatures {
    /// Its content, if there is one.
    pub(super) fn found(self) -> Option<Vec<u8>> {
        self.0
    }
}

impl Files for FindSignatures {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        Ok(path.kind() == FileKind::Signatures && self.0.is_none())
    }

    fn add(&mut self, _: EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        self.0 = Some(content);
        Ok(())
    }
}

/// Files that must be those that were signed; all of them, whatever they are.
pub(super) struct SignedFiles<'a> {
    assembler: Assembler,
    listed: Listed<'a>,
}

impl<'a> SignedFiles<'a> {
    pub(super) fn new(listed: Listed<'a>) -> Self {
        Self {
            assembler: Assembler::new(),
            listed,
        }
    }

    /// Checks that no file is missing, then the bundle as a whole.
    pub(super) fn finish(self) -> Result<Bundle, BundleError> {
        let issued_at = self.listed.issued_at();
        self.listed.finish()?;
        let bundle = self.assembler.finish()?;
        Ok(bundle.issued_at(issued_at))
    }
}

impl Files for SignedFiles<'_> {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.assembler.announce(path)?;
        Ok(true)
    }

    fn add(&mut self, path: EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        if path.kind() != FileKind::Signatures {
            self.listed.check(&path, &content)?;
        }
        self.assembler.add(path, content)
    }
}
