//! A thousand apps with the same megabyte of data take hardly more than one.

use std::io::Write;

use tests::activating::{Activating, end, part, users};
use tests::bundle_server::{Answer, BundleServer};

const APPS: usize = 1_000;

/// How much more a thousand apps may take than one, in KiB.
const LIMIT: u64 = 30 * 1024;

/// What all apps take more than the first one, in KiB.
async fn growth(engine: &str, bundle: impl Fn(usize) -> Vec<u8>) -> u64 {
    let server = BundleServer::start_counting().await;
    for app in 0..=APPS {
        server.answer(&format!("/app-{app}"), Answer::Bundle(bundle(app)));
    }
    let (engine, url) = (engine.to_owned(), server.url());
    let measuring = tokio::task::spawn_blocking(move || {
        let program = env!("CARGO_BIN_EXE_activating");
        let apps = APPS.to_string();
        let mut process = Activating::start(program, &["share", &engine, &url, &apps]);
        let (one, all) = (process.numbers()[0], process.numbers()[0]);
        all.saturating_sub(one)
    });
    measuring.await.unwrap()
}

/// The same megabyte for all, under another policy and revision for each.
fn different(data: &[u8], app: usize) -> Vec<u8> {
    let manifest = format!("{{\"revision\":\"{app}\"}}");
    let module = format!("package app{app}\n\nallow := true\n");
    let own = part([
        (".manifest", manifest.as_bytes()),
        ("policy.rego", module.as_bytes()),
    ]);
    [data, &own, &end()].concat()
}

async fn figures(what: &str, bundle: impl Fn(usize) -> Vec<u8>) {
    let kept = growth("scripted", &bundle).await;
    let regorus = growth("regorus", &bundle).await;
    // Past the capture of libtest: the figure is for whoever reads the log.
    let shown = writeln!(
        std::io::stderr(),
        "{APPS} more apps with {what}: {kept} KiB with an engine that keeps the data it is given, \
         {regorus} KiB with regorus",
    );
    shown.unwrap();
    assert!(kept < LIMIT, "{kept} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bundle_exists_once() {
    let data = users(1 << 20, false, 1);
    let data = part([("data.json", data.as_bytes())]);
    let bundle = different(&data, 0);
    figures("the same bundle", |_| bundle.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_data_in_different_bundles_exists_once() {
    let data = users(1 << 20, false, 1);
    let data = part([("data.json", data.as_bytes())]);
    figures("the same data in different bundles", |app| {
        different(&data, app)
    })
    .await;
}
