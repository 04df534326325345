//! Hosts that can't be found or reached.
//!
//! A name that resolves at one time and not at another can't be had on loopback without the
//! system's own files. So it is shown in parts: a name that never resolves, to an app that has
//! nothing and to one that has its last good bundle from disk, and a host that is found while its
//! port is closed, and that answers later.

use std::net::TcpListener;
use std::path::Path;

use opa_core::plugin::State;
use opa_core::{App, FailureClass, Manager};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;

use super::world::{
    LONG, Watch, build, builder, bundle, measure, said, status, until, until_failed, until_version,
};

/// Reserved to never resolve (RFC 6761, 6.4).
const HOST: &str = "policies.invalid";

fn manager(url: &str, directory: &Path) -> Manager {
    let config = format!(
        "services: {{control: {{url: '{url}', credentials: {{bearer: {{token: s3cret}}}}}}}}\n\
         persistence_directory: '{}'\n\
         bundles: {{b: {{resource: 'b?token=s3cret', persist: true, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
        directory.display()
    );
    let manager = Manager::builder().config_yaml(&config);
    manager.engine(Scripted::data()).build().unwrap()
}

async fn until_not_found(app: &App) {
    until_failed(app, "dns error", None).await;
    assert_eq!(status(app).class, Some(FailureClass::Network));
    let message = status(app).message.unwrap();
    assert!(message.contains(HOST), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named_and_the_last_good_bundle_serves() {
    let directory = tempfile::tempdir().unwrap();
    let server = BundleServer::start().await;
    server.answer("/b?token=s3cret", Answer::Bundle(bundle("1")));
    let before = manager(&server.url(), directory.path());
    before.app("shop").unwrap().ready(LONG).await.unwrap();
    let kept = directory.path().join("shop/bundles/b/bundle.tar.gz");
    until("the bundle is kept", || kept.exists()).await;
    before.shutdown(LONG).await;

    let after = manager(&format!("http://{HOST}:8181"), directory.path());
    let app = after.app("shop").unwrap();
    until_version(&app, "1").await;
    let steady = Watch::over(&app, Some("1"));
    until_not_found(&app).await;
    assert_eq!(app.state(), State::Ready);
    let nothing = after.app("other").unwrap();
    until_not_found(&nothing).await;
    assert!(matches!(nothing.state(), State::Failed { .. }));
    steady.end("a name that does not resolve").await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_delays_no_other_service() {
    let (other, other_of_twin) = (BundleServer::start().await, BundleServer::start().await);
    let lost = ("lost", format!("http://{HOST}:8181"));
    let elsewhere = |server: &BundleServer| ("elsewhere", server.url());
    let manager = build(builder([lost, elsewhere(&other)])).await;
    let twin = build(builder([elsewhere(&other_of_twin)])).await;
    let app = manager.app("lost").unwrap();
    until_not_found(&app).await;
    let row = format!(
        "a name does not resolve | yes, from disk (another test) | bundle_error: {}",
        said(&app)
    );
    measure(&row, &manager, &twin, [&other, &other_of_twin]).await;
}

#[tokio::test]
async fn a_host_whose_port_is_closed_is_asked_again_until_it_answers() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let manager = manager(
        &format!("http://localhost:{}", address.port()),
        directory.path(),
    );
    let app = manager.app("shop").unwrap();
    until_failed(&app, "Connection refused", None).await;
    let message = status(&app).message.unwrap();
    assert!(message.contains("localhost"), "{message}");
    // Where somebody else took the port meanwhile, there is nothing to show.
    let Ok(server) = BundleServer::start_at(address).await else {
        return;
    };
    server.answer("/b?token=s3cret", Answer::Bundle(bundle("1")));
    until_version(&app, "1").await;
    assert_eq!(status(&app).message, None);
}
