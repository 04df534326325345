//! Where redirects lead, what another server sees of a service's secrets, and when it is.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::request::Parts;
use opa_core::bundle::BundleWriter;
use opa_core::config::EnvPolicy;
use opa_core::engine::Clock;
use opa_core::{App, Manager, ManagerBuilder, Value};
use tests::bundle_server::{Answer, BundleServer, Request};
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

const S3: &str = "{s3_signing: {environment_credentials: {}}}";

fn bundle() -> Answer {
    let data = Value::object([("version".into(), "1".into())]);
    let bundle = BundleWriter::new().data("", &data).unwrap();
    Answer::Bundle(bundle.to_vec().unwrap())
}

fn redirect(status: u16, location: &str) -> Answer {
    let header = format!("location: {location}\r\n");
    Answer::Status(status, String::leak(header))
}

fn builder(service: &BundleServer, credentials: &str) -> ManagerBuilder {
    let config = format!(
        "services: {{aws: {{url: '{}/bucket', credentials: {credentials}, \
           headers: {{authorization: configured, cookie: configured, x-team: red}}}}}}\n\
         bundles: {{b: {{resource: k}}}}",
        service.url(),
    );
    let env = EnvPolicy::default().with_lookup(|name| match name {
        "AWS_ACCESS_KEY_ID" => Some("AKID".into()),
        "AWS_SECRET_ACCESS_KEY" => Some("s3cr3t".into()),
        "AWS_REGION" => Some("eu-central-1".into()),
        "AWS_SESSION_TOKEN" => Some("t0k3n".into()),
        other => panic!("`{other}` is looked up"),
    });
    Manager::builder()
        .config_yaml(&config)
        .env(env)
        .credentials("own", |request: &mut Parts| {
            request
                .headers
                .insert("x-own", HeaderValue::from_static("s3cr3t"));
            Ok(())
        })
        .engine(Scripted::data())
}

async fn ready(manager: &Manager) -> App {
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    app
}

async fn failure(manager: &Manager) -> String {
    let app = manager.app("orders").unwrap();
    let message = async {
        loop {
            if let Some(message) = app.status().bundles.first().and_then(|b| b.message.clone()) {
                return message.to_string();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, message).await.unwrap()
}

/// The names of all headers, but those of the client itself.
fn headers(request: &Request) -> Vec<&str> {
    let names = request.headers.iter().map(|(name, _)| &**name);
    let mut names: Vec<_> = names
        .filter(|name| *name != "host" && *name != "accept")
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn another_server_sees_no_credentials() {
    for (credentials, own) in [
        (
            S3,
            &[
                "authorization",
                "x-amz-content-sha256",
                "x-amz-date",
                "x-amz-security-token",
            ][..],
        ),
        ("{plugin: own}", &["x-own"]),
        ("{bearer: {token: s3cr3t}}", &["authorization"]),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let (service, other) = (BundleServer::start().await, BundleServer::start().await);
            let there = format!("{}/elsewhere?signed=1", other.url());
            service.answer("/bucket/k", redirect(status, &there));
            other.answer("/elsewhere?signed=1", bundle());
            ready(&builder(&service, credentials).build().unwrap()).await;

            let first = &service.requests()[0];
            assert!(
                own.iter().all(|name| first.header(name).is_some()),
                "{first:?}"
            );
            let second = &other.requests()[0];
            assert_eq!(
                headers(second),
                ["accept-encoding", "prefer", "user-agent", "x-team"],
                "{credentials}"
            );
        }
    }
}

#[tokio::test]
async fn the_service_itself_sees_a_signature_of_what_is_asked_then() {
    let service = BundleServer::start().await;
    service.answer("/bucket/k", redirect(307, "there"));
    service.answer("/bucket/there", bundle());
    ready(&builder(&service, S3).build().unwrap()).await;
    let requests = service.requests();
    assert_eq!(requests[1].path, "/bucket/there");
    let signature = |request: &Request| {
        let value = request.header("authorization").unwrap().to_owned();
        assert!(
            value.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"),
            "{value}"
        );
        value
    };
    assert_ne!(signature(&requests[0]), signature(&requests[1]));
    assert_eq!(requests[1].header("x-amz-security-token"), Some("t0k3n"));
}

#[derive(Debug)]
struct In2013;

impl Clock for In2013 {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn a_signature_is_of_the_managers_time() {
    let service = BundleServer::start().await;
    service.answer("/bucket/k", bundle());
    let manager = builder(&service, S3).clock(In2013).build().unwrap();
    ready(&manager).await;
    let request = &service.requests()[0];
    assert_eq!(request.header("x-amz-date"), Some("20130524T000000Z"));
}

/// Otherwise another server could choose what the service's credentials are used for.
#[tokio::test]
async fn who_is_sent_back_by_another_server_has_no_credentials() {
    let (service, other) = (BundleServer::start().await, BundleServer::start().await);
    service.answer("/bucket/k", redirect(302, &other.url()));
    other.answer(
        "/",
        redirect(302, &format!("{}/bucket/secret", service.url())),
    );
    service.answer("/bucket/secret", bundle());
    ready(&builder(&service, S3).build().unwrap()).await;
    let requests = service.requests();
    assert_eq!(requests[1].path, "/bucket/secret");
    assert_eq!(
        headers(&requests[1]),
        ["accept-encoding", "prefer", "user-agent", "x-team"]
    );
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_the_bundles_error() {
    for (location, wanted) in [
        ("/bucket/k", "stopped after 10 redirects"),
        (
            "ftp://127.0.0.1/k",
            "the server redirects to no URL that can be asked",
        ),
        (
            "http://",
            "the server redirects to no URL that can be asked",
        ),
    ] {
        let service = BundleServer::start().await;
        service.answer("/bucket/k", redirect(302, location));
        let manager = builder(&service, S3).build().unwrap();
        assert_eq!(failure(&manager).await, wanted);
    }
    // Without a `Location` it is an answer like others.
    let service = BundleServer::start().await;
    service.answer("/bucket/k", Answer::Status(302, ""));
    let manager = builder(&service, S3).build().unwrap();
    assert_eq!(failure(&manager).await, "server replied with Found");
}
