//! Bundles from real servers of S3's protocol, each with its own check of signatures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::config::EnvPolicy;
use opa_core::plugin::BundleStatus;
use opa_core::{App, Manager, Value};
use serde_json::json;
use tests::bundle_server::{Answer, BundleServer, Request};
use tests::http_client::get;
use tests::peers::{self, RunningOpa, RunningS3, versitygw_accesses};
use tests::scripted::Scripted;
use tests::serve::Serve;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

const SIGNED: &str = "{s3_signing: {environment_credentials: {}}}";

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new().revision(version).data("", &data);
    bundle.unwrap().to_vec().unwrap()
}

/// The variables of a process, which may change.
#[derive(Clone)]
struct Environment(Arc<Mutex<HashMap<&'static str, String>>>);

impl Environment {
    fn of(server: &RunningS3) -> Self {
        let variables = server.environment();
        let variables = variables.map(|(name, value)| (name, value.to_owned()));
        Self(Arc::new(Mutex::new(variables.into())))
    }

    /// Answers the old value.
    fn set(&self, name: &'static str, value: &str) -> String {
        let old = self.0.lock().unwrap().insert(name, value.to_owned());
        old.unwrap()
    }

    fn policy(&self) -> EnvPolicy {
        let variables = Arc::clone(&self.0);
        EnvPolicy::default()
            .with_lookup(move |name| variables.lock().unwrap().get(name).map(Into::into))
    }
}

fn manager(server: &RunningS3, env: &Environment, credentials: &str, resource: &str) -> Manager {
    // JSON, so that resources need no quoting of their own.
    let bundles = json!({"b": {
        "resource": resource,
        "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1},
    }});
    let config = format!(
        "services: {{s3: {{url: '{}', credentials: {credentials}}}}}\nbundles: {bundles}",
        server.url(),
    );
    Manager::builder()
        .config_yaml(&config)
        .env(env.policy())
        .engine(Scripted::data())
        .build()
        .unwrap()
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until_version(app: &App, wanted: &str) {
    let waited = async {
        while version(app).await.as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, waited).await;
    assert!(waited.is_ok(), "never version {wanted}: {:?}", app.status());
}

async fn until_status(app: &App, what: &str, holds: impl Fn(&BundleStatus) -> bool) {
    let waited = async {
        while !app.status().bundles.first().is_some_and(&holds) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, waited).await;
    assert!(waited.is_ok(), "never {what}: {:?}", app.status());
}

async fn until_refused(app: &App, status: u16, wanted: &str) {
    let refused = |bundle: &BundleStatus| {
        let told = bundle.message.as_deref();
        let text = told.is_some_and(|message| message.starts_with("server replied with "));
        bundle.http_code == Some(status) && text
    };
    until_status(app, &format!("refused with {status}"), refused).await;
    assert_eq!(version(app).await.as_deref(), Some(wanted), "{status}");
}

async fn until_good(app: &App) {
    until_status(app, "good again", |bundle| bundle.message.is_none()).await;
}

/// All that may happen to a bundle, and what keeps serving meanwhile.
async fn lives_through_everything(server: &RunningS3) {
    let env = Environment::of(server);
    server.put("orders/k.tar.gz", bundle("1")).await;
    let manager = manager(server, &env, SIGNED, "orders/k.tar.gz");
    let app = manager.app("orders").unwrap();
    until_version(&app, "1").await;
    server.put("orders/k.tar.gz", bundle("2")).await;
    until_version(&app, "2").await;

    for (variable, wrong) in [
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
        ("AWS_ACCESS_KEY_ID", "AKIDUNKNOWN"),
    ] {
        let right = env.set(variable, wrong);
        until_refused(&app, 403, "2").await;
        env.set(variable, &right);
        until_good(&app).await;
    }
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        let right = env.set(variable, "");
        let wanted = format!("credentials: no {variable} set in environment");
        let told = |bundle: &BundleStatus| bundle.message.as_deref() == Some(&wanted);
        until_status(&app, &wanted, told).await;
        assert_eq!(version(&app).await.as_deref(), Some("2"));
        env.set(variable, &right);
        until_good(&app).await;
    }
    server.delete("orders/k.tar.gz").await;
    until_refused(&app, 404, "2").await;
    server.put("orders/k.tar.gz", bundle("3")).await;
    until_version(&app, "3").await;
}

async fn anonymous_requests_are_refused(server: &RunningS3) {
    server.put("orders/k.tar.gz", bundle("1")).await;
    let env = Environment::of(server);
    let manager = manager(server, &env, "{}", "orders/k.tar.gz");
    let app = manager.app("orders").unwrap();
    let refused = |bundle: &BundleStatus| bundle.http_code == Some(403);
    until_status(&app, "refused", refused).await;
    assert_eq!(version(&app).await, None);
}

async fn keys_may_have_any_characters(server: &RunningS3) {
    for (resource, encoded) in [
        ("with space/k+1.tar.gz", "with%20space/k%2B1.tar.gz"),
        ("ü/日本.tar.gz", "%C3%BC/%E6%97%A5%E6%9C%AC.tar.gz"),
        (
            "100%25/(a)~'!$&,;=:@*.tar.gz",
            "100%25/%28a%29~%27%21%24%26%2C%3B%3D%3A%40%2A.tar.gz",
        ),
        ("back\\slash.tar.gz", "back%5Cslash.tar.gz"),
        ("percent%2541.tar.gz", "percent%2541.tar.gz"),
        (
            "[a]{b}|c^d`\"<>.tar.gz",
            "%5Ba%5D%7Bb%7D%7Cc%5Ed%60%22%3C%3E.tar.gz",
        ),
    ] {
        server.put(encoded, bundle(encoded)).await;
        let manager = manager(server, &Environment::of(server), SIGNED, resource);
        until_version(&manager.app("orders").unwrap(), encoded).await;
    }
}

#[tokio::test]
async fn versitygw_verifies() {
    let Some(gateway) = peers::versitygw() else {
        return;
    };
    let server = gateway.start().await;
    lives_through_everything(&server).await;
    anonymous_requests_are_refused(&server).await;
    keys_may_have_any_characters(&server).await;
}

#[tokio::test]
async fn seaweedfs_verifies() {
    let Some(weed) = peers::seaweedfs() else {
        return;
    };
    let server = weed.start().await;
    lives_through_everything(&server).await;
    anonymous_requests_are_refused(&server).await;
    keys_may_have_any_characters(&server).await;
}

#[tokio::test]
async fn moto_verifies() {
    let Some(moto) = peers::moto() else { return };
    let server = moto.start().await;
    lives_through_everything(&server).await;
    anonymous_requests_are_refused(&server).await;
    keys_may_have_any_characters(&server).await;
}

#[tokio::test]
async fn what_is_unchanged_is_not_sent_again() {
    let Some(gateway) = peers::versitygw() else {
        return;
    };
    let mut server = gateway.start().await;
    server.put("k.tar.gz", bundle("1")).await;
    let env = Environment::of(&server);
    let manager = manager(&server, &env, SIGNED, "k.tar.gz");
    let app = manager.app("orders").unwrap();
    until_version(&app, "1").await;
    let accesses = async {
        loop {
            let accesses = versitygw_accesses(&mut server, "/bundles/k.tar.gz");
            if accesses.len() > 2 {
                return accesses;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let accesses = tokio::time::timeout(LONG, accesses).await.unwrap();
    assert_eq!(accesses[..3], [200, 304, 304]);
    assert_eq!(app.status().bundles[0].message, None);
}

/// One file for both.
fn file(url: &str) -> String {
    format!(
        "services:\n  s3:\n    url: {url}\n    headers: {{x-team: red}}\n    credentials:\n      \
           s3_signing:\n        environment_credentials: {{}}\n\
         bundles:\n  orders:\n    service: s3\n    resource: orders/k.tar.gz\n    \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}\n"
    )
}

fn policy(version: &str) -> Vec<u8> {
    let policy = format!(
        "package envoy.authz\n\nallow := {{\"allowed\": true, \"response_headers_to_add\": \
         {{\"x-version\": \"{version}\"}}}}\n"
    );
    let bundle = BundleWriter::new().module("policy.rego", &policy);
    bundle.unwrap().to_vec().unwrap()
}

async fn until_told(serve: &mut Serve, opa: &mut RunningOpa, ours: &str, opas: &str) {
    let admin = serve.admin();
    let probe = async || {
        let response = get(admin, "/-/apps").await.ok()?;
        let text = String::from_utf8_lossy(response.body()).into_owned();
        text.contains(ours).then_some(())
    };
    serve.process().until(ours, probe).await.unwrap();
    let log = opa.process().stderr_file();
    let probe = async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains(opas).then_some(())
    };
    opa.process().until(opas, probe).await.unwrap();
}

#[tokio::test]
async fn opa_tells_the_same_of_wrong_credentials() {
    let (Some(gateway), Some(opa)) = (peers::versitygw(), peers::opa()) else {
        return;
    };
    let server = gateway.start().await;
    let file = file(&server.url());
    let right = server.environment();

    let with = |name: &'static str, value: &'static str| {
        right.map(|(other, old)| (other, if other == name { value } else { old }))
    };
    for (environment, ours, opas) in [
        (
            with("AWS_SECRET_ACCESS_KEY", "wrong"),
            "\"http_code\":403,\"message\":\"server replied with Forbidden\"",
            "server replied with Forbidden",
        ),
        (
            with("AWS_ACCESS_KEY_ID", "AKIDUNKNOWN"),
            "\"http_code\":403,\"message\":\"server replied with Forbidden\"",
            "server replied with Forbidden",
        ),
        (
            with("AWS_REGION", ""),
            "credentials: no AWS_REGION set in environment",
            "no AWS_REGION set in environment",
        ),
    ] {
        let mut running = opa.serve_in(&environment, &file, "/health").await;
        let mut serve = Serve::start_in(&environment, &file, &[]).await;
        until_told(&mut serve, &mut running, ours, opas).await;
    }
}

/// What a signature says besides itself, and the headers that it stands for.
fn signed(request: &Request) -> (String, Vec<&str>, Vec<Option<&str>>) {
    let authorization = request.header("authorization").unwrap();
    // OPA writes no space after the commas; both are in use.
    let authorization = authorization.replace(", ", ",");
    let (said, signature) = authorization.rsplit_once(",Signature=").unwrap();
    assert_eq!(signature.len(), 64);
    let (_, names) = said.split_once("SignedHeaders=").unwrap();
    let values = names.split(';');
    // The time and the port differ, and we ask for no deltas.
    let values = values.filter(|name| !["host", "prefer", "x-amz-date"].contains(name));
    let values = values.map(|name| request.header(name)).collect();
    let amz = request.headers.iter().map(|(name, _)| &**name);
    let mut amz: Vec<_> = amz.filter(|name| name.starts_with("x-")).collect();
    amz.sort_unstable();
    let day = &request.header("x-amz-date").unwrap()[..8];
    (said.replace(day, "day"), amz, values)
}

#[tokio::test]
async fn a_signature_is_of_what_opas_is() {
    let Some(opa) = peers::opa() else { return };
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_SECURITY_TOKEN", "t0k3n"),
    ];
    let server = BundleServer::start().await;
    server.answer("/base/orders/k.tar.gz", Answer::Bundle(policy("1")));
    let file = file(&format!("{}/base", server.url()));
    let two = async |before: usize| {
        let waited = async {
            while server.requests().len() < before + 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, waited).await.unwrap();
        server.requests()[before..before + 2].to_vec()
    };
    let running = opa.serve_in(&environment, &file, "/health?bundles").await;
    let opas = two(0).await;
    drop(running);
    let before = server.requests().len();
    let serve = Serve::start_in(&environment, &file, &[]).await;
    let ours = two(before).await;
    drop(serve);
    for (ours, opas) in ours.iter().zip(&opas) {
        assert_eq!(ours.path, opas.path);
        assert_eq!(signed(ours), signed(opas));
    }
    assert!(ours[1].header("if-none-match").is_some());
    let (said, ..) = signed(&ours[1]);
    let headers = "host;if-none-match;prefer;x-amz-content-sha256;x-amz-date;x-amz-security-token;\
        x-team";
    assert!(said.ends_with(&format!(
        "/eu-central-1/s3/aws4_request,SignedHeaders={headers}"
    )));
}
