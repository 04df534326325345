use super::*;
use crate::Reason;
use crate::plugin::State;

#[tokio::test(start_paused = true)]
async fn a_new_bundle_is_served_at_once_and_the_old_snapshot_is_freed() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    let status = app.status();
    assert_eq!(status.bundles[0].active_revision.as_deref(), Some("2"));
    tokio::time::sleep(LONG).await;
    assert_eq!(
        manager.0.instances.shared.store.len(),
        (1, 1),
        "only the new one is left"
    );
}

#[tokio::test(start_paused = true)]
async fn a_decision_under_way_keeps_its_snapshot() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let prepared = app.ask().prepare(None).unwrap();
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    tokio::time::sleep(LONG).await;
    let evaluated = prepared.evaluate(Value::NULL).await;
    assert_eq!(evaluated.result().unwrap().to_json(), r#"{"version":"1"}"#);
    let concluded = evaluated.conclude(Reason::Decided, None, crate::instance::LogEntry::default());
    let decision = concluded.await;
    assert_eq!(decision.revision(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_that_is_kept_after_its_end_frees_no_policy() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let prepared = app.ask().prepare(None).unwrap();
    let old = Arc::downgrade(&app.instance.snapshot().unwrap());
    let mut evaluation = std::pin::pin!(Some(prepared.evaluate(Value::NULL)));
    let evaluated = evaluation.as_mut().as_pin_mut().unwrap().await;
    drop(evaluated);
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    tokio::time::sleep(LONG).await;
    assert!(
        old.upgrade().is_some(),
        "the evaluation would free the policy"
    );
    evaluation.set(None);
    assert!(old.upgrade().is_some(), "not here and now");
    while old.upgrade().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_bundle_leaves_the_last_good_one_serving_and_shows_why() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    for (bad, why) in [
        (broken(), "rego_parse_error: broken"),
        (b"no archive".to_vec(), "gzip"),
    ] {
        source.memory.replace(bad);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        assert_eq!(app.state(), State::Ready);
        let status = app.status();
        let message = status.bundles[0].message.clone().unwrap();
        assert!(message.contains(why), "{message}");
        assert_eq!(status.bundles[0].code, Some("bundle_error"));
        assert_eq!(status.bundles[0].active_revision.as_deref(), Some("1"));
    }
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    assert_eq!(app.status().bundles[0].message, None);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_failed_is_fetched_again_with_the_etag_of_the_active_one() {
    let source = Counting::new(broken());
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(matches!(app.state(), State::Failed { .. }));
    assert!(source.downloads() > 2, "each retry downloads it again");
    source.memory.replace(bundle("1"));
    app.ready(LONG).await.unwrap();
}

fn part(root: &str) -> Vec<u8> {
    let data = Value::object([("part".into(), root.into())]);
    let bundle = BundleWriter::new()
        .revision(format!("{root}-1"))
        .roots([root])
        .unwrap()
        .data(root, &data)
        .unwrap();
    bundle.to_vec().unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_before_all_bundles_are_there() {
    let (one, two) = (Counting::new(part("one")), Counting::new(part("two")));
    two.fail(Some(SourceError::new("down")));
    let manager = builder(&one).source("two", two.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        matches!(app.state(), State::Failed { .. }),
        "{:?}",
        app.state()
    );
    two.fail(None);
    app.ready(LONG).await.unwrap();
    for (status, revision) in app.status().bundles.iter().zip(["one-1", "two-1"]) {
        assert_eq!(status.active_revision.as_deref(), Some(revision));
        assert!(status.last_successful_activation.is_some() && status.size.is_some());
    }
    let decision = app.decide("x", Value::NULL).await;
    let all = r#"{"one":{"part":"one"},"two":{"part":"two"}}"#;
    assert_eq!(decision.result().unwrap().to_json(), all);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_waits_for_the_others_forgets_its_error() {
    let (one, two) = (Counting::new(part("one")), Counting::new(part("two")));
    one.fail(Some(SourceError::new("one is down")));
    two.fail(Some(SourceError::new("two is down")));
    let manager = builder(&one).source("two", two.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    one.fail(None);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let status = app.status();
    assert_eq!(status.bundles[0].message, None);
    assert_eq!(status.bundles[0].active_revision, None);
    assert_eq!(status.bundles[1].message.as_deref(), Some("two is down"));
}

#[tokio::test(start_paused = true)]
async fn of_two_bundles_with_the_same_roots_the_newcomer_fails() {
    let (one, two) = (Counting::new(part("one")), Counting::new(part("two")));
    let manager = builder(&one).source("two", two.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    two.memory.replace(part("one"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let status = app.status();
    assert_eq!(status.bundles[0].message, None);
    let message = status.bundles[1].message.clone().unwrap();
    assert!(message.contains("overlapping roots"), "{message}");
    let decision = app.decide("x", Value::NULL).await;
    assert!(decision.result().unwrap().get("two").is_some());
}

#[tokio::test(start_paused = true)]
async fn equal_modules_are_compiled_once_for_all_apps() {
    let source = Counting::new(bundle("1"));
    let engine = Scripted::data();
    let manager = Manager::builder()
        .source("b", source)
        .engine(engine.clone())
        .blocking_pools();
    let manager = manager.build().unwrap();
    let apps: Vec<_> = (0..50)
        .map(|n| manager.app(format!("app-{n}")).unwrap())
        .collect();
    for app in &apps {
        app.ready(LONG).await.unwrap();
    }
    assert_eq!(engine.compiled(), 1);
    assert_eq!(manager.0.instances.shared.store.len(), (1, 1));
}

/// A source whose code is wrong.
struct Panics;

impl Source for Panics {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        Box::pin(async { panic!("the user's code is wrong") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_source_hurts_only_its_apps() {
    let manager = Manager::builder()
        .source("b", Panics)
        .engine(Scripted::data())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    let error = app.ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(
        error.to_string().contains("a panic ended the attempt"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn modules_in_memory_keep_their_version_of_rego() {
    use crate::RegoVersion;
    use crate::engine::Module;
    let module = |id, version| Module::new(id, "package a", version);
    let in_memory = |modules: Vec<Module>| {
        let builder = Manager::builder().engine(Scripted::data()).blocking_pools();
        builder.in_memory(modules, Value::empty_object())
    };
    let mixed = vec![
        module("a.rego", RegoVersion::V0),
        module("b.rego", RegoVersion::V1),
    ];
    assert!(in_memory(mixed).is_err());
    for (version, source) in [
        (RegoVersion::V0, "package a\nb = true { input.x }"),
        (RegoVersion::V1, "package a\nb if input.x"),
    ] {
        let modules = [Module::new("a.rego", source, version)];
        let manager = Manager::builder().blocking_pools();
        #[cfg(not(feature = "regorus"))]
        let manager = manager.engine(Scripted::data());
        let manager = manager
            .in_memory(modules, Value::empty_object())
            .unwrap()
            .build()
            .unwrap();
        manager.app("shop").unwrap().ready(LONG).await.unwrap();
    }
}
