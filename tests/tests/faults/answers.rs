//! Every wrong answer of an HTTP server, to an app that serves its last good bundle and to one that
//! never had any, beside a healthy app of the same service and one of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opa_core::plugin::State;
use opa_core::{App, FailureClass, Manager};
use tests::bundle_server::{Answer, BundleServer};
use tokio::sync::Semaphore;

use super::world::{
    Healthy, LEAST_PAUSE, Watch, backed_off, build, builder, bundle, change_all, compared, print,
    until_failed, until_version, version,
};

/// How many faults are looked at at a time.
const AT_A_TIME: usize = 8;

/// One row of the table.
struct Fault {
    name: &'static str,
    answer: Answer,
    /// What the message contains.
    message: &'static str,
    http_code: Option<u16>,
    /// The least pause between two requests.
    pause: Duration,
}

impl Fault {
    /// What metrics call it.
    fn class(&self) -> FailureClass {
        match (self.http_code, self.message) {
            (Some(code), _) => FailureClass::of_status(code),
            (None, "archive read failed") => FailureClass::Archive,
            (None, "timeout awaiting response headers") => FailureClass::Timeout,
            (None, message) if message.starts_with("the body came slower") => FailureClass::Timeout,
            (None, _) => FailureClass::Network,
        }
    }
}

fn fault(name: &'static str, answer: Answer, message: &'static str) -> Fault {
    Fault {
        name,
        answer,
        message,
        http_code: None,
        pause: LEAST_PAUSE,
    }
}

fn status(name: &'static str, headers: &'static str, code: u16, message: &'static str) -> Fault {
    Fault {
        http_code: Some(code),
        ..fault(name, Answer::Status(code, headers), message)
    }
}

/// 200 with these header lines and this body.
fn ok(headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n");
    Answer::Raw([head.as_bytes(), body].concat())
}

fn cut(eighths: usize) -> Answer {
    let bundle = bundle("cut");
    ok(
        "content-type: application/gzip\r\n",
        &bundle[..bundle.len() * eighths / 8],
    )
}

fn head_of_half() -> Vec<u8> {
    let bundle = bundle("reset");
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        bundle.len()
    );
    [head.as_bytes(), &bundle[..bundle.len() / 2]].concat()
}

#[rustfmt::skip]
fn faults() -> Vec<Fault> {
    let slow = "the body came slower than 8192 bytes in 10s";
    let page = b"<!doctype html><title>Sign in</title><p>Accept the terms of this network.";
    let many: String = (0..2_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let large = format!("x-large: {}\r\n", "x".repeat(1 << 20));
    vec![
        // First what takes longest.
        fault("hangs in the body", Answer::HangInBody(bundle("slow")), slow),
        fault("trickles", Answer::Trickle(bundle("slow"), Duration::from_millis(250)), slow),
        status("401", "", 401, "server replied with Unauthorized"),
        status("401, asks for Basic", "www-authenticate: Basic realm=\"x\"\r\n", 401, "server replied with Unauthorized"),
        status("403", "", 403, "server replied with Forbidden"),
        status("404", "", 404, "server replied with Not Found"),
        Fault {
            pause: Duration::from_secs(1),
            ..status("429, Retry-After: 1", "retry-after: 1\r\n", 429, "server replied with Too Many Requests")
        },
        status("429", "", 429, "server replied with Too Many Requests"),
        status("500", "", 500, "server replied with Internal Server Error"),
        status("502", "", 502, "server replied with Bad Gateway"),
        Fault {
            pause: Duration::from_secs(2),
            ..status("503, Retry-After: 2", "retry-after: 2\r\n", 503, "server replied with Service Unavailable")
        },
        status("an unknown status", "", 599, "server replied with"),
        status("204", "", 204, "server replied with No Content"),
        fault("hangs before the head", Answer::Hang, "timeout awaiting response headers"),
        fault("half a head, then nothing", Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), "timeout awaiting response headers"),
        fault("closes without an answer", Answer::Close, "error sending request"),
        fault("closes in the body", Answer::BreakOff(bundle("half")), "the body broke off"),
        fault("reset before the head", Answer::Reset(Vec::new()), "error sending request"),
        fault("reset in the head", Answer::Reset(b"HTTP/1.1 200 OK\r\nconte".to_vec()), "error sending request"),
        fault("reset in the body", Answer::Reset(head_of_half()), "the body broke off"),
        fault("no HTTP", Answer::Raw(b"220 mail.example ESMTP ready\r\n".to_vec()), "error sending request"),
        fault("a sign-in page", ok("content-type: text/html\r\n", page), "archive read failed"),
        fault("JSON", ok("content-type: application/json\r\n", br#"{"result": {}}"#), "archive read failed"),
        fault("an empty body", ok("", b""), "archive read failed"),
        fault("gzip cut at 1/8", cut(1), "archive read failed"),
        fault("gzip cut at 2/8", cut(2), "archive read failed"),
        fault("gzip cut at 3/8", cut(3), "archive read failed"),
        fault("gzip cut at 4/8", cut(4), "archive read failed"),
        fault("gzip cut at 5/8", cut(5), "archive read failed"),
        fault("gzip cut at 6/8", cut(6), "archive read failed"),
        fault("gzip cut at 7/8", cut(7), "archive read failed"),
        fault("2,000 headers", ok(&many, &bundle("many")), "error sending request"),
        fault("a header of 1 MiB", ok(&large, &bundle("large")), "error sending request"),
        fault("redirects to nowhere", Answer::Status(302, "location: http://127.0.0.1:1/\r\n"), "error sending request"),
    ]
}

/// Two servers and the apps of one manager.
struct World {
    faulty: BundleServer,
    other: BundleServer,
    manager: Manager,
    good: App,
}

impl World {
    /// With an app `good` that serves revision 1.
    async fn start() -> World {
        let (faulty, other) = (BundleServer::start().await, BundleServer::start().await);
        let services = [
            ("good", faulty.url()),
            ("never", faulty.url()),
            ("same", faulty.url()),
            ("elsewhere", other.url()),
        ];
        let manager = build(builder(services)).await;
        faulty.answer("/good", Answer::Bundle(bundle("1")));
        faulty.answer("/never", Answer::Bundle(bundle("1")));
        let good = manager.app("good").unwrap();
        until_version(&good, "1").await;
        World {
            faulty,
            other,
            manager,
            good,
        }
    }

    fn healthy(&self) -> [Healthy<'_>; 2] {
        [
            Healthy::new(&self.manager, &self.faulty, "same"),
            Healthy::new(&self.manager, &self.other, "elsewhere"),
        ]
    }
}

/// Looks at one fault. Answers its row of the table.
async fn look_at(fault: Fault) -> String {
    let name = fault.name;
    let (world, twin) = (World::start().await, World::start().await);
    let server = &world.faulty;
    let before = server.requests_for("/good").len();
    for path in ["/good", "/never"] {
        server.answer(path, fault.answer.clone());
    }
    let started = Instant::now();
    let never = world.manager.app("never").unwrap();
    let _unhurt = twin.manager.app("never").unwrap();
    let good = &world.good;
    let (steady, closed) = (Watch::over(good, Some("1")), Watch::over(&never, None));

    // Half of the changes come before the fault is known, where that takes long.
    let [same, elsewhere] = world.healthy();
    let [same_without, elsewhere_without] = twin.healthy();
    let mut healthy = [same, same_without, elsewhere, elsewhere_without];
    change_all(&mut healthy).await;

    for app in [good, &never] {
        until_failed(app, fault.message, fault.http_code).await;
    }
    let failed = super::world::status(good);
    let said = failed.message.unwrap();
    assert_eq!(failed.class, Some(fault.class()), "{name}");
    assert_eq!(good.state(), State::Ready, "{name}");
    assert!(matches!(never.state(), State::Failed { .. }), "{name}");
    let revision = good.status().bundles[0].active_revision.clone();
    assert_eq!(revision.as_deref(), Some("1"), "{name}");
    steady.end(name).await;
    closed.end(name).await;
    let asked = backed_off(server, "/good", before, fault.pause);
    backed_off(server, "/never", 0, fault.pause);
    let rate = asked as f64 / started.elapsed().as_secs_f64();

    // The end of the fault: nobody helps.
    let [good_before, never_before] = ["/good", "/never"].map(|path| {
        server.answer(path, Answer::Bundle(bundle("2")));
        server.requests_for(path).len()
    });
    let mut recovered = Vec::new();
    for (app, path, before) in [
        (good, "/good", good_before),
        (&never, "/never", never_before),
    ] {
        until_version(app, "2").await;
        recovered.push(server.requests_for(path).len() - before);
        let status = super::world::status(app);
        assert_eq!(
            (status.code, status.message, status.http_code),
            (None, None, None),
            "{name}"
        );
    }
    // One is enough; a second one can be under way by the time that the decision is looked at.
    assert!(recovered.iter().all(|n| *n <= 2), "{name}: {recovered:?}");
    assert_eq!(version(&twin.good).await.as_deref(), Some("1"));

    let [same, same_without, elsewhere, elsewhere_without] = &healthy;
    format!(
        "{name} | yes | {}bundle_error: {} | {} | {} | {asked} ({rate:.1}/s) | {}, {}",
        fault
            .http_code
            .map_or(String::new(), |code| format!("{code} ")),
        said,
        compared(name, same, same_without),
        compared(name, elsewhere, elsewhere_without),
        recovered[0],
        recovered[1],
    )
}

#[tokio::test]
async fn each_wrong_answer_hurts_its_app_alone_and_ends_by_itself() {
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    let mut looking = Vec::new();
    for fault in faults() {
        let room = Arc::clone(&room);
        looking.push(tokio::spawn(async move {
            let _permit = room.acquire_owned().await.unwrap();
            look_at(fault).await
        }));
    }
    let mut table = vec![
        "fault | last good served | status | healthy app, same service: ratio of the median delay \
         (median/max) | other service | requests during the fault | recovered after n requests \
         (had one, never had one)"
            .to_owned(),
    ];
    let mut failed = 0;
    for row in looking {
        match row.await {
            Ok(row) => table.push(row),
            // It has said why.
            Err(_) => failed += 1,
        }
    }
    print(&table.join("\n"));
    assert_eq!(failed, 0, "faults that were not taken as they should be");
}
