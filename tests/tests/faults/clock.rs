//! A clock of the day that jumps by ten years, to and fro, between the polls of a signed bundle.
//!
//! How polls and retries go on is tested beside the scheduler, under paused time. Certificates are
//! judged by the system's clock, not by the injected one.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use opa_core::engine::Clock;
use opa_core::{Manager, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::peers::{self, Opa};
use tests::scripted::Scripted;

use super::world::{status, until_version, version};

const SECRET: &str = "a shared secret of enough bytes";

const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

#[derive(Clone, Debug)]
struct Jumping {
    wall: Arc<Mutex<SystemTime>>,
    origin: Instant,
}

impl Clock for Jumping {
    fn wall(&self) -> SystemTime {
        *self.wall.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A bundle that OPA has signed.
fn signed(opa: &Opa, revision: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (sources, built) = (folder.path().join("sources"), folder.path().join("built"));
    fs::create_dir_all(&sources).unwrap();
    let data = format!(r#"{{"version": "{revision}"}}"#);
    fs::write(sources.join("data.json"), data).unwrap();
    let key = ["--signing-alg", "HS256", "--signing-key", SECRET];
    let arguments = [&key[..], &["--revision", revision]].concat();
    opa.build_with(&sources, &built, &arguments);
    fs::read(built).unwrap()
}

#[tokio::test]
async fn signed_bundles_are_taken_whatever_the_day() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    let config = format!(
        "services: {{control: {{url: '{}'}}}}\n\
         keys: {{k: {{key: '{SECRET}', algorithm: HS256}}}}\n\
         bundles: {{b: {{resource: shop, signing: {{keyid: k}}, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
        server.url()
    );
    let clock = Jumping {
        wall: Arc::new(Mutex::new(SystemTime::now())),
        origin: Instant::now(),
    };
    let manager = Manager::builder().config_yaml(&config).clock(clock.clone());
    let manager = manager.engine(Scripted::data()).build().unwrap();
    server.answer("/shop", Answer::Bundle(signed(&opa, "0")));
    let app = manager.app("shop").unwrap();
    until_version(&app, "0").await;

    let today = clock.wall();
    for (revision, day) in [
        ("1", today + DECADE),
        ("2", today - DECADE),
        ("3", today),
        ("4", SystemTime::UNIX_EPOCH),
        ("5", today + 100 * DECADE),
    ] {
        *clock.wall.lock().unwrap() = day;
        server.answer("/shop", Answer::Bundle(signed(&opa, revision)));
        until_version(&app, revision).await;
        let status = status(&app);
        assert_eq!(status.message, None, "{revision}");
        assert_eq!(status.last_successful_activation, Some(day), "{revision}");
        assert_eq!(status.last_request, Some(day), "{revision}");
    }
    // By interval as before: a jump brings no question sooner.
    for pair in server.requests_for("/shop").windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }

    // One that was tampered with stays what it is.
    let mut tampered = signed(&opa, "6");
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    server.answer("/shop", Answer::Bundle(tampered));
    super::world::until_failed(&app, "", None).await;
    assert_eq!(version(&app).await.as_deref(), Some("5"));
    assert_eq!(app.decide("x", Value::NULL).await.revision(), Some("5"));
}
