//! The content of a data file, and its place in the bundle's data.

use opa_rego::Value;

use super::content::Content;
use super::data::Tree;
use super::digest::sha256;
use super::error::BundleError;
use super::path::{EntryPath, FileKind};
use super::refusals::malformed;
use super::store::{Format, Sha256Digest};
use super::yaml;

/// How the content of a data file is read; `None` for any other file.
pub(super) fn format(path: &EntryPath) -> Option<Format> {
    match path.kind() {
        FileKind::DataJson => Some(Format::Json),
        FileKind::DataYaml => Some(Format::Yaml),
        _ => None,
    }
}

/// The value of a data file, and the hash of its bytes.
pub(super) fn value_of(
    format: Format,
    path: &EntryPath,
    content: Content<'_>,
) -> Result<(Value, Sha256Digest), BundleError> {
    match format {
        Format::Json => content.json(path),
        Format::Yaml => {
            let bytes = content.bytes()?;
            Ok((yaml(path, &bytes)?, sha256(&bytes)))
        }
    }
}

/// Hangs the value of a data file where its directory is. A file with nothing in it, say a YAML
/// file of comments, places nothing, as in OPA's server.
pub(super) fn place(tree: &mut Tree, path: &EntryPath, value: Value) -> Result<(), BundleError> {
    let at = path.data_path()?;
    if value.is_null() {
        return Ok(());
    }
    tree.insert(&at, value, path.shown())
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
