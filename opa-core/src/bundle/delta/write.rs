use flate2::{Compression, GzBuilder};
use opa_rego::Value;
use tar::Builder;

use super::super::writer::append;
use super::{BundleError, Delta, Manifest};

/// Writes a delta bundle; `patch` is the content of its `patch.json`, the manifest's roots must be
/// those of the bundle that it changes. Equal content gives equal bytes.
///
/// # Errors
/// No reader would take it: an operation is none that OPA knows, or lies outside of the roots.
pub fn delta_archive(manifest: &Manifest, patch: &Value) -> Result<Vec<u8>, BundleError> {
    let patch = patch.to_json();
    Delta::read(manifest.clone(), patch.as_bytes())?;
    let manifest = manifest.to_value().to_json();
    let gzip = GzBuilder::new().mtime(0).operating_system(255);
    let mut archive = Builder::new(gzip.write(Vec::new(), Compression::default()));
    let written = append(&mut archive, b"/.manifest", manifest.as_bytes())
        .and_then(|()| append(&mut archive, b"/patch.json", patch.as_bytes()))
        .and_then(|()| archive.into_inner()?.finish());
    written.map_err(|error| BundleError::io("cannot write bundle", error))
}
