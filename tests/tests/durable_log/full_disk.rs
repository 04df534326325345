//! A disk that is full: what is configured is done, and it goes on when there is room.

use opa_core::engine::{Module, Outcome};
use opa_core::{App, Manager, Reason, Value};
use opa_plugins::decision_logs::AppCounts;
use opa_plugins::decision_logs::spool::SpoolConfig;
use tests::log_sink::{Answer, LogSink};
use tests::mount::Mount;
use tests::scripted::Scripted;

use super::{LONG, assert_adds_up, events, until};

type Counts = Box<dyn Fn() -> AppCounts + Send + Sync>;

struct Shop {
    manager: Manager,
    app: App,
    counts: Counts,
    sink: LogSink,
    mount: Mount,
    decided: u64,
}

impl Shop {
    /// With a dead service and a disk of 2 MB; `None` where there can't be one.
    async fn new(log: &str) -> Option<Self> {
        let mount = Mount::new("size=2m,mode=700")?;
        let sink = LogSink::start().await.unwrap();
        sink.script([], Answer::Status(503));
        let config = format!(
            "services: {{sink: {{url: '{}'}}}}\nbundles: {{}}\n\
             decision_logs: {{service: sink, {log}, reporting: {{trigger: immediate, \
               min_delay_seconds: 1, max_delay_seconds: 1}}}}",
            sink.url()
        );
        let mut spool = SpoolConfig::new(mount.path());
        spool.max_bytes = 16 << 20;
        spool.max_pending_bytes = 256 << 10;
        let plugin = opa_plugins::decision_logs().spool(spool);
        let counts = plugin.app_counts();
        let counts: Counts = Box::new(move || counts().first().map(|it| it.2).unwrap_or_default());
        let manager = Manager::builder()
            .config_yaml(&config)
            .in_memory([Module::v1("a.rego", "package a")], Value::empty_object())
            .unwrap()
            .engine(Scripted::new(|asked, _| match asked.path.as_str() {
                "a/b" => Outcome::Value(Value::from(true)),
                _ => Outcome::Undefined,
            }))
            .plugin(plugin)
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        Some(Self {
            manager,
            app,
            counts,
            sink,
            mount,
            decided: 0,
        })
    }

    /// Whether a decision was admitted.
    async fn decide(&mut self) -> bool {
        let text = Value::from("x".repeat(8 << 10));
        let input = Value::object([(Value::from("text"), text)]);
        let decision = self.app.decide("a/b", input).await;
        self.decided += 1;
        until("it is encoded", || (self.counts)().buffered < 50).await;
        match decision.reason() {
            Reason::Decided => true,
            Reason::LogUnavailable => false,
            other => panic!("{other:?}"),
        }
    }

    /// The disk has room, and the service is back: nothing more is lost than was by now.
    async fn recover(mut self, refused: u64) {
        self.mount.remount("remount,size=64m");
        let deciding = async { while !self.decide().await {} };
        tokio::time::timeout(LONG, deciding).await.unwrap();
        self.sink.script([], Answer::Status(200));
        until("it is delivered", || {
            let counts = (self.counts)();
            counts.spooled + counts.buffered == 0
        })
        .await;
        self.manager.shutdown(LONG).await;
        let counts = (self.counts)();
        assert_adds_up(&counts);
        assert!(counts.refused >= refused);
        let events = events(&self.sink);
        assert_eq!(events.len() as u64, counts.delivered, "{counts:?}");
        println!("{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_dropped_as_configured() {
    for log in [
        "when_full: drop_oldest",
        "when_full: drop_newest",
        "when_full: sample",
        "when_full: drop_newest, durability: before_response",
    ] {
        let Some(mut shop) = Shop::new(log).await else {
            return;
        };
        for _ in 0..600 {
            assert!(shop.decide().await, "{log}");
        }
        until("it is encoded", || (shop.counts)().buffered == 0).await;
        let counts = (shop.counts)();
        assert_adds_up(&counts);
        assert!(counts.buffer_full > 100, "{log}: {counts:?}");
        assert!(counts.spooled > 50, "{log}: {counts:?}");
        assert_eq!(counts.refused, 0);
        shop.recover(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_refused_and_none_is_lost() {
    for log in [
        "when_full: deny",
        "when_full: hold, hold_deadline_ms: 20",
        "when_full: deny, durability: before_response",
        "durability: before_response, hold_deadline_ms: 20",
    ] {
        let Some(mut shop) = Shop::new(log).await else {
            return;
        };
        let mut refused = 0;
        while refused < 20 {
            if !shop.decide().await {
                refused += 1;
            }
            assert!(shop.decided < 2_000, "{log}");
        }
        let counts = (shop.counts)();
        assert_adds_up(&counts);
        assert_eq!(counts.lost(), counts.refused, "{log}: {counts:?}");
        // One whose record could not be written was in the log already.
        assert!(counts.refused >= 10, "{log}: {counts:?}");
        shop.recover(counts.refused).await;
    }
}
