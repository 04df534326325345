//! Many apps of one service that fail at the same time: what they ask, what they cost, and who waits
//! for them.

use std::time::{Duration, Instant};

use tests::bundle_server::{Answer, BundleServer};

use super::world::{
    Healthy, LEAST_PAUSE, backed_off, build, builder, bundle, compared, print, until, until_failed,
};

/// How often each healthy app changes.
const CHANGES: usize = 6;

struct Fault {
    name: &'static str,
    apps: usize,
    answer: Answer,
    message: &'static str,
    /// Each of them takes the room of a download until the service's timeout.
    hangs: bool,
}

/// The processor's time of this thread, which has all that runs here: the apps and their server.
#[cfg(target_os = "linux")]
fn cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Option<Duration> {
    None
}

async fn look_at(fault: Fault) {
    let name = fault.name;
    let (faulty, other, twin) = (
        BundleServer::start().await,
        BundleServer::start().await,
        BundleServer::start().await,
    );
    let names: Vec<_> = (0..fault.apps).map(|n| format!("bad-{n}")).collect();
    let services = |url: String| {
        let bad = names.iter().map(move |name| (&**name, url.clone()));
        bad.collect::<Vec<_>>()
    };
    let healthy = |server: &BundleServer| vec![("same", server.url()), ("elsewhere", other.url())];
    let all = [services(faulty.url()), healthy(&faulty)].concat();
    let manager = build(builder(all)).await;
    let without = build(builder(healthy(&twin))).await;
    let mut healthy = [
        Healthy::new(&manager, &faulty, "same"),
        Healthy::new(&without, &twin, "same"),
        Healthy::new(&manager, &other, "elsewhere"),
    ];
    for one in &mut healthy {
        one.warm_up().await;
    }

    let mut bad = Vec::new();
    for name in &names {
        faulty.answer(&format!("/{name}"), fault.answer.clone());
        bad.push(manager.app(&**name).unwrap());
    }
    let (began, before) = (Instant::now(), cpu());
    for app in &bad {
        until_failed(app, fault.message, None).await;
    }
    // Until retries are as far apart as they get.
    let enough = fault.apps * if fault.hangs { 2 } else { 10 };
    until("retries", || faulty.request_count() > enough).await;
    let (took, spent) = (began.elapsed(), cpu().zip(before));
    for _ in 0..CHANGES {
        for one in &mut healthy {
            one.change().await;
        }
    }
    let asked: usize = names
        .iter()
        .map(|name| backed_off(&faulty, &format!("/{name}"), 0, LEAST_PAUSE))
        .sum();
    let rate = asked as f64 / fault.apps as f64 / began.elapsed().as_secs_f64();
    assert!(rate < 10.0, "{name}: {rate} requests a second by each");
    let share = spent.map(|(after, before)| (after - before).as_secs_f64() / took.as_secs_f64());
    // A loop that waits for nothing would have a whole core.
    assert!(share.is_none_or(|share| share < 0.9), "{name}: {share:?}");

    let [same, same_without, elsewhere] = &healthy;
    print(&format!(
        "{} apps: {name} | {rate:.1} requests/s each | {:.0}% of a core, with the server | \
         same service {} | other service {}",
        fault.apps,
        share.unwrap_or_default() * 100.0,
        compared(name, same, same_without),
        compared(name, elsewhere, same_without),
    ));
    for name in &names {
        faulty.answer(&format!("/{name}"), Answer::Bundle(bundle("good")));
    }
    for app in &bad {
        super::world::until_version(app, "good").await;
    }
}

#[tokio::test]
async fn a_hundred_that_fail_at_once_leave_room_for_others_of_their_service() {
    let fault = |name, answer, message| Fault {
        name,
        answer,
        message,
        apps: 100,
        hangs: false,
    };
    let broken = Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nbroken".to_vec());
    tokio::join!(
        look_at(fault(
            "close without an answer",
            Answer::Close,
            "error sending request"
        )),
        look_at(fault("have a broken bundle", broken, "archive read failed")),
    );
}

#[tokio::test]
async fn many_that_hang_leave_room_for_others_of_their_service() {
    look_at(Fault {
        name: "hang before the head",
        answer: Answer::Hang,
        message: "timeout awaiting response headers",
        apps: 40,
        hangs: true,
    })
    .await;
}
