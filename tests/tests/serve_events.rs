//! What leaves `serve`, beside the real `opa run --server` with the same configuration: both upload
//! to sinks over real HTTP, and get the same requests.
//!
//! `serve` makes an input document of each request. What it logs of that is the input that OPA is
//! asked with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use opa_core::Value;
use tests::http_client;
use tests::log_sink::{LogSink, Post};
use tests::peers::{self, Opa};
use tests::serve::Serve;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// Rules by the app whose decision they are.
const DECISIONS: &[(&str, &str)] = &[
    ("allow", "true"),
    ("deny", "false"),
    (
        "object",
        r#"{"allowed": true, "h": "<&>\u2028\u0000\u007f", "n": [1.5, 7, -3]}"#,
    ),
    (
        "sets",
        r#"{"allowed": true, "s": {3, 1, 2, "<"}, "o": {2: {"x"}, null: [], [1]: "k"}}"#,
    ),
    (
        "query",
        r#"{"allowed": true, "q": input.parsed_query, "p": input.parsed_path}"#,
    ),
    ("undefined", "x if { x := input.nope }"),
];

/// What the policy on logs says, by the app: a mask.
const MASKS: &[(&str, &str)] = &[
    (
        "header",
        r#"["/input/attributes/request/http/headers/x-secret"]"#,
    ),
    (
        "tilde",
        r#"["/input/attributes/request/http/headers/x~0y", "/input/attributes/request/http/headers/x~y"]"#,
    ),
    (
        "upsert",
        r#"{{"op": "upsert", "path": "/result/a/b", "value": {1, "<"}}}"#,
    ),
    (
        "element",
        r#"["/result/list/0", {"op": "upsert", "path": "/result/list/1", "value": null}]"#,
    ),
    ("result", r#"["/result"]"#),
    (
        "nothing",
        r#"["/input/x/y/z", "/result/none", "/nd_builtin_cache"]"#,
    ),
    (
        "escaped",
        r#"["/input/parsed_query/a%2Fb", "/input/parsed_query/c d"]"#,
    ),
    (
        "made",
        r#"[{"op": "upsert", "path": "/input/new/deep", "value": {"x": [1]}}]"#,
    ),
    ("empty", "[]"),
    // OPA skips the rule, and shows the event whole; ours withholds it.
    (SKIPPED, "[1 / 0]"),
    (
        "computed",
        r#"[p | input.labels.team == "<red>"; p := sprintf("/%s/parsed_path", ["input"])]"#,
    ),
];

const SKIPPED: &str = "skipped";

/// Masks that are none: OPA loses the event, ours has it without what could be secret.
const BROKEN: &[(&str, &str)] = &[
    ("prefix", r#"["/labels/team"]"#),
    ("text", r#""/input""#),
    ("number", "1"),
    ("mapped", r#"{"a": 1}"#),
    ("boolean", "true"),
    ("nil", "null"),
    ("op", r#"[{"op": "delete", "path": "/input"}]"#),
    ("element1", r#"["/input/parsed_path", 1]"#),
];

/// Answers of the drop policy, of which only `true` drops.
const DROPS: &[(&str, &str)] = &[
    ("yes", "true"),
    ("no", "false"),
    ("one", "1"),
    ("string", r#""true""#),
    ("array", "[true]"),
];

/// Targets that are asked for, by the app `query`; others are asked for `TARGETS[0]`.
const TARGETS: &[&str] = &[
    "/a/b?a%2Fb=1&c%20d=2&e=%3C%E2%80%A8",
    "//x//y?",
    "/p?a=1&a=2&&b&=c",
    "/%F0%9F%98%80/%22/%5C?%00=%7F",
];

fn policies() -> (String, String) {
    let mut shop = "package shop\n\n".to_owned();
    for (name, value) in DECISIONS {
        let assign = if value.contains(" if ") { "=" } else { ":=" };
        writeln!(shop, "{name} {assign} {value}\n").unwrap();
    }
    let mut log = "package system.log\n\n".to_owned();
    let masks = MASKS.iter().chain(BROKEN).map(|one| ("mask", one));
    let asked = masks.chain(DROPS.iter().map(|one| ("drop", one)));
    for (rule, (name, answer)) in asked {
        let decision = r#"{"allowed": true, "list": [1, 2, 3], "a": 1}"#;
        writeln!(shop, "{name} := {decision}\n").unwrap();
        writeln!(log, "{rule} := {answer} if input.path == \"shop/{name}\"\n").unwrap();
    }
    // Two answers at once are an error.
    for (rule, name) in [("mask", "mask_conflict"), ("drop", "drop_conflict")] {
        writeln!(shop, "{name} := true\n").unwrap();
        for answer in ["[]", "true"] {
            writeln!(log, "{rule} := {answer} if input.path == \"shop/{name}\"\n").unwrap();
        }
    }
    (shop, log)
}

fn build(opa: &Opa, folder: &Path) -> String {
    let (shop, log) = policies();
    std::fs::write(folder.join("shop.rego"), shop).unwrap();
    std::fs::write(folder.join("log.rego"), log).unwrap();
    let bundle = folder.join("bundle.tar.gz");
    opa.build(folder, &bundle, "r<1>");
    bundle.display().to_string()
}

fn configuration(sink: &LogSink, bundle: &str) -> String {
    format!(
        "services: {{sink: {{url: '{}/base/', headers: {{x-plain: 'yes'}}, \
           credentials: {{bearer: {{token: t0k3n, scheme: Token}}}}}}}}\n\
         labels: {{team: \"<red>\", \"a&b\": \"c\"}}\n\
         bundles: {{z: {{resource: 'file://{bundle}'}}}}\n\
         decision_logs: {{service: sink, partition_name: eu, \
           request_context: {{http: {{headers: [x-b, X-a, x-none]}}}}, \
           reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}\n",
        sink.url(),
    )
}

/// The headers that policies and events see.
fn headers(request: http::request::Builder) -> http::request::Builder {
    request
        .header("host", "shop.test")
        .header("x-a", "<1>")
        .header("x-a", "2")
        .header("x-b", "")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
}

/// Asks `serve` once the app is ready, and again for each further target.
async fn ask(serve: &Serve, app: &str, targets: &[&str]) {
    let request = |target: &str| {
        let request = headers(Request::get(target).header("x-opa-app", app));
        let request = request
            .header("x-secret", "s<")
            .header("x~y", "1")
            .header("x-utf8", "é\u{2028}".as_bytes());
        request.body(Bytes::new()).unwrap()
    };
    let ready = async {
        while is_starting(serve, app).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, ready).await.unwrap();
    for target in targets {
        let response = http_client::send(serve.address(), request(target)).await;
        assert_ne!(response.unwrap().status(), 503, "{app}");
    }
}

/// Whether it isn't ready yet; this starts it.
async fn is_starting(serve: &Serve, app: &str) -> bool {
    let request = Request::get("/warm").header("x-opa-app", app);
    let response = http_client::send(serve.address(), request.body(Bytes::new()).unwrap()).await;
    response.unwrap().status() == 503
}

/// An event as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    text: String,
    event: Value,
}

impl Sent {
    fn path(&self) -> &str {
        self.event.get("path").and_then(Value::as_str).unwrap()
    }

    fn at(&self, name: &str) -> Option<Value> {
        self.event.get(name).cloned()
    }

    /// Whether it tells of no request of this test.
    fn is_warming(&self) -> bool {
        self.event.get("request_context").is_none()
    }

    /// The text, but for what differs from process to process and from engine to engine.
    fn comparable(&self) -> String {
        let mut text = self.text.clone();
        for (name, placeholder) in [
            ("\"decision_id\":\"", "\""),
            ("\"id\":\"", "\""),
            ("\"requested_by\":\"127.0.0.1:", "\""),
            ("\"timestamp\":\"", "\""),
            ("\"metrics\":{", "}"),
            ("\"req_id\":", ","),
        ] {
            let (before, after) = text.split_once(name).unwrap_or_else(|| panic!("{text}"));
            let (_, after) = after.split_once(placeholder).unwrap();
            text = format!("{before}{name}{placeholder}{after}");
        }
        text
    }

    fn metrics(&self) -> BTreeSet<String> {
        let metrics = self.event.get("metrics").unwrap().as_object().unwrap();
        let names = metrics.iter().map(|(name, _)| name.as_str().unwrap());
        names.map(str::to_owned).collect()
    }
}

/// The events of a chunk with their texts.
fn events(post: &Post) -> Vec<Sent> {
    let mut rest = str::from_utf8(&post.body).unwrap();
    let mut sent = Vec::new();
    while let Some(after) = rest.strip_prefix(['[', ',']) {
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<serde_json::Value>();
        values.next().unwrap().unwrap();
        let (text, remaining) = after.split_at(values.byte_offset());
        sent.push(Sent {
            text: text.to_owned(),
            event: Value::from_json(text.as_bytes()).unwrap(),
        });
        rest = remaining;
    }
    assert_eq!(rest, "]");
    sent
}

/// What a chunk is sent with.
fn envelope(post: &Post) -> (String, String, BTreeMap<String, String>) {
    let headers = post.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let mut headers: BTreeMap<_, _> = headers.collect();
    let length = headers.remove("content-length");
    assert_eq!(length, Some(post.size.to_string()));
    // Our client says what Go's leaves unsaid.
    headers.remove("accept");
    headers.remove("host");
    (post.method.to_string(), post.path.clone(), headers)
}

async fn gather(
    sink: &LogSink,
    count: usize,
) -> (Vec<Sent>, (String, String, BTreeMap<String, String>)) {
    let (mut sent, mut with) = (Vec::new(), None);
    sink.wait(|post| {
        with = Some(envelope(post));
        sent.extend(events(post).into_iter().filter(|it| !it.is_warming()));
        (sent.len() >= count).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {} of {count}", sent.len()));
    (sent, with.unwrap())
}

#[tokio::test]
async fn events_of_serve_are_those_of_opa() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bundle = build(&opa, folder.path());
    let (our_sink, their_sink) = (
        LogSink::start().await.unwrap(),
        LogSink::start().await.unwrap(),
    );
    let path = "plugins: {envoy_ext_authz_grpc: {path: 'shop/{{ .bundlename }}'}}\n";
    let ours = configuration(&our_sink, &bundle) + path;
    let mut serve = Serve::start(&ours, &["--trust-app-header"]).await;
    let mut logged = 0;
    let decisions = DECISIONS.iter().chain(MASKS).chain(BROKEN).chain(DROPS);
    let conflicts = [("mask_conflict", ""), ("drop_conflict", "")];
    for (app, _) in decisions.chain(&conflicts) {
        let targets = match *app {
            "query" => TARGETS,
            _ => &TARGETS[..1],
        };
        ask(&serve, app, targets).await;
        logged += if *app == "yes" { 0 } else { targets.len() };
    }
    let (ours, our_envelope) = gather(&our_sink, logged).await;
    assert_eq!(ours.len(), logged);

    // An event that nothing was masked of has the input, as do those whose mask is broken for OPA.
    let whole = |app: &str| {
        let path = format!("shop/{app}");
        let of_app = ours.iter().find(|it| it.path() == path);
        of_app.and_then(|it| it.at("input")).unwrap().to_json()
    };
    let server = opa.serve(&configuration(&their_sink, &bundle)).await;
    let asked = |app: &str, input: String| {
        let request = headers(Request::post(format!("/v1/data/shop/{app}")));
        let request = request.body(Bytes::from(format!(r#"{{"input":{input}}}"#)));
        http_client::send(server.address(), request.unwrap())
    };
    let broken = || BROKEN.iter().chain(&conflicts).map(|(app, _)| *app);
    let mut expected = 0;
    for event in &ours {
        let app = event.path().strip_prefix("shop/").unwrap();
        let masked = event.at("erased").is_some() || event.at("masked").is_some();
        let input = match event.at("input").filter(|_| !masked) {
            Some(input) => input.to_json(),
            // Each app was asked on a connection of its own.
            None => whole("empty"),
        };
        let response = asked(app, input).await.unwrap();
        assert!(
            response.status().is_success(),
            "{app}: {:?}",
            response.body()
        );
        expected += usize::from(!broken().any(|it| it == app));
    }
    asked("yes", whole("empty")).await.unwrap();
    let (theirs, their_envelope) = gather(&their_sink, expected).await;
    assert_eq!(theirs.len(), expected);
    assert_eq!(our_envelope, their_envelope);

    let mut wrong = Vec::new();
    let mut remaining = theirs;
    for event in &ours {
        let app = event.path().strip_prefix("shop/").unwrap();
        let withheld = event.event.at(&["custom", "withheld"]);
        if app == SKIPPED || broken().any(|it| it == app) {
            let shown = ["input", "result", "nd_builtin_cache"];
            let shown = shown.into_iter().find(|name| event.at(name).is_some());
            if withheld.is_none() || shown.is_some() {
                wrong.push(format!("{app}: not withheld: {}", event.text));
            }
            continue;
        }
        // In the order of the requests.
        let place = remaining.iter().position(|it| it.path() == event.path());
        let Some(place) = place else {
            wrong.push(format!("{app}: OPA has none"));
            continue;
        };
        let their_event = remaining.remove(place);
        assert!(event.metrics().is_subset(&their_event.metrics()));
        let (mut ours, mut theirs) = (event.comparable(), their_event.comparable());
        // Whoever enforces a decision answers 500 where there is none, and says why.
        if app == "undefined" {
            for member in [
                r#""error":{"code":"undefined","message":"shop/undefined decision was undefined"},"#,
                r#","custom":{"reason":"undefined"}"#,
            ] {
                assert!(ours.contains(member), "{ours}");
                ours = ours.replacen(member, "", 1);
            }
        }
        // What was masked of the input was the client's port, or the time of its request.
        for text in [&mut ours, &mut theirs] {
            *text = without_connection(text);
        }
        if ours != theirs {
            wrong.push(format!("{app}\n  ours {ours}\n  opa  {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(serve.process().interrupt().await.unwrap().success());
}

/// An input without what was borrowed from another request.
fn without_connection(text: &str) -> String {
    let mut text = text.to_owned();
    for (name, end) in [("\"portValue\":", "}"), ("\"time\":{", "}")] {
        if let Some((before, after)) = text.split_once(name) {
            let (_, after) = after.split_once(end).unwrap();
            text = format!("{before}{name}{end}{after}");
        }
    }
    text
}
