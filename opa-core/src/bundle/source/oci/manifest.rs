//! What the JSON of manifests says, as far as a bundle needs it (OCI image specification,
//! "Image Manifest" and "Image Index").

use serde_json::Value;

use super::digest::Digest;

/// The type of the layer that is a bundle.
pub(super) const BUNDLE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The types of manifests and lists of manifests, as OPA accepts them.
pub(super) const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A manifest, or a list of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Manifest {
    /// An image: the layer that is its bundle, if it has one. With several it is the first.
    Image(Option<Layer>),
    /// The manifests to look at, in order.
    Index(Vec<Digest>),
}

/// A blob: what its bytes must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Manifest {
    /// What has layers is an image, whatever its media type says: so OPA decides.
    ///
    /// # Errors
    /// When it is neither. A manifest names no secrets, but a registry could put anything into it:
    /// only digests of it are repeated.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("the manifest is no JSON: {error}"))?;
        let layers = list(&document, "layers")?;
        if !layers.is_empty() {
            let bundle = layers
                .iter()
                .find(|layer| text(layer, "mediaType") == Some(BUNDLE_LAYER));
            return Ok(Self::Image(bundle.map(layer).transpose()?));
        }
        let manifests = list(&document, "manifests")?;
        if manifests.is_empty() {
            // OPA's words.
            return Err("no layers in manifest".to_owned());
        }
        let wanted = manifests.iter().filter(|entry| may_have_bundle(entry));
        Ok(Self::Index(wanted.map(digest).collect::<Result<_, _>>()?))
    }
}

fn list<'a>(document: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match document.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("the manifest's `{key}` are no array")),
    }
}

/// Builders attach provenance under a platform `unknown`, which never has a bundle.
fn may_have_bundle(entry: &Value) -> bool {
    let platform = entry.get("platform");
    let of_platform = |key| platform.and_then(|platform| text(platform, key));
    let unknown = Some("unknown");
    let is_attached = of_platform("os") == unknown && of_platform("architecture") == unknown;
    !is_attached && text(entry, "mediaType").is_some_and(|kind| MANIFESTS.contains(&kind))
}

fn layer(descriptor: &Value) -> Result<Layer, String> {
    let size = descriptor.get("size").and_then(Value::as_u64);
    Ok(Layer {
        digest: digest(descriptor)?,
        size: size.ok_or("the layer's `size` is no number of bytes")?,
    })
}

fn digest(descriptor: &Value) -> Result<Digest, String> {
    Digest::parse(text(descriptor, "digest").unwrap_or_default())
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(document: &Value) -> Result<Manifest, String> {
        Manifest::parse(document.to_string().as_bytes())
    }

    fn descriptor(kind: &str, content: &str) -> Value {
        let digest = Digest::of(content.as_bytes()).to_string();
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    }

    #[test]
    fn the_first_layer_of_the_type_is_the_bundle() {
        let layers = [
            descriptor("application/vnd.oci.image.layer.v1.tar", "a"),
            descriptor(BUNDLE_LAYER, "bb"),
            descriptor(BUNDLE_LAYER, "c"),
        ];
        // Layers decide, whatever else is there.
        let manifest = json!({"layers": layers, "manifests": [descriptor(MANIFESTS[0], "d")]});
        let layer = Layer {
            digest: Digest::of(b"bb"),
            size: 2,
        };
        assert_eq!(parse(&manifest), Ok(Manifest::Image(Some(layer))));
        let manifest = json!({"layers": [layers[0]]});
        assert_eq!(parse(&manifest), Ok(Manifest::Image(None)));
    }

    #[test]
    fn of_an_index_what_can_have_no_bundle_is_left_out() {
        let mut attached = descriptor(MANIFESTS[0], "a");
        attached["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let mut linux = descriptor(MANIFESTS[2], "b");
        linux["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let other = descriptor("text/plain", "c");
        let index = descriptor(MANIFESTS[1], "d");
        let document = json!({"layers": null, "manifests": [attached, linux, other, index]});
        let expected = vec![Digest::of(b"b"), Digest::of(b"d")];
        assert_eq!(parse(&document), Ok(Manifest::Index(expected)));
    }

    #[test]
    fn what_is_neither_is_an_error() {
        for (document, problem) in [
            (json!({}), "no layers in manifest"),
            (json!([]), "no layers in manifest"),
            (
                json!({"layers": [], "manifests": []}),
                "no layers in manifest",
            ),
            (
                json!({"layers": {}}),
                "the manifest's `layers` are no array",
            ),
            (
                json!({"layers": [{"mediaType": BUNDLE_LAYER, "digest": "md5:0"}]}),
                "unsupported digest `md5:0`",
            ),
            (
                json!({"layers": [{"mediaType": BUNDLE_LAYER, "size": -1,
                    "digest": Digest::of(b"").to_string()}]}),
                "the layer's `size` is no number of bytes",
            ),
        ] {
            let error = parse(&document).unwrap_err();
            assert!(error.starts_with(problem), "{document}: {error}");
        }
        assert!(
            Manifest::parse(b"<html>")
                .unwrap_err()
                .starts_with("the manifest is no JSON")
        );
        let deep = "[".repeat(100_000);
        assert!(Manifest::parse(deep.as_bytes()).is_err());
    }
}
