//! `serve` as the black box that it is.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Folder, Program, eventually, get, send};

const SERVE: &str = env!("CARGO_BIN_EXE_serve");

/// Each app has the folder of its name as bundle.
const CONFIG: &str = "
bundles:
  authz:
    resource: 'file://FOLDER/{{ .bundlename }}'
decision_logs: {console: true}
plugins:
  envoy_ext_authz_grpc: {path: authz/allow}
";

/// Allows `GET`, and whatever has a body that it isn't shown.
const POLICY: &str = r#"
package authz

default allow := false

allow := {"allowed": true, "headers": {"x-app": "APP"}} if input.attributes.request.http.method == "GET"

allow if input.attributes.request.http.method == "PUT"
"#;

/// `serve` on free ports, with bundles for `default`, `orders` and `stock`.
struct Serve {
    program: Program,
    address: SocketAddr,
    admin: SocketAddr,
    folder: Folder,
}

impl Serve {
    fn start(arguments: &[&str]) -> Self {
        let folder = Folder::with(&[]);
        for app in ["default", "orders", "stock"] {
            folder.write(&format!("{app}/authz.rego"), &POLICY.replace("APP", app));
        }
        configure(&folder, CONFIG);
        let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut all = vec![
            OsString::from("--config-file"),
            folder.path("opa.yaml").into(),
        ];
        all.extend(free.iter().chain(arguments).map(OsString::from));
        let program = Program::start(SERVE, all);
        let address = program.address("listening on ");
        let admin = program.address("admin on ");
        Self {
            program,
            address,
            admin,
            folder,
        }
    }

    /// `GET` until it is allowed: at the start the bundle isn't active yet.
    fn allowed(&self, headers: &[&str]) -> Answer {
        let ask = || send(self.address, "GET /a%20b?c=d", headers, &[]);
        eventually(ask, |answer| answer.status != 503)
    }

    fn apps(&self) -> Value {
        get(self.admin, "/-/apps").json()
    }

    /// The next decision in the log.
    fn decision(&self) -> Value {
        let line = self
            .program
            .stderr(|line| line.contains("\"msg\":\"Decision Log\""));
        serde_json::from_str(&line).unwrap()
    }
}

/// Writes the configuration; `FOLDER` stands for its folder.
fn configure(folder: &Folder, config: &str) {
    let config = config.replace("FOLDER", folder.path("").to_str().unwrap());
    folder.write("opa.yaml", &config);
}

/// Runs `serve` with a configuration to its end.
fn run(config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = Folder::with(&[("opa.yaml", config)]);
    let mut command = Command::new(SERVE);
    command
        .arg("--config-file")
        .arg(folder.path("opa.yaml"))
        .args(arguments);
    let mut program = Program::spawn(&mut command);
    let code = program.wait().code();
    let file = folder.path("opa.yaml").display().to_string();
    (code, program.errors().join("\n").replace(&file, "opa.yaml"))
}

#[test]
fn what_reached_the_service_is_echoed() {
    let serve = Serve::start(&[]);
    let answer = serve.allowed(&["X-Two: 1", "x-two: 2", "x-app: spoofed"]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = json!({
        "method": "GET",
        "path": "/a%20b?c=d",
        "headers": {
            "connection": ["close"],
            "host": [serve.address.to_string()],
            "x-app": ["default"],
            "x-two": ["1", "2"],
        },
        "body": "",
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(send(serve.address, "DELETE /", &[], &[]).status, 403);
}

#[test]
fn options_are_put_over_the_configuration() {
    let folder = Folder::with(&[("region", "eu\n")]);
    let file = format!("labels.region={}", folder.path("region").display());
    let serve = Serve::start(&[
        "--set",
        "labels.team=a,labels.region=x",
        "--set-file",
        &file,
    ]);
    serve.allowed(&[]);
    let labels = serve.decision()["labels"].clone();
    assert_eq!(
        (&labels["team"], &labels["region"]),
        (&json!("a"), &json!("eu"))
    );
    const LOCAL: &str = "bundles: {a: {resource: 'file:///srv/a'}}";
    let (code, error) = run(LOCAL, &["--set", "labels.a=5"]);
    assert_eq!(code, Some(2));
    let expected = "--set labels.a=…:1:10: labels.a: expected a string, found a number";
    assert_eq!(error, expected);
}

/// Another entrypoint of `POLICY` is undefined, so nothing is let through.
#[cfg(unix)]
#[test]
fn the_configuration_is_read_again_on_sighup() {
    let serve = Serve::start(&[]);
    assert_eq!(serve.allowed(&[]).status, 200);
    let ask = || send(serve.address, "GET /", &[], &[]);
    let id = serve.decision()["labels"]["id"].clone();

    // A bad file changes nothing but the log.
    configure(&serve.folder, "bundles: [");
    serve.program.signal("HUP");
    let line = serve.program.stderr(|line| line.contains("not reloaded"));
    assert!(line.contains("opa.yaml:2:"), "{line}");
    assert_eq!(ask().status, 200);

    let other = CONFIG.replace("authz/allow", "authz/other");
    configure(&serve.folder, &format!("{other}labels: {{l: new}}"));
    serve.program.signal("HUP");
    eventually(ask, |answer| answer.status == 500);
    let event = std::iter::repeat_with(|| serve.decision()).find(|it| it["labels"]["l"] == "new");
    assert_eq!(
        event.unwrap()["labels"]["id"],
        id,
        "it is the same instance"
    );

    configure(&serve.folder, CONFIG);
    serve.program.signal("HUP");
    eventually(ask, |answer| answer.status == 200);
}

#[test]
fn a_watched_configuration_is_read_again_by_itself() {
    let serve = Serve::start(&["--watch"]);
    assert_eq!(serve.allowed(&[]).status, 200);
    configure(&serve.folder, &CONFIG.replace("authz/allow", "authz/other"));
    eventually(
        || send(serve.address, "GET /", &[], &[]),
        |answer| answer.status == 500,
    );
}

#[test]
fn decisions_are_logged_with_the_address_of_the_client() {
    let serve = Serve::start(&["--app", "orders"]);
    serve.allowed(&[]);
    let event = std::iter::repeat_with(|| serve.decision()).find(|it| it.get("result").is_some());
    let event = event.unwrap();
    assert_eq!(event["path"], "authz/allow");
    assert_eq!(
        event["input"]["attributes"]["request"]["http"]["path"],
        "/a%20b?c=d"
    );
    let source = &event["input"]["attributes"]["source"]["address"]["socketAddress"];
    assert_eq!(source["address"], "127.0.0.1");
    assert_eq!(
        event["requested_by"],
        format!("127.0.0.1:{}", source["portValue"])
    );
}

/// What a client can send that no policy can be shown is refused, and the next request is served.
#[test]
fn requests_that_cannot_be_read_are_refused() {
    let serve = Serve::start(&[]);
    serve.allowed(&[]);
    let many: Vec<String> = (0..10_000).map(|n| format!("x-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases: [(&str, &[&str], u16); 7] = [
        ("GET /%ff", &[], 400),
        ("GET /%zz", &[], 400),
        ("GET /?a=%C3", &[], 400),
        ("GET /?a=1;b=2", &[], 200),
        ("GET /", &["host: other"], 400),
        ("GET /", &["transfer-encoding: chunked"], 415),
        ("GET /", &many, 431),
    ];
    for (request, headers, status) in cases {
        let answer = send(serve.address, request, headers, &[]);
        assert_eq!(answer.status, status, "{request} {:?}", headers.first());
        assert_eq!(serve.allowed(&[]).status, 200);
    }
    let semicolon = send(serve.address, "GET /?a=1;b=2", &[], &[]);
    assert_eq!(semicolon.json()["path"], "/?a=1;b=2");
    let event = std::iter::repeat_with(|| serve.decision())
        .find(|it| it["input"]["attributes"]["request"]["http"]["path"] == "/?a=1;b=2");
    assert_eq!(
        event.unwrap()["input"]["parsed_query"],
        json!({"a": ["1;b=2"]})
    );
}

#[test]
fn bodies_need_a_word() {
    let serve = Serve::start(&[]);
    serve.allowed(&[]);
    assert_eq!(send(serve.address, "PUT /", &[], b"text").status, 415);

    let serve = Serve::start(&["--body-unseen"]);
    serve.allowed(&[]);
    let text = send(serve.address, "PUT /", &[], "tëxt".as_bytes()).json();
    assert_eq!(text["body"], "tëxt");
    let bytes = send(serve.address, "PUT /", &[], b"\xff\x00\x01").json();
    assert_eq!(
        (&bytes["body_base64"], bytes.get("body")),
        (&json!("/wAB"), None)
    );
    assert_eq!(send(serve.address, "DELETE /", &[], b"text").status, 403);
}

#[test]
fn a_header_names_the_app_and_is_seen_by_nobody() {
    let serve = Serve::start(&["--trust-app-header"]);
    for app in ["orders", "stock"] {
        let answer = serve.allowed(&[&format!("X-Opa-App: {app}")]).json();
        assert_eq!(answer["headers"]["x-app"], json!([app]));
        assert_eq!(answer["headers"].get("x-opa-app"), None);
    }
    let events: Vec<_> = std::iter::repeat_with(|| serve.decision())
        .filter(|event| event.get("result").is_some())
        .take(2)
        .collect();
    assert!(
        !events
            .iter()
            .any(|event| event["input"].to_string().contains("x-opa-app"))
    );

    for headers in [
        &[][..],
        &["x-opa-app:"],
        &["x-opa-app: ../orders"],
        &["x-opa-app: a b"],
        &["x-opa-app: örders"],
        &["x-opa-app: orders", "x-opa-app: orders"],
        &["x-opa-app: ORDERS"],
    ] {
        let answer = send(serve.address, "GET /", headers, &[]);
        assert_eq!(answer.status, 400, "{headers:?}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{headers:?}");
    }
}

#[test]
fn without_trust_the_header_is_a_header_like_any_other() {
    let serve = Serve::start(&["--app", "orders"]);
    let answer = serve.allowed(&["x-opa-app: stock"]).json();
    assert_eq!(answer["headers"]["x-app"], json!(["orders"]));
    assert_eq!(answer["headers"]["x-opa-app"], json!(["stock"]));
}

#[test]
fn apps_are_bounded_and_make_room_after_their_grace_period() {
    let serve = Serve::start(&["--trust-app-header", "--max-apps", "1", "--grace", "0s"]);
    let ask = |app| send(serve.address, "GET /", &[&format!("x-opa-app: {app}")], &[]);
    eventually(|| ask("orders"), |answer| answer.status == 200);
    // Until the first app is gone there is no room; then the second one starts.
    let answer = ask("stock");
    assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    eventually(|| ask("stock"), |answer| answer.status == 200);
}

#[test]
fn one_app_too_many_is_told() {
    let serve = Serve::start(&["--trust-app-header", "--max-apps", "1", "--grace", "1h"]);
    serve.allowed(&["x-opa-app: orders"]);
    let answer = send(serve.address, "GET /", &["x-opa-app: stock"], &[]);
    assert_eq!(
        (answer.status, answer.text()),
        (503, "there are 1 apps already\n")
    );
}

#[test]
fn prometheus_sees_each_app_and_what_became_of_its_decisions() {
    let serve = Serve::start(&["--trust-app-header"]);
    serve.allowed(&["x-opa-app: orders"]);
    send(serve.address, "GET /", &["x-opa-app: nothing"], &[]);
    let wanted = [
        r#"opa_instance_state{app="orders",state="ready"} 1"#,
        r#"opa_instance_state{app="nothing",state="failed"} 1"#,
        r#"bundle_failed_load_counter{app="nothing",name="authz",code="bundle_error",message="#,
        r#"opa_decisions_total{app="orders",outcome="allowed",reason="allowed"} 1"#,
        r#"opa_decision_log_events_delivered_total{app="orders",output="console"} "#,
        "opa_decision_duration_seconds_count ",
    ];
    let has_all = |answer: &Answer| wanted.iter().all(|wanted| answer.text().contains(wanted));
    let metrics = eventually(|| get(serve.admin, "/metrics"), has_all);
    assert_eq!(metrics.status, 200);
}

#[test]
fn operators_see_the_state_of_each_app() {
    let serve = Serve::start(&["--trust-app-header"]);
    serve.allowed(&["x-opa-app: orders"]);
    send(serve.address, "GET /", &["x-opa-app: nothing"], &[]);
    let failed = |answer: &Answer| answer.json()[0]["state"] == "failed";
    let apps = eventually(|| get(serve.admin, "/-/apps"), failed).json();
    assert_eq!(
        (&apps[0]["app"], &apps[1]["app"]),
        (&json!("nothing"), &json!("orders"))
    );
    assert!(
        apps[0]["reason"].as_str().unwrap().contains("nothing"),
        "{apps}"
    );
    assert_eq!(
        (&apps[1]["state"], apps[1].get("reason")),
        (&json!("ready"), None)
    );
    assert!(apps[1]["bundles"]["authz"].is_object(), "{apps}");
    assert_eq!(get(serve.admin, "/").status, 404);
    // They have an address of their own: for the service it is a path like any other.
    assert_eq!(send(serve.address, "GET /-/apps", &[], &[]).status, 400);
}

#[test]
fn the_fixed_app_is_there_from_the_start() {
    let serve = Serve::start(&["--app", "stock"]);
    assert_eq!(serve.apps()[0]["app"], "stock");
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let serve = Serve::start(&[]);
    serve.allowed(&[]);
    let stream = tokio::net::TcpStream::connect(serve.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/x?y", serve.address));
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echo: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&echo["method"], &echo["path"]),
        (&json!("GET"), &json!("/x?y"))
    );
}

#[cfg(unix)]
#[test]
fn signals_end_it_gracefully() {
    for signal in ["INT", "TERM"] {
        let mut serve = Serve::start(&[]);
        serve.allowed(&[]);
        serve.program.signal(signal);
        assert_eq!(serve.program.wait().code(), Some(0), "{signal}");
        assert!(TcpStream::connect(serve.address).is_err());
        assert!(
            serve
                .program
                .errors()
                .iter()
                .any(|line| line.contains("Decision Log"))
        );
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut serve = Serve::start(&["--body-unseen"]);
    serve.allowed(&[]);
    // The body never comes: the service asks for it, and is under way from then on.
    let mut client = TcpStream::connect(serve.address).unwrap();
    client
        .write_all(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let mut go_on = [0; 12];
    client.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");

    while serve.program.is_running() {
        serve.program.signal("INT");
    }
    assert_eq!(serve.program.wait().code(), Some(1));
    let errors = serve.program.errors().join("\n");
    assert!(errors.contains("error: asked to end once more"), "{errors}");
}

#[test]
fn a_bad_configuration_is_told_with_its_place() {
    for (config, error) in [
        (
            "labels: 1",
            "opa.yaml:1:9: labels: expected an object, found a number",
        ),
        (
            "services: {a: {url: 'http://${HOST}'}}",
            "`HOST` is not on the list",
        ),
        (
            "services: {a: {url: 'http://a.test'}}\nstatus: {service: b}",
            "opa.yaml:2:19: status.service: ",
        ),
        ("", "opa.yaml: services: "),
        (
            "services: {a: {url: 'http://a.test'}}\nbundles: {}",
            "opa.yaml: bundles: expected at least one",
        ),
        ("a: [", "opa.yaml:"),
    ] {
        let (code, errors) = run(config, &["--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(2), "{config}: {errors}");
        assert!(errors.contains(error), "{config}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let mut program = Program::start(SERVE, ["--config-file", "/no/such/opa.yaml"]);
    assert_eq!(program.wait().code(), Some(2));
    assert!(program.errors().concat().contains("/no/such/opa.yaml"));
}

#[test]
fn dry_run_needs_permission() {
    let config = "
services: {a: {url: 'http://127.0.0.1:1'}}
plugins: {envoy_ext_authz_grpc: {dry-run: true}}";
    let (code, errors) = run(config, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("dry-run"), "{errors}");
}

#[test]
fn with_permission_dry_run_lets_denied_requests_pass() {
    let folder = Folder::with(&[("default/authz.rego", "package authz\n\nallow := false")]);
    let config = CONFIG.replace("FOLDER", folder.path("").to_str().unwrap());
    let dry_run = config.replace("{path: authz/allow}", "{path: authz/allow, dry-run: true}");
    folder.write("opa.yaml", &dry_run);
    let mut command = Command::new(SERVE);
    command.arg("--config-file").arg(folder.path("opa.yaml"));
    let program = Program::spawn(command.args(["--listen", "127.0.0.1:0", "--permit-dry-run"]));
    let address = program.address("listening on ");
    eventually(|| get(address, "/"), |answer| answer.status == 200);
    program.stderr(|line| line.contains("\"reason\":\"dry_run\""));
}

#[test]
fn allowed_variables_are_filled_in() {
    let folder = Folder::with(&[
        ("default/authz.rego", &POLICY.replace("APP", "default")),
        (
            "opa.yaml",
            "bundles: {authz: {resource: '${BUNDLES}/default'}}\nplugins: {envoy_ext_authz_grpc: {path: authz/allow}}",
        ),
    ]);
    let mut command = Command::new(SERVE);
    command
        .env("BUNDLES", format!("file://{}", folder.path("").display()))
        .arg("--config-file")
        .arg(folder.path("opa.yaml"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--allow-env",
            "OTHER",
            "--allow-env",
            "BUNDLES",
        ]);
    let program = Program::spawn(&mut command);
    let address = program.address("listening on ");
    eventually(|| get(address, "/"), |answer| answer.status == 200);
}

#[test]
fn arguments_that_make_no_sense_are_told() {
    for (arguments, error) in [
        (
            &["--trust-app-header", "--listen", "0.0.0.0:0"][..],
            "loopback",
        ),
        (
            &["--trust-app-header", "--listen", "0.0.0.0:0"],
            "Usage: serve",
        ),
        (&["--trust-app-header", "--app", "a"], "cannot be used with"),
        (&["--listen", "localhost"], "invalid socket address"),
        (&["--app", "../a"], "invalid app id"),
        (&["--grace", "soon"], "--grace"),
        (&["--max-apps", "0"], "--max-apps"),
        (&["--what"], "unexpected argument"),
    ] {
        let (code, errors) = run("{}", arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(error), "{arguments:?}: {errors}");
    }
}

#[test]
fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = "services: {a: {url: 'http://127.0.0.1:1'}}";
    for arguments in [["--listen", &address], ["--admin", &address]] {
        let free = ["--listen", "127.0.0.1:0"].map(|it| it);
        let arguments = match arguments[0] {
            "--listen" => arguments.to_vec(),
            _ => [free, arguments].concat(),
        };
        let (code, errors) = run(config, &arguments);
        assert_eq!(code, Some(1), "{errors}");
        assert!(
            errors.contains(&format!("error: cannot listen on {address}: ")),
            "{errors}"
        );
    }
}
