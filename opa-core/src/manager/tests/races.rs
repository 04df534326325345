use super::*;
use crate::plugin::State;

const GRACE: Duration = Duration::from_secs(30);

async fn warm(source: &Counting) -> Manager {
    let manager = builder(source).grace(GRACE).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    manager
}

fn hooks(manager: &Manager) -> &crate::instance::Hooks {
    &manager.0.instances.shared.hooks
}

/// Reaches into the manager from a hook, without keeping it alive.
fn reach(manager: &Manager) -> impl Fn() -> Manager + Send + 'static {
    let weak = Arc::downgrade(&manager.0);
    move || Manager(weak.upgrade().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_before_the_sweeper_has_the_lock_keeps_the_instance() {
    let source = Counting::new(bundle("1"));
    let manager = warm(&source).await;
    let (send, taken) = std::sync::mpsc::channel();
    let again = reach(&manager);
    hooks(&manager).at("sweep: before the lock", move || {
        send.send(again().app("orders").unwrap()).unwrap();
    });
    tokio::time::sleep(GRACE * 2).await;
    assert!(hooks(&manager).all_reached());
    let app = taken.recv().unwrap();
    assert_eq!(app.state(), State::Ready);
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    assert_eq!(source.downloads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_and_dropped_before_the_lock_starts_the_grace_period_again() {
    let source = Counting::new(bundle("1"));
    let manager = warm(&source).await;
    let again = reach(&manager);
    hooks(&manager).at("sweep: before the lock", move || {
        drop(again().app("orders").unwrap())
    });
    let (send, swept) = std::sync::mpsc::channel();
    let again = reach(&manager);
    hooks(&manager).at("sweep: after the lock", move || {
        send.send(again().statuses().len()).unwrap();
    });
    while !hooks(&manager).all_reached() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(swept.recv().unwrap(), 1, "it was used a moment ago");
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_after_the_sweep_is_on_a_new_instance() {
    let source = Counting::new(bundle("1"));
    let manager = warm(&source).await;
    let (send, taken) = std::sync::mpsc::channel();
    let again = reach(&manager);
    hooks(&manager).at("sweep: after the lock", move || {
        send.send(again().app("orders").unwrap()).unwrap();
    });
    tokio::time::sleep(GRACE * 2).await;
    let app = taken.recv().unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    assert_eq!(source.downloads(), 2);
    assert_eq!(manager.statuses().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_threads_that_find_no_instance_start_one() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let (send, taken) = std::sync::mpsc::channel();
    let again = reach(&manager);
    hooks(&manager).at("lease: not found", move || {
        send.send(again().app("orders").unwrap()).unwrap();
    });
    let app = manager.app("orders").unwrap();
    let other = taken.recv().unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(other.state(), State::Ready);
    assert_eq!(source.downloads(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_app_dropped_during_its_start_goes_after_the_grace_period() {
    let source = Counting::new(bundle("1"));
    source.fail(Some(SourceError::new("down")));
    let manager = builder(&source).grace(GRACE).build().unwrap();
    drop(manager.app("orders").unwrap());
    tokio::time::sleep(GRACE / 2).await;
    assert_eq!(manager.statuses().len(), 1);
    tokio::time::sleep(GRACE).await;
    assert_eq!(manager.statuses().len(), 0);
    let asked = source.asked();
    tokio::time::sleep(LONG).await;
    assert_eq!(
        source.asked(),
        asked,
        "nobody asks for the bundle of an app that is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_closed_right_before_its_first_activation_stays_closed() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    let closing = reach(&manager);
    hooks(&manager).at("activation: before the swap", move || {
        closing().0.instances.close_all();
    });
    while !hooks(&manager).all_reached() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.state(), State::Closed);
    assert_eq!(version(&app).await, None, "a closed instance has no policy");
}

#[tokio::test(start_paused = true)]
async fn an_instance_closed_during_a_reload_stays_closed_and_frees_both_snapshots() {
    let source = Counting::new(bundle("1"));
    let manager = warm(&source).await;
    let app = manager.app("orders").unwrap();
    let closing = reach(&manager);
    hooks(&manager).at("activation: before the swap", move || {
        closing().0.instances.close_all();
    });
    source.memory.replace(bundle("2"));
    while !hooks(&manager).all_reached() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.state(), State::Closed);
    assert_eq!(version(&app).await, None);
    tokio::time::sleep(GRACE).await;
    assert_eq!(manager.0.instances.shared.store.len(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_instance_closed_right_after_a_reload_is_closed() {
    let source = Counting::new(bundle("1"));
    let manager = warm(&source).await;
    let app = manager.app("orders").unwrap();
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    manager.0.instances.close_all();
    assert_eq!(app.state(), State::Closed);
    assert_eq!(version(&app).await, None);
}
