//! Faults of the network, by the real Toxiproxy between apps and servers.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use opa_core::plugin::State;
use opa_core::{App, Manager};
use serde_json::{Value, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::peers::{self, RunningToxiproxy};

use super::world::{
    Healthy, Watch, build, builder, bundle, change_all, compared, print, status, until_failed,
    until_version,
};

/// What happens between the app and its server.
#[derive(Clone)]
struct Fault {
    toxic: &'static str,
    attributes: Value,
    message: &'static str,
}

fn faults() -> Vec<Fault> {
    let fault = |toxic, attributes, message| Fault {
        toxic,
        attributes,
        message,
    };
    vec![
        fault("down", Value::Null, "Connection refused"),
        fault("reset_peer", json!({"timeout": 0}), "error sending request"),
        fault(
            "timeout",
            json!({"timeout": 0}),
            "timeout awaiting response headers",
        ),
        fault(
            "latency",
            json!({"latency": 5000}),
            "timeout awaiting response headers",
        ),
        // The head and a part of the body.
        fault("limit_data", json!({"bytes": 200}), "the body broke off"),
    ]
}

/// Two servers behind proxies, and the apps of one manager.
struct World<'a> {
    proxies: &'a RunningToxiproxy,
    faulty: BundleServer,
    other: BundleServer,
    faulty_proxy: String,
    manager: Manager,
}

impl World<'_> {
    async fn start<'a>(proxies: &'a RunningToxiproxy, name: &str) -> World<'a> {
        let (faulty, other) = (BundleServer::start().await, BundleServer::start().await);
        let faulty_proxy = format!("{name}-faulty");
        let proxy = async |name: &str, server: &BundleServer| {
            let upstream = server.url().replace("http://", "").parse().unwrap();
            format!("http://{}", proxies.proxy(name, upstream).await)
        };
        let through = proxy(&faulty_proxy, &faulty).await;
        let elsewhere = proxy(&format!("{name}-other"), &other).await;
        let services = [
            ("good", through.clone()),
            ("never", through),
            ("elsewhere", elsewhere),
        ];
        World {
            proxies,
            faulty,
            other,
            faulty_proxy,
            manager: build(builder(services)).await,
        }
    }

    /// An app that serves revision 1.
    async fn good(&self) -> App {
        self.faulty.answer("/good", Answer::Bundle(bundle("1")));
        let good = self.manager.app("good").unwrap();
        until_version(&good, "1").await;
        good
    }

    /// Revision 2, which can't be had as long as there is a fault.
    fn publish(&self) {
        for path in ["/good", "/never"] {
            self.faulty.answer(path, Answer::Bundle(bundle("2")));
        }
    }

    async fn begin(&self, fault: &Fault) {
        match fault.toxic {
            "down" => self.proxies.enable(&self.faulty_proxy, false).await,
            toxic => {
                let attributes = fault.attributes.clone();
                self.proxies
                    .poison(&self.faulty_proxy, toxic, attributes)
                    .await;
            }
        }
    }

    async fn end(&self, fault: &Fault) {
        match fault.toxic {
            "down" => self.proxies.enable(&self.faulty_proxy, true).await,
            toxic => self.proxies.cure(&self.faulty_proxy, toxic).await,
        }
    }
}

async fn look_at(proxies: &RunningToxiproxy, fault: Fault) -> String {
    let name = fault.toxic;
    let world = World::start(proxies, name).await;
    let twin = World::start(proxies, &format!("{name}-twin")).await;
    let (good, good_without) = (world.good().await, twin.good().await);
    world.begin(&fault).await;
    world.publish();
    let never = world.manager.app("never").unwrap();
    let (steady, closed) = (Watch::over(&good, Some("1")), Watch::over(&never, None));
    let (asked, began) = (world.faulty.request_count(), Instant::now());
    let mut healthy = [&world, &twin].map(|it| Healthy::new(&it.manager, &it.other, "elsewhere"));
    change_all(&mut healthy).await;
    for app in [&good, &never] {
        until_failed(app, fault.message, None).await;
    }
    let said = status(&good).message.unwrap();
    assert_eq!(good.state(), State::Ready, "{name}");
    assert!(matches!(never.state(), State::Failed { .. }), "{name}");
    steady.end(name).await;
    closed.end(name).await;
    let asked = world.faulty.request_count() - asked;
    let rate = asked as f64 / 2.0 / began.elapsed().as_secs_f64();
    assert!(rate < 20.0, "{name}: {rate} requests a second by one app");

    let before = ["/good", "/never"].map(|path| world.faulty.requests_for(path).len());
    world.end(&fault).await;
    for (app, path, before) in [(&good, "/good", before[0]), (&never, "/never", before[1])] {
        until_version(app, "2").await;
        let needed = world.faulty.requests_for(path).len() - before;
        // One may be lost on a connection of before.
        assert!(needed <= 3, "{name} {path}: {needed}");
        assert_eq!(status(app).message, None);
    }
    drop(good_without);
    let [with, without] = &healthy;
    format!(
        "toxiproxy: {name} | yes | bundle_error: {said} | - | {} | {asked} by two apps \
         ({rate:.1}/s each)",
        compared(name, with, without)
    )
}

#[tokio::test]
async fn each_fault_of_the_network_hurts_its_service_alone_and_ends_by_itself() {
    let Some(toxiproxy) = peers::toxiproxy() else {
        return;
    };
    let proxies = toxiproxy.start().await;
    let mut table = vec![
        "fault | last good served | status | healthy app, same service | other service: ratio of \
         the median delay (median/max) | requests that reached the server"
            .to_owned(),
    ];
    let [down, reset, timeout, latency, limit] = <[Fault; 5]>::try_from(faults()).ok().unwrap();
    let rows = tokio::join!(
        look_at(&proxies, down),
        look_at(&proxies, reset),
        look_at(&proxies, timeout),
        look_at(&proxies, latency),
        look_at(&proxies, limit),
    );
    table.extend([rows.0, rows.1, rows.2, rows.3, rows.4]);
    print(&table.join("\n"));
}

const APPS: usize = 100;

const RELOADS: usize = 5;

/// A manager of apps that reload, `<ok>-…`, and apps that fail, `bad-…`.
async fn manager_of_200(
    ok: &str,
    clear: SocketAddr,
    bad: &[SocketAddr],
) -> (Manager, Vec<App>, Vec<App>) {
    let kind = ok;
    let ok = (0..APPS).map(|n| (format!("{ok}-{n}"), format!("http://{clear}")));
    let bad = (0..APPS).map(|n| (format!("bad-{n}"), format!("http://{}", bad[n % bad.len()])));
    let services: Vec<_> = ok.chain(bad).collect();
    let named = services.iter().map(|(name, url)| (&**name, url.clone()));
    let manager = build(builder(named)).await;
    let apps = |kind: &str| {
        let apps = (0..APPS).map(|n| manager.app(format!("{kind}-{n}")).unwrap());
        apps.collect()
    };
    let (ok, bad) = (apps(kind), apps("bad"));
    (manager, ok, bad)
}

fn publish(root: &Path, kind: &str, version: &str) {
    for n in 0..APPS {
        let part = root.join("part");
        fs::write(&part, bundle(version)).unwrap();
        peers::renew(&part);
        fs::rename(part, root.join(format!("{kind}-{n}"))).unwrap();
    }
}

/// How long it takes until all of them have served each of the versions to come. They are looked
/// at by themselves: what another manager's polls are about to do doesn't count for them.
async fn reload(root: &Path, kind: &str, apps: &[App]) -> Duration {
    let mut total = Duration::ZERO;
    for version in 1..=RELOADS {
        let version = version.to_string();
        publish(root, kind, &version);
        total += until_all(apps, &version).await;
    }
    total
}

/// How long it takes until all of them serve it.
async fn until_all(apps: &[App], version: &str) -> Duration {
    let started = Instant::now();
    for app in apps {
        until_version(app, version).await;
    }
    started.elapsed()
}

#[tokio::test]
async fn a_hundred_apps_reload_while_a_hundred_others_fail() {
    let (Some(toxiproxy), Some(nginx)) = (peers::toxiproxy(), peers::nginx()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for kind in ["ok", "twin", "bad"] {
        publish(root, kind, "0");
    }
    let (nginx, proxies) = (nginx.serve(root).await, toxiproxy.start().await);
    let upstream = nginx.address();
    let mut bad = Vec::new();
    for kind in ["timeout", "reset_peer", "latency"] {
        bad.push(proxies.proxy(kind, upstream).await);
    }
    let clear = proxies.proxy("clear", upstream).await;
    let clear_of_twin = proxies.proxy("clear-of-twin", upstream).await;
    let (_manager, ok, failing) = manager_of_200("ok", clear, &bad).await;
    let (_twin, ok_without, fine) = manager_of_200("twin", clear_of_twin, &[clear_of_twin]).await;
    for apps in [&ok, &ok_without, &failing, &fine] {
        until_all(apps, "0").await;
    }

    for (kind, attributes) in [
        ("timeout", json!({"timeout": 0})),
        ("reset_peer", json!({"timeout": 0})),
        ("latency", json!({"latency": 5000})),
    ] {
        proxies.poison(kind, kind, attributes).await;
    }
    publish(root, "bad", "1");
    for app in &failing {
        until_failed(app, "", None).await;
    }
    let watches: Vec<_> = failing
        .iter()
        .step_by(10)
        .map(|app| Watch::over(app, Some("0")))
        .collect();
    let (with, without) = tokio::join!(reload(root, "ok", &ok), reload(root, "twin", &ok_without));
    for watch in watches {
        watch.end("an app that fails").await;
    }
    for app in &failing {
        let status = status(app);
        assert_eq!(status.active_revision.as_deref(), Some("0"));
        assert_eq!(status.code, Some("bundle_error"));
    }
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    print(&format!(
        "{APPS} apps reload {RELOADS} times while {APPS} others fail (toxiproxy: timeout, \
         reset_peer, latency): until all have it {:.2} s on average, without the failing ones \
         {:.2} s: ratio {ratio:.2}",
        with.as_secs_f64() / RELOADS as f64,
        without.as_secs_f64() / RELOADS as f64,
    ));
    // By interval of a second both: a healthy app that waited for a failing one's timeout or
    // backoff would need several.
    assert!(ratio < 3.0, "{with:?} {without:?}");
    // Each of the two managers got each revision of each app once.
    let sent = nginx.accesses();
    let sent = sent
        .iter()
        .filter(|line| line.contains("/ok-") || line.contains("/twin-"))
        .filter(|line| line.contains(" 200 "));
    assert_eq!(sent.count(), 2 * APPS * (RELOADS + 1));

    for kind in ["timeout", "reset_peer", "latency"] {
        proxies.cure(kind, kind).await;
    }
    let recovered = until_all(&failing, "1").await;
    print(&format!(
        "the {APPS} failing apps recover within {recovered:.1?}"
    ));
    for app in &failing {
        assert_eq!(status(app).message, None);
    }
}
