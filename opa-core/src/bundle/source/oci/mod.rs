//! Bundles from OCI registries: images with a layer that is a bundle.
//!
//! A poll asks for the digest behind the tag (`HEAD`), as OPA's does. Only a digest that is new
//! leads to the manifest, and only another layer than the active one to its blob. Every byte is
//! checked against the digest that led to it, beginning with the one of a reference that has one.

mod challenge;
mod digest;
mod manifest;
mod reference;
mod repository;
mod verified;

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use reqwest::Response;

use self::digest::Digest;
use self::manifest::{BUNDLE_LAYER, Layer, MANIFESTS, Manifest};
pub(crate) use self::reference::Reference;
use self::reference::Version;
use self::repository::Repository;
use self::verified::Verified;
use super::http::ResponseBody;
use super::{Body, Fetch, Source, SourceAnswer, SourceError, SourceFuture};
use crate::service::Service;

/// The most bytes of a manifest: what registries take at most (distribution specification,
/// "Pushing Manifests").
const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// How deep image indexes may be nested; OPA's bound.
const MAX_DEPTH: usize = 4;

/// The most manifests that are looked at for one bundle.
const MAX_MANIFESTS: usize = 64;

/// The header by which registries tell the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// An image of a registry.
pub(crate) struct OciSource {
    repository: Repository,
    version: Version,
    /// The layer of the manifest that was there last: what a digest names never changes.
    known: Mutex<Option<(Digest, Layer)>>,
}

impl OciSource {
    /// # Errors
    /// When `resource` is no image reference.
    pub(crate) fn new(service: Arc<Service>, resource: &str) -> Result<Self, String> {
        let reference = Reference::parse(resource)?;
        Ok(Self {
            repository: Repository::new(service, reference.repository)?,
            version: reference.version,
            known: Mutex::default(),
        })
    }

    async fn get(&self, request: Fetch) -> Result<SourceAnswer, SourceError> {
        let layer = self.layer().await?;
        let etag: Arc<str> = layer.digest.hex().into();
        if request.etag.as_ref() == Some(&etag) {
            return Ok(SourceAnswer::not_modified());
        }
        let what = format!("blobs/{}", layer.digest);
        let any = HeaderValue::from_static("*/*");
        let response = self.repository.ask(Method::GET, &what, any).await?;
        let body = Body::new(Verified::new(ResponseBody::of(response), layer));
        Ok(SourceAnswer::snapshot(body, Some(etag)))
    }

    /// The layer that is the bundle now.
    async fn layer(&self) -> Result<Layer, SourceError> {
        let what = format!("manifests/{}", self.version);
        let head = self
            .repository
            .ask(Method::HEAD, &what, manifests())
            .await?;
        let digest = match &self.version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => told_digest(&head)?,
        };
        let known = *self.known.lock();
        if let Some((of, layer)) = known
            && digest == Some(of)
        {
            return Ok(layer);
        }
        let (digest, manifest) = match digest {
            Some(digest) => (digest, self.manifest(&digest).await?),
            // A registry needn't tell it.
            None => self.read_manifest(&what).await?,
        };
        let layer = self.find_layer(digest, &manifest).await?;
        *self.known.lock() = Some((digest, layer));
        Ok(layer)
    }

    /// The manifest with this digest.
    async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, SourceError> {
        let what = format!("manifests/{digest}");
        let (found, manifest) = self.read_manifest(&what).await?;
        if found == *digest {
            return Ok(manifest);
        }
        let text = format!("manifest `{digest}`: its bytes have another digest");
        Err(SourceError::new(text))
    }

    async fn read_manifest(&self, what: &str) -> Result<(Digest, Vec<u8>), SourceError> {
        let response = self.repository.ask(Method::GET, what, manifests()).await?;
        let body = Body::new(ResponseBody::of(response));
        let manifest = body
            .read_as("the manifest", MAX_MANIFEST_BYTES)
            .await?
            .to_vec();
        Ok((Digest::of(&manifest), manifest))
    }

    /// Looks for the layer in a manifest or, depth first, in those that an index lists: the first
    /// image that has one counts, whatever its platform, as in OPA.
    async fn find_layer(&self, root: Digest, manifest: &[u8]) -> Result<Layer, SourceError> {
        let about = |digest: Digest, problem: &str| {
            SourceError::new(format!("manifest `{digest}`: {problem}"))
        };
        let listed = match Manifest::parse(manifest).map_err(|problem| about(root, &problem))? {
            Manifest::Image(Some(layer)) => return Ok(layer),
            // OPA's words, and which one was missed.
            Manifest::Image(None) => {
                let problem = format!(
                    "no tarball descriptor found in the layers: expected one of type \
                     `{BUNDLE_LAYER}`"
                );
                return Err(about(root, &problem));
            }
            Manifest::Index(listed) => listed,
        };
        let mut seen = HashSet::from([root]);
        let mut unread: Vec<_> = below(listed, 1).collect();
        let mut problems = Vec::new();
        while let Some((digest, depth)) = unread.pop() {
            if !seen.insert(digest) {
                continue;
            }
            if seen.len() > MAX_MANIFESTS {
                let problem = format!("more than {MAX_MANIFESTS} manifests to look at");
                return Err(about(root, &problem));
            }
            // One that can't be read is an error: the next one's policy may be another.
            let manifest = self.manifest(&digest).await?;
            match Manifest::parse(&manifest) {
                Ok(Manifest::Image(Some(layer))) => return Ok(layer),
                Ok(Manifest::Image(None)) => {}
                Ok(Manifest::Index(_)) if depth >= MAX_DEPTH => {
                    problems.push(format!(
                        "image index `{digest}` is nested more than {MAX_DEPTH} levels deep"
                    ));
                }
                Ok(Manifest::Index(listed)) => unread.extend(below(listed, depth + 1)),
                Err(problem) => problems.push(format!("manifest `{digest}`: {problem}")),
            }
        }
        problems.push(format!(
            "no manifest in image index `{root}` contains a {BUNDLE_LAYER} layer"
        ));
        Err(SourceError::new(problems.join("; ")))
    }
}

impl Source for OciSource {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        Box::pin(self.get(request))
    }
}

/// In the order of a stack, from which the first one is taken first.
fn below(listed: Vec<Digest>, depth: usize) -> impl Iterator<Item = (Digest, usize)> {
    listed.into_iter().rev().map(move |digest| (digest, depth))
}

fn manifests() -> HeaderValue {
    let kinds = format!("{}, */*", MANIFESTS.join(", "));
    HeaderValue::try_from(kinds).unwrap_or(HeaderValue::from_static("*/*"))
}

fn told_digest(response: &Response) -> Result<Option<Digest>, SourceError> {
    let Some(told) = response.headers().get(CONTENT_DIGEST) else {
        return Ok(None);
    };
    let digest = Digest::parse(told.to_str().unwrap_or_default());
    digest.map(Some).map_err(SourceError::new)
}
