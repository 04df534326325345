//! From a changed policy to a changed decision without a line of code: a directory of policies, the
//! real `opa build` that signs it, a real server of each kind, and `serve` with a configuration
//! file. The same file in the real OPA makes the same decisions.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tests::certificates::Authority;
use tests::http_client::{get, send};
use tests::oci_registry::LAYER;
use tests::peers::{self, Opa, PASSWORD, RunningOpa, USER};
use tests::serve::Serve;
use tests::signing::{self, Files, Key};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// A policy directory that lets one user in, with the entrypoint that is the default.
fn policies(user: &str) -> Files {
    let policy = format!(
        "package envoy.authz\n\n\
         default allow := false\n\n\
         allow if {{\n\
         \tuser := input.attributes.request.http.headers[\"x-user\"]\n\
         \tdata.shop.roles[user] == \"reader\"\n\
         \tuser == \"{user}\"\n\
         }}\n"
    );
    let roles = json!({"roles": {"ann": "reader", "bob": "reader", "eve": "reader"}});
    [
        (".manifest", json!({"roots": ["envoy", "shop"]}).to_string()),
        ("authz.rego", policy),
        ("shop/data.json", roles.to_string()),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

/// The configuration file: how the bundle is verified is the same for each kind of server.
fn configuration(service: &str, resource: &str, key: &Key) -> String {
    format!(
        "services:\n  control:\n    url: ${{CONTROL}}\n    {service}\n\
         bundles:\n  authz:\n    service: control\n    resource: {resource}\n    \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}\n    \
           signing: {{keyid: release}}\n\
         keys: {}\n\
         decision_logs: {{console: true}}\n",
        json!({"release": key.configured()}),
    )
}

/// `serve` and OPA with the same file.
struct Both {
    ours: Serve,
    theirs: RunningOpa,
    /// How many requests have a path of their own.
    asked: usize,
}

impl Both {
    /// Once both have a bundle. Our configuration may read those of the variables that are named
    /// in it.
    async fn start(opa: &Opa, configuration: &str, variables: &[(&str, &str)]) -> Both {
        let named = |name: &str| configuration.contains(&format!("${{{name}}}"));
        let named = variables.iter().filter(|(name, _)| named(name));
        let named = named.flat_map(|(name, _)| ["--allow-env", name]);
        let arguments: Vec<_> = ["--app", "shop"].into_iter().chain(named).collect();
        let mut ours = Serve::start_in(variables, configuration, &arguments).await;
        ours.ready().await;
        let theirs = opa
            .serve_in(variables, configuration, "/health?bundles")
            .await;
        Both {
            ours,
            theirs,
            asked: 0,
        }
    }

    /// Whether a request of this user gets through.
    async fn ours(&self, user: &str, path: &str) -> bool {
        let request = Request::get(path).header("x-user", user);
        let request = request.body(Bytes::new()).unwrap();
        let response = send(self.ours.address(), request).await.unwrap();
        match response.status() {
            StatusCode::OK => true,
            StatusCode::FORBIDDEN => false,
            status => panic!("{status} for {user}"),
        }
    }

    async fn opas(&self, input: &Value) -> bool {
        let decision = self.theirs.decide("envoy/authz/allow", input).await;
        decision.as_ref().and_then(Value::as_bool).unwrap()
    }

    /// Waits until both let this user in and nobody else, by this revision.
    async fn until_only(&mut self, user: &str, revision: &str) {
        let input = json!({"attributes": {"request": {"http": {"headers": {"x-user": user}}}}});
        let waited = async {
            while !(self.ours(user, "/").await && self.opas(&input).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waited).await;
        assert!(waited.is_ok(), "{user} never gets in by {revision}");
        self.only(user, revision).await;
    }

    /// Both let this user in and nobody else: OPA is asked with the very input that we decided on,
    /// and both log the same revision and result.
    async fn only(&mut self, user: &str, revision: &str) {
        for asked in ["ann", "bob", "eve", "mallory"] {
            self.asked += 1;
            let path = format!("/{}", self.asked);
            assert_eq!(self.ours(asked, &path).await, asked == user, "{asked}");
            let ours = self.event_of(&path).await;
            assert_eq!(self.opas(&ours["input"]).await, asked == user, "{asked}");
            let theirs = self.opas_event_of(&path).await;
            assert_eq!(ours["bundles"], json!({"authz": {"revision": revision}}));
            assert_eq!(ours["bundles"], theirs["bundles"]);
            assert_eq!(ours["path"], theirs["path"]);
            assert_eq!(ours["result"], theirs["result"]);
        }
    }

    /// The latest event of our decision log about a request of this path.
    async fn event_of(&mut self, path: &str) -> Value {
        loop {
            let events = self.ours.next_events().await.unwrap();
            if let Some(event) = about(events, path) {
                return event;
            }
        }
    }

    async fn opas_event_of(&mut self, path: &str) -> Value {
        let log = self.theirs.process().stderr_file();
        let probe = async || about(peers::decision_logs(&fs::read_to_string(&log).ok()?), path);
        let event = self.theirs.process().until("logging it", probe).await;
        event.unwrap()
    }

    /// What our admin address tells of the bundle.
    async fn bundle(&self) -> Value {
        let apps = get(self.ours.admin(), "/-/apps").await.unwrap();
        let apps: Value = serde_json::from_slice(apps.body()).unwrap();
        assert_eq!(apps[0]["state"], "ready", "{apps}");
        apps[0]["bundles"]["authz"].clone()
    }

    /// Waits until both tell why they refuse a bundle. Ours still serves this revision.
    async fn until_refused(&mut self, why: &str, revision: &str) {
        let refused = |bundle: &Value| bundle["message"].as_str().is_some_and(|m| m.contains(why));
        let bundle = self.until_bundle(why, refused).await;
        assert_eq!(bundle["code"], "bundle_error");
        assert_eq!(bundle["revision"], revision);
        let log = self.theirs.process().stderr_file();
        let probe = async || {
            let text = fs::read_to_string(&log).ok()?;
            text.contains(why).then_some(())
        };
        self.theirs.process().until(why, probe).await.unwrap();
    }

    async fn until_bundle(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waited = async {
            loop {
                let bundle = self.bundle().await;
                if holds(&bundle) {
                    return bundle;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waited).await;
        waited.unwrap_or_else(|_| panic!("never: {what}"))
    }
}

fn about(events: Vec<Value>, path: &str) -> Option<Value> {
    let mut events = events.into_iter().rev();
    events.find(|event| event["input"]["attributes"]["request"]["http"]["path"] == path)
}

/// What is published, one after the other, and what both make of it.
async fn follow(
    opa: &Opa,
    configuration: impl Fn(&Key) -> String,
    variables: &[(&str, &str)],
    publish: impl AsyncFn(Vec<u8>),
) {
    let (key, other) = (Key::new("RS256"), Key::new("RS256"));
    let signed = |user: &str, revision: &str, key: &Key| {
        signing::build(opa, &policies(user), revision, key, &json!({}))
    };
    publish(signed("ann", "r1", &key)).await;
    let mut both = Both::start(opa, &configuration(&key), variables).await;
    both.until_only("ann", "r1").await;

    publish(signed("eve", "r2", &key)).await;
    both.until_only("eve", "r2").await;

    let good = signing::unpack(&signed("eve", "r3", &key));
    let mut tampered = good.clone();
    tampered.insert(
        "authz.rego".to_owned(),
        policies("mallory")["authz.rego"].clone(),
    );
    let mut stripped = tampered.clone();
    stripped.remove(".signatures.json");
    for (bad, why) in [
        (
            signed("mallory", "r3", &other),
            "failed to verify JWT signature",
        ),
        (signing::pack(&tampered), "authz.rego: digest mismatch"),
        (
            signing::pack(&stripped),
            "bundle missing .signatures.json file",
        ),
    ] {
        publish(bad).await;
        both.until_refused(why, "r2").await;
        both.only("eve", "r2").await;
    }

    publish(signed("bob", "r4", &key)).await;
    both.until_only("bob", "r4").await;
    let healed = |bundle: &Value| bundle["message"].is_null() && bundle["code"].is_null();
    let healed = both.until_bundle("healed", healed).await;
    assert_eq!(healed["revision"], "r4");
}

#[tokio::test]
async fn bundles_in_s3() {
    let (Some(opa), Some(gateway)) = (peers::opa(), peers::versitygw()) else {
        return;
    };
    let server = gateway.start().await;
    let url = server.url();
    let mut variables = vec![("CONTROL", &*url)];
    variables.extend(server.environment());
    let service = "credentials: {s3_signing: {environment_credentials: {}}}";
    let configuration = |key: &Key| configuration(service, "acme/authz.tar.gz", key);
    let publish = async |bundle| server.put("acme/authz.tar.gz", bundle).await;
    follow(&opa, configuration, &variables, publish).await;
}

#[tokio::test]
async fn bundles_in_a_registry() {
    let (Some(opa), Some(registry), Some(oras)) =
        (peers::opa(), peers::docker_registry(), peers::oras())
    else {
        return;
    };
    let registry = registry.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let (url, host) = (registry.url(), registry.address().to_string());
    let token = format!("{USER}:{PASSWORD}");
    let variables = [("CONTROL", &*url), ("REGISTRY", &*host), ("TOKEN", &*token)];
    let service = "type: oci\n    credentials: {bearer: {scheme: Basic, token: '${TOKEN}'}}";
    let configuration = |key: &Key| configuration(service, "${REGISTRY}/acme/authz:1.0", key);
    let publish = async |bundle: Vec<u8>| {
        fs::write(folder.path().join("bundle.tar.gz"), bundle).unwrap();
        let image = "acme/authz:1.0";
        oras.push(&registry, image, folder.path(), "bundle.tar.gz", LAYER);
    };
    follow(&opa, configuration, &variables, publish).await;
}

#[tokio::test]
async fn bundles_from_nginx_with_tls_and_client_certificates() {
    let (Some(opa), Some(nginx)) = (peers::opa(), peers::nginx()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (at, root) = (folder.path(), folder.path().join("root"));
    fs::create_dir_all(root.join("bundles")).unwrap();
    let (authority, directives) = Authority::for_nginx(at);
    authority.issue_into(at, "client", "opa");
    let directives = format!("{directives}\n    ssl_verify_client on;");
    let nginx = nginx.serve_tls(&root, &directives).await;
    let (url, certificates) = (nginx.secure_url(), at.display().to_string());
    let variables = [("CONTROL", &*url), ("CERTIFICATES", &*certificates)];
    let service = "tls: {ca_cert: '${CERTIFICATES}/ca.pem'}\n    \
                   credentials:\n      client_tls:\n        cert: ${CERTIFICATES}/client.pem\n        \
                   private_key: ${CERTIFICATES}/client.key";
    let configuration = |key: &Key| configuration(service, "bundles/authz.tar.gz", key);
    // Moved into place, so that nginx never serves half of it.
    let publish = async |bundle: Vec<u8>| {
        fs::write(at.join("part"), bundle).unwrap();
        peers::renew(&at.join("part"));
        fs::rename(at.join("part"), root.join("bundles/authz.tar.gz")).unwrap();
    };
    follow(&opa, configuration, &variables, publish).await;
}
