//! Sources that change while they are served: a directory, and bundles by `opa build` that `serve`
//! reads from the real nginx.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use opa_core::bundle::source::File;
use opa_core::{Manager, Value};
use serde_json::json;
use tests::http_client::{get, send};
use tests::peers;
use tests::serve::Serve;

const LONG: Duration = Duration::from_secs(30);

const POLICY: &str = r#"package shop.authz

default allow := false

allow if input.attributes.request.http.headers["x-user"] in data.shop.users

greeting := sprintf("hello %s", [data.shop.users[0]])
"#;

const QUERY: &str = "data.shop.authz";

/// The input that both are asked with.
fn input() -> serde_json::Value {
    json!({"attributes": {"request": {"http": {"headers": {"x-user": "ann"}}}}})
}

fn write_sources(folder: &Path) {
    fs::create_dir_all(folder.join("shop")).unwrap();
    fs::write(folder.join("shop/authz.rego"), POLICY).unwrap();
    fs::write(
        folder.join("shop/data.json"),
        r#"{"users": ["ann", "bob"]}"#,
    )
    .unwrap();
    fs::write(folder.join(".manifest"), r#"{"roots": ["shop"]}"#).unwrap();
}

#[tokio::test]
async fn a_directory_answers_the_same_as_in_opa_and_its_changes_are_followed() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    write_sources(folder.path());
    let theirs = opa.eval(folder.path(), QUERY, &input()).unwrap();
    let manager = Manager::builder()
        .source("b", File::new(folder.path()))
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let asked = async || {
        let decision = app.decide("shop/authz", Value::from(input())).await;
        decision.result().unwrap().to_serde()
    };
    assert_eq!(asked().await, theirs);
    fs::write(
        folder.path().join("shop/data.json"),
        r#"{"users": ["eve"]}"#,
    )
    .unwrap();
    let changed = async {
        while asked().await["greeting"] != "hello eve" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, changed)
        .await
        .expect("the change is served");
}

/// The whole way without a line of code: `opa build`, nginx, `serve`.
#[tokio::test]
async fn serve_follows_bundles_by_opa_build_from_nginx() {
    let (Some(opa), Some(nginx)) = (peers::opa(), peers::nginx()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (sources, root) = (folder.path().join("sources"), folder.path().join("root"));
    write_sources(&sources);
    fs::create_dir_all(root.join("bundles")).unwrap();
    // The archive lies beside and is moved into place, so that nginx never serves half of it.
    let publish = |app: &str, revision: &str| {
        let built = folder.path().join("built.tar.gz");
        opa.build(&sources, &built, revision);
        peers::renew(&built);
        fs::rename(built, root.join("bundles").join(format!("{app}.tar.gz"))).unwrap();
    };
    publish("shop", "r1");
    let nginx = nginx.serve(&root).await;
    let configuration = format!(
        "services: {{control: {{url: '{}'}}}}\n\
         labels: {{team: red, app: '{{{{ .bundlename }}}}'}}\n\
         bundles:\n  main:\n    resource: bundles/{{{{ .bundlename }}}}.tar.gz\n\
         \u{20}   polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}\n\
         decision_logs: {{console: true}}\n\
         plugins: {{envoy_ext_authz_grpc: {{path: shop/authz/allow}}}}\n",
        nginx.url(),
    );
    let mut serve = Serve::start(&configuration, &["--trust-app-header"]).await;
    let status = async |app: &str, user: &str| {
        let request = Request::get("/x")
            .header("x-opa-app", app)
            .header("x-user", user);
        let response = send(serve.address(), request.body(Bytes::new()).unwrap())
            .await
            .unwrap();
        response.status().as_u16()
    };
    let until = async |app: &str, user: &str, wanted: u16| {
        let answered = async {
            while status(app, user).await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let what = format!("{app} never answers {wanted} to {user}");
        tokio::time::timeout(LONG, answered).await.expect(&what);
    };
    until("shop", "ann", 200).await;
    assert_eq!(status("shop", "eve").await, 403);
    assert_eq!(
        status("other", "ann").await,
        503,
        "nginx has no bundle for this app"
    );

    // A changed policy reaches the decisions, and an app whose bundle comes later is served.
    fs::write(sources.join("shop/data.json"), r#"{"users": ["eve"]}"#).unwrap();
    publish("shop", "r2");
    publish("other", "r1");
    until("shop", "eve", 200).await;
    until("other", "eve", 200).await;

    let apps = get(serve.admin(), "/-/apps").await.unwrap();
    let apps: serde_json::Value = serde_json::from_slice(apps.body()).unwrap();
    let text = apps.to_string();
    assert!(text.contains(r#""revision":"r2""#), "{text}");
    assert!(!text.contains("failed"), "{text}");

    // nginx has sent each revision once: everything else was 304 or 404.
    let bundles = nginx
        .accesses()
        .into_iter()
        .filter(|line| line.contains(" 200 "));
    assert_eq!(bundles.count(), 3, "{:?}", nginx.accesses());

    let events = serve.next_events().await.unwrap();
    let event = events
        .iter()
        .find(|event| event["labels"]["app"] == "shop")
        .unwrap();
    assert_eq!(event["labels"]["team"], "red");
    assert_eq!(event["path"], "shop/authz/allow");
}
