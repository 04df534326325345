//! Delta bundles: what the real `opa` makes of a patch is made of it here, except where it loses
//! the bundle.

use std::net::SocketAddr;
use std::time::Duration;

use opa_core::bundle::{BundleWriter, Manifest};
use opa_core::{App, Manager, Value as RegoValue};
use serde_json::{Value, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::http_client;
use tests::peers::{self, RunningOpa};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// A change to the bundle whose one root is `$`, in place of which stands the name of the case.
struct Case {
    /// The data at the root; without it, the delta comes first.
    base: Option<Value>,
    manifest: Option<Value>,
    patch: Value,
    /// What else the delta's archive has.
    beside: &'static [(&'static str, &'static str)],
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    Same,
    /// Refused here, and why; OPA takes it.
    Stricter(&'static str),
}

fn case(base: Value, operations: Value) -> Case {
    Case {
        base: Some(base),
        manifest: Some(json!({"revision": "2", "roots": ["$"]})),
        patch: json!({"data": operations}),
        beside: &[],
        expected: Expected::Same,
    }
}

fn upsert(path: &str, value: Value) -> Value {
    json!({"op": "upsert", "path": path, "value": value})
}

fn remove(path: &str) -> Value {
    json!({"op": "remove", "path": path})
}

fn replace(path: &str, value: Value) -> Value {
    json!({"op": "replace", "path": path, "value": value})
}

fn cases() -> Vec<Case> {
    let one = || json!({"a": 1, "b": {"c": [1, {"d": 2}]}, "e": null});
    let change = |operation: Value| case(one(), json!([operation]));
    let strict = |operation, why| Case {
        expected: Expected::Stricter(why),
        ..change(operation)
    };
    let with = |beside| Case {
        beside,
        ..change(upsert("/$/a", json!(2)))
    };
    vec![
        change(upsert("/$/a", json!(2))),
        change(upsert("$/a/", json!({"x": [1.5, "<é>"]}))),
        change(upsert("/$", json!({"new": 1}))),
        change(upsert("/$", json!(7))),
        change(upsert("/$/x/y/z", json!(true))),
        change(upsert("/$/e", json!(null))),
        change(upsert("/$/e/x", json!(1))),
        change(upsert("/$/e/x/y", json!(1))),
        change(upsert("/$/a/x", json!(1))),
        change(upsert("/$/a/x/y", json!(1))),
        change(upsert("/$/a/x/y/z", json!(1))),
        change(upsert("/$//x", json!(1))),
        change(upsert("/$/x~1y/a~0b/~01/c%2Fd/+", json!(1))),
        change(upsert("/$/%zz", json!(1))),
        change(upsert("/$/b/c/-", json!(3))),
        change(upsert("/$/b/c/2", json!(3))),
        change(upsert("/$/b/c/3", json!(3))),
        change(upsert("/$/b/c/0", json!(3))),
        change(upsert("/$/b/c/x", json!(3))),
        change(upsert("/$/b/c/-1", json!(3))),
        change(upsert("/$/b/c/1/d", json!(3))),
        change(upsert("/$/b/c/1/x/y", json!(3))),
        change(upsert("/$/b/c/2/x", json!(3))),
        change(upsert("/$/b/c/2/x/y", json!(3))),
        change(upsert("/$/b/c/-/x", json!(3))),
        strict(upsert("/$/b/c/01", json!(3)), "array index must be integer"),
        strict(upsert("/$/b/c/+1", json!(3)), "array index must be integer"),
        change(json!({"op": "upsert", "path": "/$/x"})),
        change(remove("/$/a")),
        change(remove("/$")),
        change(remove("/$/x")),
        change(remove("/$/x/y")),
        change(remove("/$/a/y")),
        change(remove("/$/b/c/0")),
        change(remove("/$/b/c/-")),
        change(remove("/$/b/c/2")),
        change(remove("/$/b/c/3")),
        change(remove("/$/b/c/1/d")),
        change(json!({"op": "remove", "path": "/$/a", "value": 3})),
        change(replace("/$/a", json!([]))),
        change(replace("/$", json!({"only": 1}))),
        change(replace("/$/x", json!(1))),
        change(replace("/$/x/y", json!(1))),
        change(replace("/$/b/c/0", json!(9))),
        change(replace("/$/b/c/-", json!(9))),
        change(replace("/$/b/c/2", json!(9))),
        change(replace("/$/b/c/9", json!(9))),
        change(json!({"op": "add", "path": "/$/a", "value": 2})),
        change(json!({"op": "UPSERT", "path": "/$/a", "value": 2})),
        change(json!({"Op": "upsert", "PATH": "/$/a", "vAlUe": 2})),
        change(json!({"path": "/$/a", "value": 2})),
        change(upsert("/other/a", json!(2))),
        change(upsert("/$x/a", json!(2))),
        change(upsert("", json!(2))),
        case(
            one(),
            json!([
                upsert("/$/a", json!(2)),
                remove("/$/x"),
                upsert("/$/b", json!(3))
            ]),
        ),
        case(
            one(),
            json!([
                remove("/$/b"),
                upsert("/$/b/x", json!(1)),
                upsert("/$/b/x", json!({"y": []})),
                upsert("/$/b/x/y/-", json!("z")),
                replace("/$/b/x/y/0", json!("w")),
            ]),
        ),
        case(one(), json!([remove("/$"), upsert("/$/x", json!(1))])),
        case(
            one(),
            json!([
                upsert("/$/b/c/0", json!(0)),
                remove("/$/b/c/2"),
                upsert("/$/b/c/-", json!(4))
            ]),
        ),
        case(one(), json!({"op": "upsert"})),
        case(one(), json!("x")),
        // Above the rule of the bundle, and in its place.
        change(upsert("/$/p/x", json!(1))),
        change(upsert("/$/p", json!(1))),
        change(upsert("/$/q", json!(1))),
        // The manifest.
        Case {
            manifest: None,
            ..change(upsert("/$/a", json!(2)))
        },
        Case {
            manifest: Some(json!({"revision": "2", "roots": ["$", "$x"]})),
            ..change(upsert("/$/a", json!(2)))
        },
        Case {
            manifest: Some(json!({"revision": "2", "roots": ["/$/"], "metadata": {"k": [1]}})),
            ..change(upsert("/$/a", json!(2)))
        },
        Case {
            manifest: Some(json!({"revision": "2", "roots": ["$"], "rego_version": 7})),
            ..change(upsert("/$/a", json!(2)))
        },
        // Other files.
        with(&[("README.md", "x")]),
        with(&[("$/policy.rego", "package $\n\nx := 1")]),
        with(&[("policy.wasm", "x")]),
        Case {
            expected: Expected::Stricter("data files found"),
            ..with(&[("$/data.json", r#"{"n":1}"#)])
        },
        Case {
            expected: Expected::Stricter("signatures found"),
            ..with(&[(".signatures.json", r#"{"signatures":["a.b.c"]}"#)])
        },
        Case {
            expected: Expected::Stricter("other files found"),
            ..with(&[("plan.json", "{}")])
        },
        // The first bundle.
        Case {
            base: None,
            ..change(upsert("/$/x/y", json!(1)))
        },
    ]
}

/// The case with its name in its texts.
fn named(value: &Value, name: &str) -> Value {
    serde_json::from_str(&value.to_string().replace('$', name)).unwrap()
}

fn archive(files: &[(String, String)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn base(name: &str, data: &Value) -> Vec<u8> {
    BundleWriter::new()
        .revision("1")
        .roots([name])
        .unwrap()
        .data(name, &RegoValue::from(data.clone()))
        .unwrap()
        .module("policy.rego", format!("package {name}\n\np.q := 1\n"))
        .unwrap()
        .to_vec()
        .unwrap()
}

fn delta(name: &str, case: &Case) -> Vec<u8> {
    let mut files = vec![(
        "patch.json".to_owned(),
        named(&case.patch, name).to_string(),
    )];
    let manifest = case.manifest.as_ref();
    files.extend(manifest.map(|it| (".manifest".to_owned(), named(it, name).to_string())));
    let beside = case.beside.iter();
    files.extend(beside.map(|(path, text)| (path.replace('$', name), text.replace('$', name))));
    archive(&files)
}

fn configuration(server: &BundleServer, names: &[String]) -> Value {
    let bundles = names.iter().map(|name| {
        let polling = json!({"min_delay_seconds": 1, "max_delay_seconds": 1, "long_polling_timeout_seconds": 60});
        (name.clone(), json!({"resource": name, "polling": polling}))
    });
    json!({
        "services": {"control": {"url": server.url()}},
        "bundles": bundles.collect::<serde_json::Map<_, _>>(),
    })
}

/// The revision, or what is wrong with the delta.
type Outcome = Result<String, String>;

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(LONG, wait).await;
    found.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn opa_outcome(opa: SocketAddr, name: &str) -> Outcome {
    until(name, async || {
        let response = http_client::get(opa, "/v1/status").await.unwrap();
        let status: Value = serde_json::from_slice(response.body()).unwrap();
        let bundle = &status["result"]["bundles"][name];
        if let Some(message) = bundle["message"].as_str() {
            let first = bundle["errors"][0]["message"].as_str();
            return Some(Err(first.unwrap_or(message).to_owned()));
        }
        (bundle["type"] == "delta").then(|| {
            let revision = bundle["active_revision"].as_str();
            Ok(revision.unwrap_or_default().to_owned())
        })
    })
    .await
}

async fn our_outcome(app: &App, name: &str) -> Outcome {
    until(name, async || {
        let status = app.status();
        let bundle = status.bundles.iter().find(|it| &*it.name == name).unwrap();
        if let Some(message) = &bundle.message {
            return Some(Err(message.to_string()));
        }
        let active = bundle.last_successful_activation.is_some();
        (bundle.bundle_type == Some("delta") && active).then(|| {
            let revision = bundle.active_revision.as_deref();
            Ok(revision.unwrap_or_default().to_owned())
        })
    })
    .await
}

async fn our_data(app: &App, path: &str) -> Value {
    let decision = app.decide(path, RegoValue::NULL).await;
    decision.result().map_or(Value::Null, RegoValue::to_serde)
}

/// What OPA has there as soon as that is `wanted`, or at the end of patience: it activates the other
/// cases meanwhile, and compiles all of them together each time.
async fn opa_data(opa: &RunningOpa, name: &str, wanted: &Value) -> Value {
    let end = tokio::time::Instant::now() + LONG / 6;
    loop {
        let found = opa.decide(name, &json!({})).await.unwrap_or_default();
        if found == *wanted || tokio::time::Instant::now() > end {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn patches_do_what_they_do_in_opa() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    let cases = cases();
    let names: Vec<_> = (0..cases.len())
        .map(|number| format!("c{number}"))
        .collect();
    let first = |name: &str, case: &Case| match &case.base {
        Some(data) => base(name, data),
        None => delta(name, case),
    };
    for (name, case) in names.iter().zip(&cases) {
        server.answer(&format!("/{name}"), Answer::LongPoll(first(name, case)));
    }
    let reader = BundleWriter::new()
        .roots(["reader"])
        .unwrap()
        .module("r.rego", "package reader\n\nbundles := data.system.bundles")
        .unwrap();
    server.answer("/reader", Answer::LongPoll(reader.to_vec().unwrap()));
    let all: Vec<_> = names.iter().cloned().chain(["reader".to_owned()]).collect();
    let mut configuration = configuration(&server, &all);
    let manager = Manager::builder().config_yaml(&configuration.to_string());
    let manager = manager.build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    configuration["status"] = json!({"console": true});
    let running = opa.serve(&configuration.to_string()).await;

    for (name, case) in names.iter().zip(&cases) {
        server.answer(&format!("/{name}"), Answer::LongPoll(delta(name, case)));
    }
    let mut complaints = Vec::new();
    for (name, case) in names.iter().zip(&cases) {
        let theirs = opa_outcome(running.address(), name).await;
        let ours = our_outcome(&app, name).await;
        let told = format!("{name} {}: OPA {theirs:?}, here {ours:?}", case.patch);
        match (case.expected, &theirs, &ours) {
            (Expected::Stricter(why), Ok(_), Err(ours)) if ours.contains(why) => {}
            (Expected::Same, Ok(theirs), Ok(ours)) if theirs == ours => {
                let ours = our_data(&app, name).await;
                let theirs = opa_data(&running, name, &ours).await;
                if theirs != ours {
                    complaints.push(format!("{told}: OPA has {theirs}, here {ours}"));
                }
            }
            (Expected::Same, Err(theirs), Err(ours)) if alike(theirs, ours) => {
                // All or nothing.
                let ours = our_data(&app, name).await;
                let base = opa_data(&running, name, &ours).await;
                if base != ours {
                    complaints.push(format!("{told}: OPA still has {base}, here {ours}"));
                }
            }
            _ => complaints.push(told),
        }
    }
    // What both tell the policy about the bundles that are active, where both took the delta.
    let mut theirs = running.decide("reader/bundles", &json!({})).await.unwrap();
    let mut ours = our_data(&app, "reader/bundles").await;
    for (name, case) in names.iter().zip(&cases) {
        if case.expected != Expected::Same {
            theirs.as_object_mut().unwrap().remove(name);
            ours.as_object_mut().unwrap().remove(name);
        }
    }
    if theirs != ours {
        complaints.push(format!("system.bundles: OPA {theirs}\nhere {ours}"));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Ours is OPA's text, with what it is about behind it.
fn alike(theirs: &str, ours: &str) -> bool {
    let parts = [
        "patch decode",
        "roots",
        "error parsing patch path",
        "conflicting rule",
    ];
    ours.starts_with(theirs)
        || parts
            .iter()
            .any(|part| theirs.contains(part) && ours.contains(part))
}

/// What `opa` does here is why it is done otherwise here.
#[tokio::test]
async fn an_empty_patch_leaves_the_policy_where_opa_loses_it() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    server.answer("/c", Answer::LongPoll(base("c", &json!({"a": 1}))));
    let mut configuration = configuration(&server, &["c".to_owned()]);
    let manager = Manager::builder().config_yaml(&configuration.to_string());
    let manager = manager.build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    configuration["status"] = json!({"console": true});
    let running = opa.serve(&configuration.to_string()).await;
    let empty = Case {
        patch: json!({"data": []}),
        ..case(json!(null), json!([]))
    };
    server.answer("/c", Answer::LongPoll(delta("c", &empty)));
    assert_eq!(our_outcome(&app, "c").await.as_deref(), Ok("2"));
    assert_eq!(our_data(&app, "c").await, json!({"a": 1, "p": {"q": 1}}));
    until("OPA loses its policy", async || {
        running
            .decide("c", &json!({}))
            .await
            .is_none()
            .then_some(())
    })
    .await;
}

/// A bundle that is kept on disk, and one that must be signed, is never changed by a delta: such a
/// delta is not asked for, and refused in OPA's words.
#[tokio::test]
async fn where_deltas_have_no_place_they_are_refused_as_in_opa() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    let first = Case {
        base: None,
        ..case(json!(null), json!([upsert("/$/a", json!(1))]))
    };
    for name in ["kept", "signed", "exempt"] {
        server.answer(&format!("/{name}"), Answer::Bundle(delta(name, &first)));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut configuration =
        configuration(&server, &["kept", "signed", "exempt"].map(str::to_owned));
    configuration["keys"] = json!({"k": {"key": "secret", "algorithm": "HS256"}});
    configuration["persistence_directory"] = json!(folder.path());
    configuration["bundles"]["kept"]["persist"] = json!(true);
    configuration["bundles"]["signed"]["signing"] = json!({});
    configuration["bundles"]["exempt"]["signing"] = json!({"allow_unsigned_delta_bundles": true});
    let manager = Manager::builder().config_yaml(&configuration.to_string());
    let manager = manager.build().unwrap();
    let app = manager.app("orders").unwrap();
    configuration["status"] = json!({"console": true});
    let running = opa.serve_until(&configuration.to_string(), "/health").await;
    for name in ["kept", "signed"] {
        let theirs = opa_outcome(running.address(), name).await.unwrap_err();
        assert_eq!(our_outcome(&app, name).await.unwrap_err(), theirs);
    }
    assert_eq!(
        opa_outcome(running.address(), "exempt").await.as_deref(),
        Ok("2")
    );
    until("the exempt one", async || {
        let status = app.status();
        let exempt = status
            .bundles
            .iter()
            .find(|it| &*it.name == "exempt")
            .unwrap();
        (exempt.bundle_type == Some("delta")).then_some(())
    })
    .await;
    let ours = |path: &str| {
        let requests = server.requests().into_iter().filter(|it| it.path == path);
        let modes: Vec<_> = { requests }
            .filter_map(|it| it.header("prefer").map(str::to_owned))
            .collect();
        modes
    };
    let both = "modes=snapshot,delta;wait=60";
    assert!(ours("/exempt").iter().all(|modes| modes == both));
    for path in ["/kept", "/signed"] {
        let modes = ours(path);
        assert!(modes.iter().any(|modes| modes == both), "OPA's");
        assert!(
            modes.iter().any(|modes| modes == "modes=snapshot;wait=60"),
            "ours"
        );
    }
    assert!(
        !folder
            .path()
            .join("orders/bundles/kept/bundle.tar.gz")
            .exists()
    );
}

/// A delta of many megabytes, and limits on it.
#[tokio::test]
async fn large_deltas_are_bounded_as_snapshots_are() {
    let server = BundleServer::start().await;
    server.answer("/c", Answer::LongPoll(base("c", &json!({"a": 1}))));
    let mut configuration = configuration(&server, &["c".to_owned()]);
    configuration["bundles"]["c"]["size_limit_bytes"] = json!(20_000_000);
    let manager = Manager::builder().config_yaml(&configuration.to_string());
    let manager = manager.build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let of_size = |members: usize| {
        let member = |number: usize| upsert(&format!("/$/big/{number}"), json!("x".repeat(100)));
        case(json!(null), (0..members).map(member).collect())
    };
    server.answer("/c", Answer::LongPoll(delta("c", &of_size(200_000))));
    let refused = our_outcome(&app, "c").await.unwrap_err();
    assert!(
        refused.contains("exceeds configured size_limit_bytes"),
        "{refused}"
    );
    server.answer("/c", Answer::LongPoll(delta("c", &of_size(100_000))));
    until("the large delta", async || {
        (our_data(&app, "c/big/99999").await == "x".repeat(100)).then_some(())
    })
    .await;
    assert_eq!(our_data(&app, "c/a").await, 1);
}

#[test]
fn a_manifest_that_is_written_is_read() {
    let manifest = Manifest::default().with_revision("2");
    let patch = RegoValue::from(json!({"data": [upsert("/a", json!(1))]}));
    assert!(opa_core::bundle::delta_archive(&manifest, &patch).is_ok());
}
