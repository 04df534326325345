use super::*;
use crate::Reason;
use crate::bundle::source::{Body, SourceAnswer};
use crate::bundle::{Manifest, delta_archive};
use crate::plugin::State;

fn delta(revision: &str, operations: &str) -> Vec<u8> {
    let manifest = Manifest::default().with_revision(revision);
    let patch = format!(r#"{{"data":{operations}}}"#);
    delta_archive(&manifest, &Value::from_json(patch.as_bytes()).unwrap()).unwrap()
}

fn to_version(version: &str) -> Vec<u8> {
    let operation = format!(r#"[{{"op":"replace","path":"version","value":"{version}"}}]"#);
    delta(version, &operation)
}

#[tokio::test(start_paused = true)]
async fn deltas_change_the_active_bundle_one_after_the_other() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    for version in ["2", "3"] {
        source.memory.replace(to_version(version));
        until_version(&app, version).await;
        let status = app.status();
        assert_eq!(status.bundles[0].active_revision.as_deref(), Some(version));
        assert_eq!(status.bundles[0].bundle_type, Some("delta"));
    }
    source.memory.replace(bundle("4"));
    until_version(&app, "4").await;
    assert_eq!(app.status().bundles[0].bundle_type, Some("snapshot"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_delta_keeps_the_policy() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    source.memory.replace(delta("2", "[]"));
    while app.status().bundles[0].active_revision.as_deref() != Some("2") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let decision = app.decide("a/b", Value::NULL).await;
    assert_eq!(decision.result().unwrap().to_json(), r#"{"version":"1"}"#);
    assert_eq!(decision.revision(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_delta_that_does_not_fit_changes_nothing_and_is_asked_for_again() {
    let data = Value::object([("version".into(), "1".into())]);
    let with_rules = BundleWriter::new().revision("1").data("", &data).unwrap();
    let with_rules = with_rules.module("a.rego", "package a\nb := 1").unwrap();
    let source = Counting::new(with_rules.to_vec().unwrap());
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let half = r#"[{"op":"replace","path":"version","value":"2"},{"op":"remove","path":"x"}]"#;
    // The last one puts data where the policy has its rules.
    let conflict =
        r#"[{"op":"replace","path":"version","value":"2"},{"op":"upsert","path":"a","value":1}]"#;
    for (operations, why) in [
        (half, "storage_not_found_error: document does not exist"),
        (conflict, "conflicting rule for data path a"),
    ] {
        source.memory.replace(delta("2", operations));
        let before = source.downloads();
        tokio::time::sleep(LONG).await;
        assert!(
            source.downloads() > before + 1,
            "with the etag of the active one"
        );
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        let status = app.status();
        let message = status.bundles[0].message.clone().unwrap();
        assert!(message.starts_with(why), "{message}");
        assert_eq!(status.bundles[0].active_revision.as_deref(), Some("1"));
    }
    source.memory.replace(to_version("3"));
    until_version(&app, "3").await;
    assert_eq!(app.status().bundles[0].message, None);
}

/// Says that it sends a delta.
struct Announced(Vec<u8>);

impl Source for Announced {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        assert!(request.deltas);
        let mut answer = SourceAnswer::snapshot(Body::from(self.0.clone()), None);
        if let crate::bundle::source::Content::Snapshot(body) = answer.content {
            answer.content = crate::bundle::source::Content::Delta(body);
        }
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_as_a_delta_must_be_one() {
    let app_of = |bytes| {
        let builder = Manager::builder().source("b", Announced(bytes));
        let manager = builder
            .engine(Scripted::data())
            .blocking_pools()
            .build()
            .unwrap();
        (manager.app("orders").unwrap(), manager)
    };
    let (app, _manager) = app_of(bundle("1"));
    app.ready(LONG).await.unwrap_err();
    let State::Failed { reason, .. } = app.state() else {
        panic!("{:?}", app.state())
    };
    assert!(reason.contains("announced a delta"), "{reason}");
    // As in OPA, the first bundle may be one.
    let (app, _manager) = app_of(delta(
        "1",
        r#"[{"op":"upsert","path":"version","value":"1"}]"#,
    ));
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_silent_for_too_long_ends_decisions_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (file, aside) = (folder.path().join("b.tar.gz"), folder.path().join("aside"));
    std::fs::write(&file, bundle("1")).unwrap();
    let configuration = format!(
        "bundles: {{b: {{resource: 'file://{}', max_staleness_seconds: 30, \
         polling: {{min_delay_seconds: 1, max_delay_seconds: 2}}}}}}",
        file.display()
    );
    let builder = Manager::builder()
        .config_yaml(&configuration)
        .engine(Scripted::data());
    let manager = builder.blocking_pools().build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(
        version(&app).await.as_deref(),
        Some("1"),
        "a source with nothing new is no silent one"
    );

    std::fs::rename(&file, &aside).unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(
        version(&app).await.as_deref(),
        Some("1"),
        "within the bound"
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    let decision = app.decide("a/b", Value::NULL).await;
    assert_eq!(
        (decision.reason(), decision.result()),
        (Reason::Stale, None)
    );
    assert_eq!(app.decision_counts().of(Reason::Stale), 1);
    assert!(app.status().bundles[0].stale);
    assert_eq!(app.state(), State::Ready);

    // A bundle that can't be taken is no sign that the active one is current.
    std::fs::write(&file, broken()).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(app.decide("a/b", Value::NULL).await.reason(), Reason::Stale);

    std::fs::rename(&aside, &file).unwrap();
    until_version(&app, "1").await;
    assert!(!app.status().bundles[0].stale);
}

#[tokio::test(start_paused = true)]
async fn what_makes_the_next_snapshot_fresh_lets_the_stale_one_answer_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.tar.gz");
    std::fs::write(&file, bundle("1")).unwrap();
    let configuration = format!(
        "bundles: {{b: {{resource: 'file://{}', max_staleness_seconds: 30, \
         polling: {{min_delay_seconds: 1, max_delay_seconds: 2}}}}}}",
        file.display()
    );
    let builder = Manager::builder()
        .config_yaml(&configuration)
        .engine(Scripted::data());
    let manager = builder.blocking_pools().build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(app.decide("a/b", Value::NULL).await.reason(), Reason::Stale);

    let (asked, reason) = std::sync::mpsc::channel();
    let asking = app.clone();
    let hooks = &manager.0.instances.shared.hooks;
    hooks.at("activation: contacts noted", move || {
        let refused = asking.ask().prepare(None).err();
        let refused = refused.and_then(|refused| refused.now().ok());
        asked.send(refused.map(|refused| refused.reason())).unwrap();
    });
    std::fs::write(&file, bundle("2")).unwrap();
    until_version(&app, "2").await;
    assert_eq!(reason.recv().unwrap(), Some(Reason::Stale));
}
