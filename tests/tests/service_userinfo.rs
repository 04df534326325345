//! User and password in a service's URL: sent as real OPA sends them, and told to nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::{Manager, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::log_sink::LogSink;
use tests::peers;
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

/// The bundles, and the service of each.
const BUNDLES: [(&str, &str); 7] = [
    ("plain", "both"),
    ("relative", "both"),
    ("absolute", "both"),
    ("user", "user"),
    ("password", "password"),
    ("header", "header"),
    ("bearer", "bearer"),
];

/// By path, what `Authorization` came; each path is asked in one way.
type Seen = BTreeMap<String, Option<String>>;

/// A control plane for one program.
struct World {
    bundles: BundleServer,
    /// Where a redirect leads out.
    other: BundleServer,
    sink: LogSink,
}

impl World {
    async fn start() -> Self {
        let (bundles, other) = (BundleServer::start().await, BundleServer::start().await);
        let archive = |name: &str| {
            let data = Value::object([("version".into(), "1".into())]);
            let bundle = BundleWriter::new().roots([name]).unwrap();
            Answer::Bundle(bundle.data(name, &data).unwrap().to_vec().unwrap())
        };
        for (name, service) in BUNDLES {
            bundles.answer(&format!("/{service}/{name}"), archive(name));
        }
        let redirect =
            |location: &str| Answer::Status(307, String::leak(format!("location: {location}\r\n")));
        bundles.answer("/both/relative", redirect("/to/relative"));
        bundles.answer("/to/relative", archive("relative"));
        let absolute = format!("{}/to/absolute", bundles.url());
        bundles.answer("/both/absolute", redirect(&absolute));
        bundles.answer("/to/absolute", archive("absolute"));
        bundles.answer("/both/away", redirect(&format!("{}/away", other.url())));
        other.answer("/away", archive("away"));
        let sink = LogSink::start().await.unwrap();
        Self {
            bundles,
            other,
            sink,
        }
    }

    fn config(&self) -> String {
        let at = |url: String, userinfo: &str| url.replace("://", &format!("://{userinfo}@"));
        let service = |name: &str, userinfo: &str, more: &str| {
            let url = at(self.bundles.url(), userinfo);
            format!("  {name}: {{url: '{url}/{name}'{more}}}\n")
        };
        let services = [
            service("both", "us%65r:p%40ss:w", ""),
            service("user", "user", ""),
            service("password", ":password", ""),
            service(
                "header",
                "user:password",
                ", headers: {Authorization: Own x}",
            ),
            service(
                "bearer",
                "user:password",
                ", credentials: {bearer: {token: t}}",
            ),
            format!("  sink: {{url: '{}'}}\n", at(self.sink.url(), "log:pass")),
        ];
        let bundles = BUNDLES.iter().chain([&("away", "both")]);
        let bundles = bundles
            .map(|(name, service)| format!("  {name}: {{service: {service}, resource: {name}}}\n"));
        format!(
            "services:\n{}bundles:\n{}status: {{service: sink}}\ndecision_logs: {{service: sink, \
             reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}\n",
            services.concat(),
            bundles.collect::<String>()
        )
    }

    /// What came, once a decision's log and a status did.
    async fn seen(&self) -> Seen {
        let mut posts = Seen::new();
        let both = self.sink.wait(|post| {
            let header = post.headers.get("authorization");
            let header = header.map(|it| it.to_str().unwrap().to_owned());
            posts.insert(post.path.clone(), header);
            (posts.len() == 2).then_some(())
        });
        both.await.unwrap();
        let mut seen = posts;
        for request in [self.bundles.requests(), self.other.requests()].concat() {
            let header = request.header("authorization").map(str::to_owned);
            let before = seen.insert(request.path.clone(), header.clone());
            assert!(before.is_none_or(|it| it == header), "{request:?}");
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_sent_as_by_opa() {
    let world = World::start().await;
    let ours = {
        let manager = Manager::builder()
            .config_yaml(&world.config())
            .engine(Scripted::data())
            .plugin(opa_plugins::decision_logs())
            .plugin(opa_plugins::status())
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        app.decide("plain/version", Value::empty_object()).await;
        world.seen().await
    };
    assert_eq!(ours["/logs"].as_deref(), Some("Basic bG9nOnBhc3M="));
    assert_eq!(ours["/to/absolute"], None);
    assert_eq!(ours["/away"], None);
    assert_eq!(ours.len(), 2 + BUNDLES.len() + 2 + 2, "{ours:?}");

    let Some(opa) = peers::opa() else { return };
    let world = World::start().await;
    let opa = opa.serve(&world.config()).await;
    opa.decide("plain/version", &serde_json::json!({})).await;
    assert_eq!(ours, world.seen().await);
}
