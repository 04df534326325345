//! Credentials of the program's own, and the proxies of the environment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use opa_core::bundle::BundleWriter;
use opa_core::service::{Credentials, CredentialsError, CredentialsFuture};
use opa_core::{App, Manager, ManagerBuilder, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;
use tests::serve::Serve;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

fn bundle() -> Vec<u8> {
    let data = Value::object([("version".into(), "1".into())]);
    let bundle = BundleWriter::new().data("", &data).unwrap();
    bundle.to_vec().unwrap()
}

async fn server() -> BundleServer {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Bundle(bundle()));
    server
}

fn builder(server: &BundleServer, credentials: &str) -> ManagerBuilder {
    let config = format!(
        "services: {{control: {{url: '{}', headers: {{x-team: red}}, \
           credentials: {credentials}}}}}\n\
         bundles: {{b: {{resource: '{{{{ .bundlename }}}}', \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
        server.url(),
    );
    Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
}

async fn until_failed(app: &App, why: &str) {
    let message = || app.status().bundles.first()?.message.clone();
    let waited = async {
        while message().as_deref() != Some(why) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, waited).await;
    assert!(waited.is_ok(), "never `{why}`: {:?}", message());
}

/// Fails, panics at once, panics later, then works.
#[derive(Default)]
struct Moody(Arc<AtomicUsize>);

impl Credentials for Moody {
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a> {
        let turn = self.0.load(Ordering::Relaxed);
        assert!(turn != 1, "at once");
        Box::pin(async move {
            tokio::task::yield_now().await;
            match turn {
                0 => return Err(CredentialsError::new("the vault is closed")),
                2 => panic!("later"),
                _ => {}
            }
            assert_eq!(request.uri.path(), "/orders");
            let value = HeaderValue::from_static("Vault token");
            request.headers.insert("authorization", value);
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_programs_own_credentials_arrive() {
    let server = server().await;
    let manager = builder(&server, "{plugin: team}")
        .credentials("team", |request: &mut Parts| {
            let team = request.headers["x-team"].clone();
            request.headers.insert("authorization", team);
            Ok(())
        })
        .build()
        .unwrap();
    manager.app("orders").unwrap().ready(LONG).await.unwrap();
    assert_eq!(server.requests()[0].header("authorization"), Some("red"));
}

#[tokio::test]
async fn what_goes_wrong_in_them_is_the_bundles_error_and_nothing_is_sent() {
    let server = server().await;
    let turn = Arc::new(AtomicUsize::new(0));
    let manager = builder(&server, "{plugin: vault}")
        .credentials("vault", Moody(Arc::clone(&turn)))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    until_failed(&app, "credentials: the vault is closed").await;
    turn.store(1, Ordering::Relaxed);
    until_failed(&app, "credentials: a panic ended the attempt").await;
    turn.store(0, Ordering::Relaxed);
    until_failed(&app, "credentials: the vault is closed").await;
    turn.store(2, Ordering::Relaxed);
    until_failed(&app, "credentials: a panic ended the attempt").await;
    assert_eq!(server.request_count(), 0);
    turn.store(3, Ordering::Relaxed);
    app.ready(LONG).await.unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.header("authorization"), Some("Vault token"));
}

#[tokio::test]
async fn a_name_that_nobody_registered_is_refused_when_the_manager_is_built() {
    let server = server().await;
    let error = builder(&server, "{plugin: vault}")
        .credentials("other", |_: &mut Parts| Ok(()))
        .build()
        .err()
        .unwrap();
    let text = "services.control: auth plugin \"vault\" not found";
    assert!(error.to_string().ends_with(text), "{error}");
}

/// The proxy is a server that is asked for whole URLs. `0.0.0.0` is this host for Linux's
/// `connect`, but not for the rule that loopback is never asked through a proxy.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn proxies_of_the_environment_are_asked_but_for_exceptions() {
    let (proxy, direct) = (server().await, server().await);
    proxy.answer("http://control.test/orders", Answer::Bundle(bundle()));
    let any = direct.url().replace("127.0.0.1", "0.0.0.0");
    let config = |url: &str| {
        format!(
            "services: {{control: {{url: '{url}'}}}}\n\
             bundles: {{b: {{resource: '{{{{ .bundlename }}}}'}}}}\n\
             plugins: {{envoy_ext_authz_grpc: {{path: x/allow}}}}\n"
        )
    };
    let proxy_url = proxy.url();
    let no_proxy = [("HTTP_PROXY", &*proxy_url), ("NO_PROXY", "0.0.0.0")];
    let arguments = ["--app", "orders"];
    for url in ["http://control.test", &any, &direct.url()] {
        Serve::start_in(&no_proxy, &config(url), &arguments)
            .await
            .ready()
            .await;
    }
    let paths = |server: &BundleServer| {
        let requests = server.requests();
        let paths = requests.into_iter().map(|request| request.path);
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths(&proxy), ["http://control.test/orders"]);
    assert_eq!(paths(&direct), ["/orders", "/orders"]);

    // Without the exception it goes the other way; loopback never does.
    let whole = format!("{any}/orders");
    proxy.answer(&whole, Answer::Bundle(bundle()));
    let environment = [("HTTP_PROXY", &*proxy_url), ("NO_PROXY", "")];
    for url in [&any, &direct.url()] {
        Serve::start_in(&environment, &config(url), &arguments)
            .await
            .ready()
            .await;
    }
    assert_eq!(paths(&proxy), ["http://control.test/orders", &*whole]);
    assert_eq!(paths(&direct).len(), 3);
}
