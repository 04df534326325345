//! Reads bundles from gzip'd tar archives.

mod files;
mod pax;
mod update;

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use opa_rego::Value;
use tar::{Archive, Entry, EntryType};

use self::files::{DataFiles, Files, Listing, SignedFiles, Survey};
use super::assemble::Assembler;
use super::bounded::{Bounded, Source};
use super::content::Content;
use super::error::{BundleError, BundleErrorKind};
use super::path::{EntryPath, FileKind};
use super::refusals::{damaged, failed, file_too_large, refused, too_many_entries};
use super::signature::Signatures;
use super::store::Store;
use super::{Bundle, Limits, Verification};

pub(crate) use self::update::read_shared;
pub use self::update::{Update, read_update};

/// The largest extended header, in bytes; the bound of Go's reader.
const MAX_EXTENDED_HEADER: u64 = 1 << 20;

/// How much is read at a time of what only has to be looked at.
const BUFFER: usize = 64 << 10;

/// Reads and checks a bundle. `bytes` is read to its end, and no further than `limits` allow;
/// content goes to memory only, never to a disk. Signatures are not verified; see
/// [`read_verified`].
///
/// Of the archive itself only what is being read is in memory, of a JSON file no more than its
/// value; policies and YAML files are held as a whole while they are read.
///
/// # Errors
///
/// The bytes cannot be read, a limit is passed, or the bundle is not in order; see
/// [`BundleErrorKind`].
pub fn read(mut bytes: impl Read, limits: &Limits) -> Result<Bundle, BundleError> {
    files_of(&mut bytes, limits, Assembler::new())?.finish()
}

/// Reads and checks a bundle, its signature first.
///
/// No file's content is made anything of before it is known to be the one that was signed; a data
/// file is digested by its value, so it has to be read as JSON or YAML before. Content is
/// decompressed twice, so that it need not be held.
///
/// # Errors
///
/// As [`read`]; [`BundleErrorKind::Signature`] if the bundle's signature is not as `verification`
/// wants it.
pub fn read_verified(
    bytes: &[u8],
    limits: &Limits,
    verification: &Verification,
) -> Result<Bundle, BundleError> {
    load(|| bytes, limits, verification, &Store::default())
}

fn load<R: Read>(
    open: impl Fn() -> R,
    limits: &Limits,
    verification: &Verification,
    store: &Store,
) -> Result<Bundle, BundleError> {
    if !verification.is_possible() {
        return unsigned(open, limits, store);
    }
    let survey = files_of(&mut open(), limits, Survey::default())?;
    surveyed(open, limits, verification, store, survey)
}

/// Reads a bundle of which it is known what is signed.
fn surveyed<R: Read>(
    open: impl Fn() -> R,
    limits: &Limits,
    verification: &Verification,
    store: &Store,
    survey: Survey,
) -> Result<Bundle, BundleError> {
    let signatures = survey.signatures()?;
    let Some(listed) = verification.verify(signatures.as_ref())? else {
        return unsigned(open, limits, store);
    };
    let signed = SignedFiles::new(listed, survey.hashes(), store);
    files_of(&mut open(), limits, signed)?.finish()
}

fn unsigned<R: Read>(
    open: impl Fn() -> R,
    limits: &Limits,
    store: &Store,
) -> Result<Bundle, BundleError> {
    let listing = files_of(&mut open(), limits, Listing(Assembler::new()))?;
    with_data(listing, open, limits, store)
}

/// Makes a bundle of its files, whose data is read now, unless somebody holds it.
fn with_data<R: Read>(
    Listing(assembler): Listing,
    open: impl Fn() -> R,
    limits: &Limits,
    store: &Store,
) -> Result<Bundle, BundleError> {
    if assembler.is_signed() {
        return Err(Signatures::without_key());
    }
    assembler.finish_shared(store, |hashes| {
        if hashes.is_empty() {
            return Ok(Value::empty_object());
        }
        let data = DataFiles::new(hashes, store);
        Ok(files_of(&mut open(), limits, data)?.finish())
    })
}

/// Hands the files of an archive over.
fn files_of<F: Files>(bytes: &mut dyn Read, limits: &Limits, files: F) -> Result<F, BundleError> {
    let mut reader = Reader {
        limits: *limits,
        files,
        extended: Extended::default(),
    };
    reader.archive(bytes)?;
    Ok(reader.files)
}

struct Reader<F> {
    limits: Limits,
    files: F,
    extended: Extended,
}

/// What extended headers said about the entry to come.
#[derive(Default)]
struct Extended {
    present: bool,
    records: pax::Records,
    long_name: Option<Vec<u8>>,
}

impl<F: Files> Reader<F> {
    fn archive(&mut self, bytes: &mut dyn Read) -> Result<(), BundleError> {
        let total = self.limits.total_bytes();
        let compressed = Bounded::new(Source(bytes), total);
        let content = Bounded::new(MultiGzDecoder::new(compressed), total);
        let mut archive = Archive::new(content);
        // Raw, since otherwise the crate would read extended headers of any size into memory.
        let entries = archive.entries().map_err(|error| self.failed(error))?;
        for (number, entry) in (1..).zip(entries.raw(true)) {
            if number > self.limits.entries() {
                return Err(self.too_many());
            }
            self.entry(entry.map_err(|error| self.failed(error))?)?;
        }
        if self.extended.present {
            return Err(damaged("an extended header without an entry"));
        }
        self.rest(archive.into_inner())
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), BundleError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XHeader => {
                let records = self.extended_header(&mut entry)?;
                self.extended.records =
                    pax::records(&records).ok_or_else(|| damaged("a malformed extended header"))?;
                return Ok(());
            }
            EntryType::GNULongName => {
                let mut name = self.extended_header(&mut entry)?;
                let end = name.iter().position(|byte| *byte == 0);
                name.truncate(end.unwrap_or(name.len()));
                self.extended.long_name = Some(name);
                return Ok(());
            }
            // Says something about links, or about all entries, but never where content goes.
            EntryType::GNULongLink | EntryType::XGlobalHeader => return Ok(()),
            _ => {}
        }
        let extended = std::mem::take(&mut self.extended);
        let name = extended.name(&entry);
        match kind {
            EntryType::Directory => Ok(()),
            EntryType::Regular if name.ends_with(b"/") => Ok(()),
            EntryType::Regular => self.file(&mut entry, &name, &extended),
            _ => refuse_special(&name),
        }
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        name: &[u8],
        extended: &Extended,
    ) -> Result<(), BundleError> {
        let size = entry.size();
        // Two readers that believe two different sizes see two different archives.
        if extended.records.size.is_some_and(|other| other != size) {
            return Err(damaged("two different sizes for one entry"));
        }
        let path = EntryPath::new(name)?;
        if !self.files.announce(&path)? {
            return Ok(());
        }
        if extended.records.sparse {
            return Err(refused(&path, "a file stored without holes"));
        }
        if size > self.limits.file_bytes() {
            return Err(file_too_large(path.raw(), size, &self.limits));
        }
        let content = Content::new(entry, size, self.limits);
        self.files.add(path, content)
    }

    fn extended_header(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Vec<u8>, BundleError> {
        self.extended.present = true;
        let size = entry.size();
        if size > MAX_EXTENDED_HEADER {
            return Err(BundleError::new(
                BundleErrorKind::Limit,
                format!(
                    "archive has an extended header of {size} bytes: expected at most {MAX_EXTENDED_HEADER}"
                ),
            ));
        }
        Content::new(entry, size, self.limits).bytes()
    }

    /// Reads on to the end, which is where gzip keeps its checksum. Writers fill up with zeros;
    /// anything else would be content that other readers may see.
    fn rest(&self, mut rest: impl Read) -> Result<(), BundleError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match rest.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            if buffer.iter().take(read).any(|byte| *byte != 0) {
                return Err(damaged("content after the end of the archive"));
            }
        }
    }

    fn failed(&self, error: io::Error) -> BundleError {
        failed(error, &self.limits)
    }

    fn too_many(&self) -> BundleError {
        too_many_entries(&self.limits)
    }
}

impl Extended {
    /// The name of the entry, in the order of Go's reader: a GNU name, a pax path, the header.
    fn name(&self, entry: &Entry<'_, impl Read>) -> Vec<u8> {
        match (&self.long_name, &self.records.path) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) => entry.header().path_bytes().into_owned(),
        }
    }
}

/// OPA passes over links, devices and the like. A policy that is only a link would be missing
/// then without a word.
fn refuse_special(name: &[u8]) -> Result<(), BundleError> {
    match EntryPath::new(name) {
        Ok(path) if path.kind() != FileKind::Other => {
            Err(refused(&path, "a regular file, no link and no device"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
