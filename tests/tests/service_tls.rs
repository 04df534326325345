//! Services over TLS, from the real nginx: which servers are trusted, which clients are let in,
//! and certificates that are replaced while they are in use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::{App, Manager, Value};
use tempfile::TempDir;
use tests::certificates::Authority;
use tests::peers::{self, RunningNginx};
use tests::scripted::Scripted;
use tests::serve::Serve;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

/// nginx with a certificate by `ca.pem`, which lets clients with one by the same authority in.
struct Control {
    folder: TempDir,
    authority: Authority,
    nginx: RunningNginx,
}

impl Control {
    /// `None` when there is no nginx.
    async fn start(directives: &str) -> Option<Control> {
        let nginx = peers::nginx()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (authority, tls) = Authority::for_nginx(path);
        fs::write(path.join("wrong.pem"), Authority::new("another").pem()).unwrap();
        fs::create_dir_all(path.join("root")).unwrap();
        let directives = format!("{tls}\n    {directives}");
        let nginx = nginx.serve_tls(&path.join("root"), &directives).await;
        let control = Control {
            folder,
            authority,
            nginx,
        };
        control.publish("1");
        Some(control)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn publish(&self, version: &str) {
        let data = Value::object([("version".into(), version.into())]);
        let bundle = BundleWriter::new().data("", &data).unwrap();
        let part = self.path().join("part");
        fs::write(&part, bundle.to_vec().unwrap()).unwrap();
        peers::renew(&part);
        fs::rename(part, self.path().join("root/app")).unwrap();
    }

    /// These options of the service; `$` is the folder.
    fn config(&self, options: &str) -> String {
        let options = options.replace('$', &self.path().display().to_string());
        format!(
            "services: {{control: {{url: '{}', {options}}}}}\n\
             bundles: {{b: {{resource: app, \
               polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}\n",
            self.nginx.secure_url(),
        )
    }

    fn app(&self, options: &str) -> (Manager, App) {
        let manager = Manager::builder()
            .config_yaml(&self.config(options))
            .engine(Scripted::data())
            .build()
            .unwrap();
        let app = manager.app("app").unwrap();
        (manager, app)
    }

    async fn serves(&self, options: &str) {
        let (_manager, app) = self.app(options);
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await.as_deref(), Some("1"), "{options}");
    }

    async fn refuses(&self, options: &str, why: &str, http_code: Option<u16>) {
        let (_manager, app) = self.app(options);
        until_failed(&app, why, http_code).await;
        assert_eq!(version(&app).await, None, "{options}");
    }
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until_version(app: &App, wanted: &str) {
    let reached = async {
        while version(app).await.as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(LONG, reached).await;
    assert!(reached.is_ok(), "never {wanted}: {:?}", app.status());
}

async fn until_failed(app: &App, why: &str, http_code: Option<u16>) {
    let failed = || {
        let status = app.status();
        let bundle = status.bundles.first()?;
        let message = bundle.message.as_ref()?;
        (message.contains(why) && bundle.code == Some("bundle_error"))
            .then_some(bundle.http_code == http_code)
    };
    let waited = async {
        while failed() != Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LONG / 2, waited).await;
    assert!(waited.is_ok(), "never `{why}`: {:?}", app.status());
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_or_not_at_all() {
    let Some(control) = Control::start("").await else {
        return;
    };
    control.serves("tls: {ca_cert: $/ca.pem}").await;
    control
        .serves("tls: {ca_cert: $/ca.pem, system_ca_required: true}")
        .await;
    control.serves("allow_insecure_tls: true").await;
    control
        .serves("allow_insecure_tls: true, tls: {ca_cert: $/wrong.pem}")
        .await;
    for options in [
        "tls: {ca_cert: $/wrong.pem}",
        "tls: {ca_cert: $/wrong.pem, system_ca_required: true}",
        "tls: {system_ca_required: true}",
        "allow_insecure_tls: false",
    ] {
        let why = "invalid peer certificate: ";
        control.refuses(options, why, None).await;
    }
}

/// Where the system's authorities are can be chosen on Linux, for a process.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_systems_authorities_count_by_default_and_when_they_are_required() {
    let Some(control) = Control::start("").await else {
        return;
    };
    let authorities = control.path().join("ca.pem").display().to_string();
    let system = [("SSL_CERT_FILE", &*authorities)];
    for options in [
        "allow_insecure_tls: false",
        "tls: {ca_cert: $/wrong.pem, system_ca_required: true}",
    ] {
        let plugin = "plugins: {envoy_ext_authz_grpc: {path: x/allow}}";
        let config = format!("{}{plugin}\n", control.config(options));
        let mut serve = Serve::start_in(&system, &config, &["--app", "orders"]).await;
        serve.ready().await;
    }
}

#[tokio::test]
async fn only_the_right_client_certificate_is_let_in() {
    let Some(control) = Control::start("ssl_verify_client on;").await else {
        return;
    };
    let folder = control.path();
    control.authority.issue_into(folder, "client", "app");
    Authority::new("another").issue_into(folder, "other", "app");
    let with = |file: &str| {
        let pair = format!("cert: $/{file}.pem, private_key: $/{file}.key");
        format!("tls: {{ca_cert: $/ca.pem}}, credentials: {{client_tls: {{{pair}}}}}")
    };
    control.serves(&with("client")).await;
    // As OPA does it, with the deprecated place of the authority.
    let deprecated = "credentials: {client_tls: {cert: $/client.pem, private_key: $/client.key, \
                      ca_cert: $/ca.pem}}";
    control.serves(deprecated).await;
    let none = "tls: {ca_cert: $/ca.pem}";
    let bad_request = "server replied with Bad Request";
    control.refuses(none, bad_request, Some(400)).await;
    control
        .refuses(&with("other"), bad_request, Some(400))
        .await;
    // Certificates that can't be used are the bundle's error, not the configuration's: they come.
    fs::copy(folder.join("client.pem"), folder.join("mixed.pem")).unwrap();
    fs::copy(folder.join("other.key"), folder.join("mixed.key")).unwrap();
    let unusable = "failed to parse public/private key pair: ";
    control.refuses(&with("mixed"), unusable, None).await;
    let (_manager, app) = control.app(&with("later"));
    until_failed(&app, "failed to read client certificate file: ", None).await;
    control.authority.issue_into(folder, "later", "app");
    until_version(&app, "1").await;
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_and_a_bad_one_is_not_taken() {
    let only_second = "ssl_verify_client on;\n    \
                       if ($ssl_client_s_dn !~ \"CN=second\") { return 403; }";
    let Some(control) = Control::start(only_second).await else {
        return;
    };
    let folder = control.path();
    control.authority.issue_into(folder, "client", "first");
    let (_manager, app) = control.app(
        "tls: {ca_cert: $/ca.pem}, \
         credentials: {client_tls: {cert: $/client.pem, private_key: $/client.key}}",
    );
    until_failed(&app, "server replied with Forbidden", Some(403)).await;
    // The connection is kept alive, and the next request shows the new certificate all the same.
    control.authority.issue_into(folder, "client", "second");
    until_version(&app, "1").await;
    assert_eq!(app.status().bundles[0].message, None);

    for bad in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(folder.join("client.pem"), bad).unwrap();
        let version = format!("bad {}", bad.len());
        control.publish(&version);
        until_version(&app, &version).await;
    }
    fs::remove_file(folder.join("client.key")).unwrap();
    control.publish("gone");
    until_version(&app, "gone").await;

    control.authority.issue_into(folder, "client", "first");
    until_failed(&app, "server replied with Forbidden", Some(403)).await;
    assert_eq!(version(&app).await.as_deref(), Some("gone"));
}
