//! `Retry-After`: what is honoured, and what is not believed.

use std::time::{Duration, Instant, SystemTime};

use opa_core::App;
use opa_core::engine::Clock;
use opa_core::plugin::State;
use tests::bundle_server::{Answer, BundleServer};

use super::world::{
    LEAST_PAUSE, builder, bundle, status, until, until_failed, until_version, version,
};

/// A clock that stands, so that the time of the next try tells the delay.
#[derive(Debug)]
struct Stands(SystemTime);

impl Clock for Stands {
    fn wall(&self) -> SystemTime {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn refusal(header: &str) -> Answer {
    let head = format!("HTTP/1.1 429 Too Many Requests\r\n{header}content-length: 0\r\n\r\n");
    Answer::Raw(head.into_bytes())
}

fn retry_at(app: &App) -> Option<SystemTime> {
    match app.state() {
        State::Failed { retry_at, .. } => retry_at,
        _ => None,
    }
}

#[tokio::test]
async fn a_wait_is_honoured_up_to_an_hour_and_nonsense_is_not() {
    let hour = Duration::from_secs(60 * 60);
    let exactly = |delay| (delay, delay);
    // The backoff: its cap is the longest interval, here a second.
    let backoff = (LEAST_PAUSE, Duration::from_secs(1));
    let cases = [
        ("retry-after: 30\r\n", exactly(Duration::from_secs(30))),
        ("retry-after:   30  \r\n", exactly(Duration::from_secs(30))),
        ("retry-after: 3600\r\n", exactly(hour)),
        ("retry-after: 1000000000\r\n", exactly(hour)),
        ("retry-after: 99999999999999999999\r\n", exactly(hour)),
        (
            "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
            exactly(hour),
        ),
        ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", backoff),
        ("retry-after: 0\r\n", backoff),
        ("retry-after: -30\r\n", backoff),
        ("retry-after: 2.5\r\n", backoff),
        ("retry-after: soon\r\n", backoff),
        ("retry-after: \r\n", backoff),
        ("retry-after: \u{fc}\r\n", backoff),
        ("", backoff),
    ];
    let server = BundleServer::start().await;
    let names: Vec<_> = (0..cases.len()).map(|n| format!("a{n}")).collect();
    let services = names.iter().map(|name| (&**name, server.url()));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let manager = builder(services).clock(Stands(now)).build().unwrap();
    let mut apps = Vec::new();
    for (name, (header, _)) in names.iter().zip(&cases) {
        server.answer(&format!("/{name}"), refusal(header));
        apps.push(manager.app(&**name).unwrap());
    }
    for (app, (header, (least, most))) in apps.iter().zip(cases) {
        until_failed(app, "server replied with Too Many Requests", Some(429)).await;
        let delay = retry_at(app).unwrap().duration_since(now).unwrap();
        assert!(least <= delay && delay <= most, "{header}: {delay:?}");
    }
}

/// By the server's clock: nothing is asked before the date, and it goes on after it.
#[tokio::test]
async fn a_date_is_waited_for_while_the_last_good_bundle_serves() {
    let server = BundleServer::start().await;
    server.answer("/shop", Answer::Bundle(bundle("1")));
    let manager = builder([("shop", server.url())]).build().unwrap();
    let app = manager.app("shop").unwrap();
    until_version(&app, "1").await;

    let date = SystemTime::now() + Duration::from_secs(4);
    let header = format!("retry-after: {}\r\n", httpdate::fmt_http_date(date));
    // The date has no fractions of a second.
    let date = httpdate::parse_http_date(&httpdate::fmt_http_date(date)).unwrap();
    let not_before = Instant::now() + date.duration_since(SystemTime::now()).unwrap();
    server.answer("/shop", refusal(&header));
    until_failed(&app, "server replied with Too Many Requests", Some(429)).await;
    let asked = server.requests_for("/shop").len();
    assert_eq!(version(&app).await.as_deref(), Some("1"));

    server.answer("/shop", Answer::Bundle(bundle("2")));
    until("it is asked again", || {
        server.requests_for("/shop").len() > asked
    })
    .await;
    let next = server.requests_for("/shop").swap_remove(asked).at;
    // The wait is counted from the moment at which the answer was read: a little later.
    assert!(next >= not_before, "{:?} too early", not_before - next);
    until_version(&app, "2").await;
    assert_eq!(status(&app).message, None);
}
