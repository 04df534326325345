//! A new bundle under load: every decision is made, none is an error, each from one revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::bundle::source::{File, Memory};
use opa_core::{Manager, Reason, Value};

const LONG: Duration = Duration::from_secs(60);
const RELOADS: u64 = 40;

fn bundle(revision: u64) -> Vec<u8> {
    let policy = format!("package a\nrule := {revision}\nboth := [rule, data.revision]");
    let data = Value::object([("revision".into(), Value::from(revision))]);
    BundleWriter::new()
        .revision(revision.to_string())
        .module("a.rego", policy)
        .unwrap()
        .data("", &data)
        .unwrap()
        .to_vec()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_make_no_error_and_mix_nothing() {
    let source = Memory::new(bundle(0));
    let manager = Manager::builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (app, over) = (app.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    let decision = app.decide("a/both", Value::empty_object()).await;
                    assert_eq!(decision.reason(), Reason::Decided, "{:?}", decision.error());
                    let both = decision.result().unwrap().as_array().unwrap();
                    assert_eq!(both[0], both[1], "policy and data of two revisions");
                    let revision = both[0].as_i64().unwrap();
                    assert_eq!(decision.revision(), Some(&*revision.to_string()));
                    assert!(revision >= last, "an older revision came back");
                    last = revision;
                }
            })
        })
        .collect();
    for revision in 1..=RELOADS {
        source.replace(bundle(revision));
        let wanted = revision.to_string();
        let active = async {
            while app.status().bundles[0].active_revision.as_deref() != Some(&wanted) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, active)
            .await
            .expect("the reload takes effect");
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}

/// OPA reads a local bundle once; here a change counts, and a bad one doesn't.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_followed_and_its_last_good_state_keeps_serving() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.rego");
    let write = |policy: &str| std::fs::write(&file, policy).unwrap();
    write("package a\nrule := 1");
    let manager = Manager::builder()
        .source("b", File::new(folder.path()))
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let until = async |wanted: i64| {
        let served = async {
            loop {
                let decision = app.decide("a/rule", Value::empty_object()).await;
                if decision.result().and_then(Value::as_i64) == Some(wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, served)
            .await
            .unwrap_or_else(|_| panic!("{:?}", app.status()));
    };
    let failing = async || {
        let failed = async {
            while app.status().bundles[0].message.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, failed).await.unwrap();
    };
    until(1).await;
    write("package a\nrule := 2");
    until(2).await;
    write("package a\nrule := ");
    failing().await;
    until(2).await;
    write("package a\nrule := 3");
    until(3).await;
    assert_eq!(app.status().bundles[0].message, None);
    let moved = folder.path().with_extension("moved");
    std::fs::rename(folder.path(), &moved).unwrap();
    failing().await;
    until(3).await;
    std::fs::write(moved.join("a.rego"), "package a\nrule := 4").unwrap();
    std::fs::rename(&moved, folder.path()).unwrap();
    until(4).await;
}
