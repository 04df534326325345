//! Bundles: policies and data as OPA packs them, read, checked, merged and written.
//!
//! A bundle is a gzip'd tar archive (or a directory) with policy files (`*.rego`), data files
//! (`data.json`, `data.yaml`, `data.yml`, which hang in the tree of data at their directory) and
//! a `.manifest`. [`read`] checks one completely before anything is made of it: names, sizes,
//! manifest, roots, data. The result, a [`Bundle`], never changes. [`Union`] makes one set of
//! modules and one tree of data of all bundles of an app, [`BundleWriter`] writes bundles, for
//! tests and for small services, and a [`source`] is where they come from.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use opa_core::bundle::{self, BundleWriter, Limits, Union};
//! use opa_rego::{RegoVersion, Value};
//!
//! let archive = BundleWriter::new()
//!     .revision("r1")
//!     .roots(["orders", "roles"])?
//!     .module("orders/policy.rego", "package orders\n\nallow := input.user in data.roles")?
//!     .data("roles", &Value::array(["alice".into()]))?
//!     .to_vec()?;
//!
//! let bundle = bundle::read(archive.as_slice(), &Limits::default())?;
//! assert_eq!(bundle.manifest().revision(), "r1");
//! assert_eq!(bundle.modules()[0].path().as_ref(), "/orders/policy.rego");
//! assert_eq!(bundle.data().to_json(), r#"{"roles":["alice"]}"#);
//!
//! let bundles = BTreeMap::from([(Arc::from("authz"), Arc::new(bundle))]);
//! assert_eq!(Union::of(&bundles)?.modules()[0].id().as_ref(), "authz/orders/policy.rego");
//! # Ok::<(), opa_core::bundle::BundleError>(())
//! ```
//!
//! # What differs from OPA
//!
//! A reader that takes what another one refuses, or sees other files in the same bytes, is a hole
//! in a gate. So what OPA ignores or leaves open is an error here where it would matter:
//!
//! - names with `..`, `.` or empty segments, backslashes, drive letters, NUL, or not in UTF-8;
//!   two files of one name; links and devices under the name of a policy or data file;
//! - anything but zeros after the end of the archive;
//! - in YAML: tags beyond the core schema, more than one document, aliases that blow up;
//! - a `%` in the directory of a data file (OPA's server decodes it, `opa eval` does not).
//!
//! Not supported yet, and refused: WebAssembly (`wasm` in the manifest, or a bundle whose only
//! policy is `policy.wasm` or a plan), and a manifest in protobuf (`.manifest.pb`). Modules in Rego
//! version 2 are read; how much of it can be evaluated is up to the engine.
//!
//! # Deltas
//!
//! [`read_update`] also reads delta bundles (`patch.json`), which [`Delta::apply`] makes a new
//! bundle of; the other functions refuse them. OPA's rules hold, with these differences:
//!
//! - a patch without operations changes the revision and nothing else (OPA takes it for a bundle
//!   without content, and removes the active one);
//! - `patch.json` may be there once; data files, a plan or a signature beside it are refused (OPA
//!   ignores them);
//! - the decoded path must lie in the roots, too, not just the path as it is spelled;
//! - the index of an array item is written as in RFC 6901 (OPA takes `+1` and `01`).
//!
//! # Bundles as data
//!
//! Policies find the manifests and etags of the active bundles in `data.system.bundles`, as in OPA.
//! They are there if a module names `data.system` or reaches into `data` by a computed name, or if
//! the configured entrypoint begins with `system`.
//!
//! # Memory
//!
//! Of a bundle that is being loaded there are, besides what comes of it, the archive as it came
//! ([`ArchiveBytes`]) and what is just being read. The text of a JSON data file is never in memory
//! as a whole, that of policies and YAML files is, one at a time. All apps of a manager share what
//! their bundles have in common, by the SHA-256 of the bytes that were read: policy files, data
//! files, the data of a bundle and that of an app. Limits, roots and signatures are nevertheless
//! checked for each app, over all bytes; so the archive is decompressed once, or twice if it is
//! signed or brings data that no other app has.
//!
//! # Signatures
//!
//! [`read_verified`] checks a signed bundle before anything else of it is read; [`read`] and
//! [`read_path`] check no signature. See [`Verification`]. Stricter than OPA: RSA keys have at
//! least 2,048 bits, the curve of a key is the one of its algorithm, tokens are strict base64url,
//! and certificates are of version 3.

use std::sync::Arc;

use opa_rego::{RegoVersion, Value};

pub(crate) use archive::read_shared;
pub use archive::{Update, read, read_update, read_verified};
pub use archive_bytes::ArchiveBytes;
pub use delta::{Delta, delta_archive};
pub use directory::read_path;
pub use error::{BundleError, BundleErrorKind};
pub use limits::Limits;
pub use manifest::Manifest;
pub use signature::Verification;
pub use union::{Union, UnionModule};
pub use writer::{BundleWriter, etag};

pub mod source;

mod archive;
pub(crate) mod archive_bytes;
mod assemble;
mod bounded;
mod content;
mod data;
mod data_file;
mod delta;
mod digest;
mod directory;
mod error;
mod glob;
mod limits;
mod manifest;
mod package;
mod path;
pub(crate) mod persist;
mod refusals;
mod roots;
mod signature;
pub(crate) mod store;
mod system;
mod union;
mod writer;
mod yaml;

/// One bundle, read and checked. See the [module docs](self).
#[derive(Debug, Clone)]
pub struct Bundle {
    manifest: Manifest,
    modules: Vec<ModuleFile>,
    data: Value,
    data_digest: [u8; 32],
    signed: bool,
    /// When a verified signature was made, in seconds since 1970, if it says so.
    issued_at: Option<i64>,
    /// How many bytes of patches were applied since the snapshot, at most.
    patched_bytes: u64,
    /// How many bytes the data files of the snapshot have.
    data_bytes: u64,
}

/// A policy file of a bundle.
#[derive(Debug, Clone)]
pub struct ModuleFile {
    path: Arc<str>,
    rego_version: RegoVersion,
    text: Arc<ModuleText>,
}

/// What is the same of policy files with equal bytes, wherever they are.
#[derive(Debug)]
struct ModuleText {
    source: Arc<str>,
    sha256: [u8; 32],
    package: Vec<String>,
    has_rules: bool,
}

impl Bundle {
    /// What the bundle says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The revision, if there is one that is not empty.
    #[must_use]
    pub fn revision(&self) -> Option<&Arc<str>> {
        Some(self.manifest.shared_revision()).filter(|revision| !revision.is_empty())
    }

    /// The policy files, sorted by path.
    #[must_use]
    pub fn modules(&self) -> &[ModuleFile] {
        &self.modules
    }

    /// The tree of data, an object.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// SHA-256 over the sorted paths and hashes of the data files: equal digests mean equal data.
    #[must_use]
    pub fn data_digest(&self) -> [u8; 32] {
        self.data_digest
    }

    /// How many bytes its data files have in the archive, uncompressed, and the patches that were
    /// applied since. In memory data takes more.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes.saturating_add(self.patched_bytes)
    }

    /// When the verified signature was made (`iat`), in seconds since 1970, if it tells. With a
    /// delta applied: that of the bundle below it.
    #[must_use]
    pub fn signed_at(&self) -> Option<i64> {
        self.issued_at
    }

    fn issued_at(self, issued_at: Option<i64>) -> Self {
        Self { issued_at, ..self }
    }

    /// A bundle without policies and data.
    fn empty(manifest: Manifest) -> Self {
        Self {
            manifest,
            modules: Vec::new(),
            data: Value::empty_object(),
            data_digest: digest::sha256_of_named([]),
            signed: false,
            issued_at: None,
            patched_bytes: 0,
            data_bytes: 0,
        }
    }

    /// Whether the bundle has a signature. [`read_verified`] verifies it, [`read`](read()) does not.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signed
    }
}

impl ModuleFile {
    /// The path in the bundle, with one leading "/".
    #[must_use]
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// The text, without a byte order mark.
    #[must_use]
    pub fn source(&self) -> &Arc<str> {
        &self.text.source
    }

    /// SHA-256 of the file's bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.text.sha256
    }

    /// The version of its language, as the manifest tells it.
    #[must_use]
    pub fn rego_version(&self) -> RegoVersion {
        self.rego_version
    }

    /// The segments of its package, without `data`: `["a", "b"]` for `package a.b`.
    #[must_use]
    pub fn package(&self) -> &[String] {
        &self.text.package
    }
}
