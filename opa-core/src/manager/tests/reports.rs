//! What there is to measure of instances.

use super::*;
use crate::FailureClass;
use crate::plugin::BundleStatus;

fn only_bundle(manager: &Manager) -> BundleStatus {
    let mut reports = manager.reports();
    reports.instances.remove(0).status.bundles.remove(0)
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_by_what_failed_and_loads_by_activations() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    source.fail(Some(SourceError::new("no").with_http_code(403)));
    let app = manager.app("orders").unwrap();
    while app.state().as_str() != "failed" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let failed = only_bundle(&manager);
    assert_eq!(
        (failed.code, failed.http_code),
        (Some("bundle_error"), Some(403))
    );
    assert_eq!(failed.class, Some(FailureClass::Forbidden));
    assert!(failed.loads == 0 && failed.failures.of(FailureClass::Forbidden) > 0);

    source.fail(None);
    app.ready(LONG).await.unwrap();
    source.replace(broken());
    while only_bundle(&manager).failures.of(FailureClass::Compile) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    source.replace(bundle("2"));
    until_version(&app, "2").await;
    let loaded = only_bundle(&manager);
    assert_eq!((loaded.code, loaded.class, loaded.loads), (None, None, 2));
    assert!(loaded.failures.of(FailureClass::Forbidden) >= failed.failures.total());
    assert_eq!(loaded.load_times, None, "nobody asked for them");
    // A stage is noted when it is over, a moment after it shows.
    let loads = || -> Vec<u64> {
        let times = manager.load_times();
        times.iter().map(|(_, it)| it.total()).collect()
    };
    while loads()[2] < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let loads = loads();
    // What failed to compile took its time, too.
    assert!(loads[0] >= 4 && loads[1] >= 3 && loads[2] >= 3, "{loads:?}");
    let last = only_bundle(&manager).last_load;
    assert!(last.iter().count() >= 1, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn what_apps_share_is_told_and_counts_once() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    manager.record_loads_by_app();
    let red = manager.app("red").unwrap();
    red.ready(LONG).await.unwrap();
    let alone = manager.reports();
    let [report] = &alone.instances[..] else {
        panic!("{alone:?}")
    };
    assert!(!report.policies.is_shared && !report.data.is_shared);
    assert_eq!(report.policies.bytes, "package a".len() as u64);
    assert_eq!(report.data.bytes, r#"{"version":"1"}"#.len() as u64);
    assert!(report.status.bundles[0].load_times.is_some());

    let blue = manager.app("blue").unwrap();
    blue.ready(LONG).await.unwrap();
    let both = manager.reports();
    let apps: Vec<_> = both
        .instances
        .iter()
        .map(|it| it.status.app.as_str())
        .collect();
    assert_eq!(apps, ["blue", "red"]);
    assert!(
        both.instances
            .iter()
            .all(|it| it.policies.is_shared && it.data.is_shared)
    );
    assert_eq!(both.policy_bytes, alone.policy_bytes);
    assert_eq!(both.data_bytes, alone.data_bytes);
}

#[tokio::test(start_paused = true)]
async fn decisions_are_timed_once_somebody_wants_to_know() {
    let manager = builder(&Counting::new(bundle("1"))).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    version(&app).await;
    assert_eq!(manager.decision_times().total(), 0);
    version(&app).await;
    drop(app.ask());
    assert_eq!(
        manager.decision_times().total(),
        1,
        "a cancelled one is none"
    );
    assert_eq!(manager.reports().instances[0].decisions.total(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_used_again_within_its_grace_period_says_so() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source)
        .grace(Duration::from_secs(60))
        .build()
        .unwrap();
    for wanted in [0, 1] {
        let app = manager.app("orders").unwrap();
        let second = manager.app("orders").unwrap();
        drop((app, second));
        assert_eq!(manager.reports().instances[0].reuses, wanted);
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(manager.reports().instances.is_empty());
    let _app = manager.app("orders").unwrap();
    assert_eq!(
        manager.reports().instances[0].reuses,
        0,
        "a new one took its place"
    );
}
