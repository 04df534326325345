//! What a broken or hostile registry answers: nothing of it is activated.

use http::Method;
use serde_json::{Value as Json, json};
use tests::oci_registry::{INDEX, MANIFEST, OciRegistry, digest, image, status};

use super::*;

const REPOSITORY: &str = "acme/authz";

/// A registry with version 1, and an app that serves it.
async fn serving() -> (OciRegistry, Manager, App) {
    let registry = OciRegistry::start().await;
    registry.publish(REPOSITORY, "1.0", &bundle("1"));
    let (manager, app) = start(&config(&registry, "x/acme/authz:1.0"));
    app.ready(LONG).await.unwrap();
    (registry, manager, app)
}

fn config(registry: &OciRegistry, resource: &str) -> String {
    format!(
        "services: {{registry: {{url: '{}', type: oci, response_header_timeout_seconds: 1}}}}\n\
         bundles: {{b: {{resource: '{resource}', {POLLING}}}}}",
        registry.url(),
    )
}

/// The fault is told and the last good policy served; a good bundle heals it.
async fn survives(registry: &OciRegistry, app: &App, why: &str, code: Option<u16>) {
    until_failed(app, why, code).await;
    assert_eq!(version(app).await.as_deref(), Some("1"), "{why}");
    registry.gate(|_| None);
    registry.publish(REPOSITORY, "1.0", &bundle("healed"));
    until_version(app, "healed").await;
    until_works(app).await;
}

#[tokio::test]
async fn bytes_that_are_not_the_layers_are_refused() {
    let good = bundle("2");
    let mut longer = good.clone();
    longer.push(0);
    let truncated = good[..good.len() - 1].to_vec();
    let size = good.len();
    let short = |len: usize| format!("it has {len} bytes where the manifest says {size}");
    for (bytes, why) in [
        (bundle("evil"), String::new()),
        (truncated, short(size - 1)),
        (longer, format!("it has more than {size} bytes")),
        (Vec::new(), short(0)),
    ] {
        let (registry, _manager, app) = serving().await;
        registry.publish(REPOSITORY, "1.0", &good);
        registry.blob(REPOSITORY, &good, bytes);
        let why = format!("blob `{}`: {why}", digest(&good));
        survives(&registry, &app, &why, None).await;
    }
}

/// As long as the named one, so that only its digest tells.
#[tokio::test]
async fn bytes_of_the_right_length_are_refused_by_their_digest() {
    let (registry, _manager, app) = serving().await;
    let good = bundle("2");
    let mut evil = good.clone();
    // The time in the header of gzip, which no reader looks at: the archive itself is good.
    evil[4] ^= 1;
    registry.publish(REPOSITORY, "1.0", &good);
    registry.blob(REPOSITORY, &good, evil);
    survives(&registry, &app, "its bytes have another digest", None).await;
}

#[tokio::test]
async fn a_blob_that_hangs_is_given_up() {
    let (registry, _manager, app) = serving().await;
    let good = bundle("2");
    registry.publish(REPOSITORY, "1.0", &good);
    registry.hang_in_blob(REPOSITORY, &good);
    survives(&registry, &app, "the body came slower than", None).await;
}

#[tokio::test]
async fn manifests_have_a_bound_and_must_be_the_named_ones() {
    let large = vec![b' '; 4 * 1024 * 1024 + 1];
    let another = image(&bundle("evil")).to_string().into_bytes();
    let claimed = digest(image(&bundle("2")).to_string().as_bytes());
    for (bytes, why) in [
        (large.clone(), "is larger than 4194304 bytes"),
        (another, "its bytes have another digest"),
    ] {
        let (registry, _manager, app) = serving().await;
        registry.blob(REPOSITORY, &bundle("evil"), bundle("evil"));
        registry.manifest_as(REPOSITORY, "1.0", MANIFEST, &claimed, bytes.clone());
        registry.manifest_as(REPOSITORY, &claimed, MANIFEST, &claimed, bytes);
        survives(&registry, &app, why, None).await;
    }
    // Also where the registry tells no digest.
    let (registry, _manager, app) = serving().await;
    registry.manifest_as(REPOSITORY, "1.0", MANIFEST, "", large);
    survives(&registry, &app, "is larger than 4194304 bytes", None).await;
}

#[tokio::test]
async fn a_reference_with_a_digest_is_never_answered_with_another_image() {
    let registry = OciRegistry::start().await;
    let wanted = digest(image(&bundle("1")).to_string().as_bytes());
    let evil = image(&bundle("evil")).to_string();
    let told = digest(evil.as_bytes());
    registry.blob(REPOSITORY, &bundle("evil"), bundle("evil"));
    // The registry even says that it has another one.
    registry.manifest_as(REPOSITORY, &wanted, MANIFEST, &told, evil.clone());
    registry.manifest_as(REPOSITORY, &told, MANIFEST, &told, evil);
    let (_manager, app) = start(&config(&registry, &format!("x/acme/authz@{wanted}")));
    until_failed(&app, "its bytes have another digest", None).await;
    assert_eq!(version(&app).await, None);
}

#[tokio::test]
async fn a_registry_that_tells_no_digest_is_read_all_the_same() {
    let registry = OciRegistry::start().await;
    let good = bundle("1");
    registry.blob(REPOSITORY, &good, good.clone());
    let manifest = image(&good).to_string();
    registry.manifest_as(REPOSITORY, "1.0", MANIFEST, "", manifest);
    let (_manager, app) = start(&config(&registry, "x/acme/authz:1.0"));
    app.ready(LONG).await.unwrap();
    until("three polls", || async {
        registry.count(&Method::HEAD, "/manifests/1.0") >= 3
    })
    .await;
    assert_eq!(registry.count(&Method::GET, "/blobs/"), 1);
}

fn entry(digest: &str, kind: &str) -> Json {
    json!({"mediaType": kind, "digest": digest, "size": 1})
}

#[tokio::test]
async fn indexes_are_bounded_in_depth_and_breadth() {
    let (registry, _manager, app) = serving().await;
    let image = image(&bundle("deep"));
    registry.blob(REPOSITORY, &bundle("deep"), bundle("deep"));
    let mut digest = registry.manifest(REPOSITORY, None, MANIFEST, &image);
    let mut kind = MANIFEST;
    for depth in 1..=6 {
        let index = json!({"manifests": [entry(&digest, kind)]});
        let tag = (depth == 6).then_some("1.0");
        digest = registry.manifest(REPOSITORY, tag, INDEX, &index);
        kind = INDEX;
    }
    survives(&registry, &app, "is nested more than 4 levels deep", None).await;

    let (registry, _manager, app) = serving().await;
    let nothing = |n: usize| json!({"layers": [{"n": n}]});
    let many: Vec<_> = (0..100)
        .map(|n| registry.manifest(REPOSITORY, None, MANIFEST, &nothing(n)))
        .map(|digest| entry(&digest, MANIFEST))
        .collect();
    registry.manifest(REPOSITORY, Some("1.0"), INDEX, &json!({"manifests": many}));
    survives(&registry, &app, "more than 64 manifests to look at", None).await;
}

/// The first image with a bundle counts, so one that can't be had must not let the next one in.
#[tokio::test]
async fn an_image_of_an_index_that_is_missing_is_an_error() {
    let (registry, _manager, app) = serving().await;
    registry.blob(REPOSITORY, &bundle("2"), bundle("2"));
    let second = registry.manifest(REPOSITORY, None, MANIFEST, &image(&bundle("2")));
    let missing = entry(&digest(b"missing"), MANIFEST);
    let index = json!({"manifests": [missing, entry(&second, MANIFEST)]});
    registry.manifest(REPOSITORY, Some("1.0"), INDEX, &index);
    survives(&registry, &app, "server replied with Not Found", Some(404)).await;
}

#[tokio::test]
async fn statuses_and_silence_are_told() {
    for (code, why) in [
        (
            401,
            "`acme/authz/manifests/1.0`: server replied with Unauthorized",
        ),
        (
            403,
            "`acme/authz/manifests/1.0`: server replied with Forbidden",
        ),
        (429, "server replied with Too Many Requests"),
        (500, "server replied with Internal Server Error"),
        (204, "server replied with No Content"),
    ] {
        let (registry, _manager, app) = serving().await;
        registry.gate(move |_| Some(status(code)));
        survives(&registry, &app, why, Some(code)).await;
    }
    let (registry, _manager, app) = serving().await;
    let good = bundle("2");
    registry.publish(REPOSITORY, "1.0", &good);
    let path = format!("/v2/acme/authz/blobs/{}", digest(&good));
    registry.gate(move |seen| (seen.path == path).then(|| status(503)));
    let why = format!("`acme/authz/blobs/{}`: server replied with", digest(&good));
    survives(&registry, &app, &why, Some(503)).await;
}
