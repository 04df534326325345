//! Bundles from OCI registries: the real one with `oras` and OPA, and what real ones don't do on
//! request.

#[path = "oci/faults.rs"]
mod faults;
#[path = "oci/secrets.rs"]
mod secrets;

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use opa_core::bundle::BundleWriter;
use opa_core::{App, Manager, Value};
use serde_json::json;
use tempfile::TempDir;
use tests::certificates::Authority;
use tests::oci_registry::LAYER;
use tests::peers::{self, Oras, PASSWORD, RunningRegistry, USER};
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

const POLLING: &str = "polling: {min_delay_seconds: 1, max_delay_seconds: 1}";

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new().revision(version).data("", &data);
    bundle.unwrap().to_vec().unwrap()
}

/// A manager of one app, which answers the data of its bundle.
fn start(configuration: &str) -> (Manager, App) {
    let manager = Manager::builder()
        .config_yaml(configuration)
        .engine(Scripted::data())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    (manager, app)
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

async fn until_version(app: &App, wanted: &str) {
    until(wanted, || async {
        version(app).await.as_deref() == Some(wanted)
    })
    .await;
}

/// Waits until the bundle has failed with a message that contains `why`, and this HTTP status.
async fn until_failed(app: &App, why: &str, code: Option<u16>) {
    let failed = async {
        loop {
            let status = app.status();
            let bundle = status.bundles.first();
            let message = bundle.and_then(|bundle| bundle.message.clone());
            if message.is_some_and(|message| message.contains(why)) {
                assert_eq!(bundle.unwrap().http_code, code, "{why}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(LONG, failed).await.is_err() {
        panic!("expected `{why}`, found {:?}", app.status().bundles);
    }
}

async fn until_works(app: &App) {
    until("no error", || async {
        app.status().bundles[0].message.is_none()
    })
    .await;
}

/// The real registry, and what fills it.
struct Control {
    folder: TempDir,
    registry: RunningRegistry,
    oras: Oras,
}

impl Control {
    /// `None` when a peer is missing.
    async fn start() -> Option<Control> {
        let (registry, oras) = (peers::docker_registry()?, peers::oras()?);
        Some(Control {
            folder: tempfile::tempdir().unwrap(),
            registry: registry.serve().await,
            oras,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A bundle whose data is the version.
    fn publish(&self, image: &str, version: &str) {
        fs::write(self.path().join("bundle.tar.gz"), bundle(version)).unwrap();
        self.push(image);
    }

    /// `bundle.tar.gz` of the folder.
    fn push(&self, image: &str) {
        self.oras
            .push(&self.registry, image, self.path(), "bundle.tar.gz", LAYER);
    }

    fn config(&self, url: &str, resource: &str, service: &str) -> String {
        let directory = self.path().display();
        format!(
            "services: {{registry: {{url: '{url}', type: oci, {service}}}}}\n\
             persistence_directory: '{directory}/persisted'\n\
             bundles: {{b: {{resource: '{resource}', {POLLING}}}}}\n"
        )
    }

    /// An app with this image of the registry.
    fn app(&self, image: &str, bearer: &str) -> (Manager, App) {
        let resource = format!("{}/{image}", self.registry.address());
        let service = format!("credentials: {{bearer: {{scheme: Basic, {bearer}}}}}");
        start(&self.config(&self.registry.url(), &resource, &service))
    }

    fn count(&self, access: &str) -> usize {
        let accesses = self.registry.accesses("Open-Policy-Agent/");
        accesses
            .iter()
            .filter(|one| one.starts_with(access))
            .count()
    }
}

fn token() -> String {
    format!("token: '{USER}:{PASSWORD}'")
}

#[tokio::test]
async fn an_unchanged_tag_costs_one_question_and_a_moved_one_is_followed() {
    let Some(control) = Control::start().await else {
        return;
    };
    control.publish("acme/authz:1.0", "1");
    let (_manager, app) = control.app("acme/authz:1.0", &token());
    app.ready(LONG).await.unwrap();
    let questions = || control.count("HEAD /v2/acme/authz/manifests/1.0");
    until("three polls", || async { questions() >= 3 }).await;
    let all = || {
        (
            control.count("GET /v2/acme/authz/manifests/"),
            control.count("GET /v2/acme/authz/blobs/"),
        )
    };
    assert_eq!(all(), (1, 1), "{:?}", control.registry.accesses(""));
    control.publish("acme/authz:1.0", "2");
    until_version(&app, "2").await;
    assert_eq!(all(), (2, 2), "{:?}", control.registry.accesses(""));
    assert_eq!(
        app.status().bundles[0].active_revision.as_deref(),
        Some("2")
    );

    // Another manifest with the same layer is no other bundle.
    control.oras.index(
        &control.registry,
        "acme/authz:1.0",
        control.path(),
        &["1.0"],
    );
    until("the index", || async { all().0 >= 4 }).await;
    assert_eq!(all(), (4, 2), "{:?}", control.registry.accesses(""));
}

#[tokio::test]
async fn with_a_wrong_password_the_last_good_policy_keeps_serving() {
    let Some(control) = Control::start().await else {
        return;
    };
    let file = control.path().join("token");
    let write = |password: &str| fs::write(&file, format!("{USER}:{password}\n")).unwrap();
    write(PASSWORD);
    control.publish("acme/authz:1.0", "1");
    let bearer = format!("token_path: '{}'", file.display());
    let (_manager, app) = control.app("acme/authz:1.0", &bearer);
    app.ready(LONG).await.unwrap();
    write("wr0ng");
    let why = "`acme/authz/manifests/1.0`: server replied with Unauthorized";
    until_failed(&app, why, Some(401)).await;
    control.publish("acme/authz:1.0", "2");
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    write(PASSWORD);
    until_version(&app, "2").await;
    until_works(&app).await;
    assert_eq!(app.status().bundles[0].http_code, None);

    // One that never worked never opens.
    let (_manager, app) = control.app("acme/authz:1.0", "token: 'opa:wr0ng'");
    until_failed(&app, why, Some(401)).await;
    assert_eq!(version(&app).await, None);
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_named() {
    let Some(control) = Control::start().await else {
        return;
    };
    control.publish("acme/authz:1.0", "1");
    let (_manager, app) = control.app("acme/authz:2.0", &token());
    let why = "`acme/authz/manifests/2.0`: server replied with Not Found";
    until_failed(&app, why, Some(404)).await;
    control.oras.push(
        &control.registry,
        "acme/authz:other",
        control.path(),
        "bundle.tar.gz",
        "application/vnd.acme.other",
    );
    let (_manager, app) = control.app("acme/authz:other", &token());
    let why = "no tarball descriptor found in the layers: expected one of type \
               `application/vnd.oci.image.layer.v1.tar+gzip`";
    until_failed(&app, why, None).await;
}

#[tokio::test]
async fn image_indexes_and_digests_are_followed_as_in_opa() {
    let (Some(opa), Some(control)) = (peers::opa(), Control::start().await) else {
        return;
    };
    control.publish("acme/authz:1.0", "1");
    control.publish("acme/authz:2.0", "2");
    let (registry, path) = (&control.registry, control.path());
    // The first one with the layer counts, not the first one.
    let no_bundle = "application/vnd.acme.other";
    control.oras.push(
        registry,
        "acme/authz:none",
        path,
        "bundle.tar.gz",
        no_bundle,
    );
    let index = "acme/authz:index";
    control
        .oras
        .index(registry, index, path, &["none", "2.0", "1.0"]);
    control
        .oras
        .index(registry, "acme/authz:nested", path, &["index"]);
    let old = control.oras.digest(registry, "acme/authz:1.0", path);
    control.publish("acme/authz:1.0", "3");
    let digest = format!("acme/authz@{old}");
    let tagged = format!("acme/authz:2.0@{old}");
    for (image, wanted) in [
        ("acme/authz:1.0", "3"),
        (index, "2"),
        ("acme/authz:nested", "2"),
        (&digest, "1"),
        (&tagged, "1"),
    ] {
        let resource = format!("other.test/{image}");
        let service = format!("credentials: {{bearer: {{scheme: Basic, {}}}}}", token());
        let configuration = control.config(&registry.url(), &resource, &service);
        let (_manager, app) = start(&configuration);
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await.as_deref(), Some(wanted), "{image}");
        let theirs = opa.serve(&configuration).await;
        let answer = theirs.decide("version", &json!({})).await;
        assert_eq!(answer, Some(json!(wanted)), "{image}");
    }
}

/// The layout is OPA's, without its store of blobs: what is kept is what was activated.
#[cfg(unix)]
#[tokio::test]
async fn a_restart_without_the_registry_serves_what_was_kept() {
    let Some(control) = Control::start().await else {
        return;
    };
    control.publish("acme/authz:1.0", "1");
    let resource = format!("{}/acme/authz:1.0", control.registry.address());
    let service = format!("credentials: {{bearer: {{scheme: Basic, {}}}}}", token());
    let configuration = control.config(&control.registry.url(), &resource, &service);
    let configuration = configuration.replace(POLLING, &format!("persist: true, {POLLING}"));
    let (manager, app) = start(&configuration);
    app.ready(LONG).await.unwrap();
    let kept = control
        .path()
        .join("persisted/shop/bundles/b/bundle.tar.gz");
    until("the bundle on disk", || async { kept.exists() }).await;
    assert_eq!(fs::read(&kept).unwrap(), bundle("1"));
    assert!(!control.path().join("persisted/shop/oci").exists());
    drop((manager, app));

    // With the registry, the kept bundle is known to be the current one by its etag.
    let (manager, app) = start(&configuration);
    app.ready(LONG).await.unwrap();
    until("an answer", || async {
        app.status().bundles[0].last_successful_request.is_some()
    })
    .await;
    assert_eq!(control.count("GET /v2/acme/authz/blobs/"), 1);
    drop((manager, app));

    let Control {
        folder, registry, ..
    } = control;
    drop(registry);
    let (_manager, app) = start(&configuration);
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    until_failed(&app, "`acme/authz/manifests/1.0`: ", None).await;
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    drop(folder);
}

/// TLS and client certificates are those of the service, as for any other.
#[tokio::test]
async fn a_registry_behind_tls_sees_the_services_certificate() {
    let (Some(nginx), Some(control)) = (peers::nginx(), Control::start().await) else {
        return;
    };
    let path = control.path();
    let (authority, directives) = Authority::for_nginx(path);
    authority.issue_into(path, "client", "opa");
    let at = path.display();
    let basic = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
    };
    let directives = format!(
        "{directives} ssl_verify_client on;\n    \
         location /v2/ {{ proxy_pass {}; proxy_set_header Authorization 'Basic {basic}'; }}",
        control.registry.url(),
    );
    let nginx = nginx.serve_tls(path, &directives).await;
    control.publish("acme/authz:1.0", "1");
    let tls = format!("tls: {{ca_cert: '{at}/ca.pem'}}");
    let certificate = format!(
        "credentials: {{client_tls: {{cert: '{at}/client.pem', private_key: '{at}/client.key'}}}}"
    );
    let config = |service: &str| control.config(&nginx.secure_url(), "x/acme/authz:1.0", service);
    let (_manager, app) = start(&config(&format!("{tls}, {certificate}")));
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    let (_manager, app) = start(&config(&tls));
    until_failed(&app, "server replied with Bad Request", Some(400)).await;
    let (_manager, app) = start(&config(&certificate));
    until_failed(&app, "certificate", None).await;
}
