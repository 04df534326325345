//! The quickstart as a newcomer runs it: its printed lines, replayed.

use std::net::{SocketAddr, TcpListener};

use crate::support::{Program, get, send};
use serde_json::Value;

const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");

/// A printed line: `curl -i [-X METHOD] http://ADDRESS/PATH [-H 'HEADER'] # STATUS`.
struct Line {
    address: SocketAddr,
    request: String,
    headers: Vec<String>,
    status: u16,
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        let (line, status) = line.strip_prefix("curl -i ")?.rsplit_once(" # ")?;
        let (line, headers) = match line.split_once(" -H '") {
            Some((line, header)) => (line, vec![header.strip_suffix('\'')?.to_owned()]),
            None => (line, Vec::new()),
        };
        let (method, url) = match line.strip_prefix("-X ") {
            Some(line) => line.split_once(' ')?,
            None => ("GET", line),
        };
        let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
        Some(Self {
            address: address.parse().ok()?,
            request: format!("{method} /{path}"),
            headers,
            status: status.parse().ok()?,
        })
    }
}

/// A quickstart that runs, and its lines.
fn start() -> (Program, Vec<Line>) {
    let program = Program::start(QUICKSTART, [""; 0]);
    let mut lines = Vec::new();
    loop {
        let line = program.stdout();
        if line.starts_with("curl") {
            lines.push(Line::read(&line).unwrap_or_else(|| panic!("{line}")));
        } else if line.starts_with("Ctrl-C") {
            return (program, lines);
        }
    }
}

#[test]
fn the_printed_lines_hold_when_replayed_in_order() {
    let (program, lines) = start();
    for Line {
        address,
        request,
        headers,
        status,
    } in &lines
    {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = send(*address, request, &headers, &[]);
        assert_eq!(answer.status, *status, "{request}: {}", answer.text());
        if *status == 401 {
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"orders\"")
            );
            assert_eq!(answer.json()["error"], "who are you?");
        }
    }
    for status in [200, 401, 403, 404, 503] {
        assert!(
            lines.iter().any(|line| line.status == status),
            "a {status} is shown"
        );
    }
    // Each request that an app was asked about is logged: all to the service, but the unknown app.
    let service = lines[0].address;
    let asked = lines
        .iter()
        .filter(|line| line.address == service && line.status != 404);
    for line in asked {
        let event = program.stderr(|line| line.contains("Decision Log"));
        let event: Value = serde_json::from_str(&event).unwrap();
        for member in ["decision_id", "labels", "metrics", "timestamp"] {
            assert!(event.get(member).is_some(), "{member}: {event}");
        }
        assert_eq!(event["labels"]["environment"], "quickstart");
        if line.status == 503 {
            assert_eq!(event["custom"]["reason"], "not_ready", "{event}");
            continue;
        }
        let (method, path) = line.request.split_once(' ').unwrap();
        assert_eq!(
            event["input"]["attributes"]["request"]["http"]["method"],
            method
        );
        assert_eq!(
            event["input"]["attributes"]["request"]["http"]["path"],
            path
        );
        let app = event["labels"]["app"].as_str().unwrap();
        let revision = event["bundles"]["authz"]["revision"].as_str().unwrap();
        assert!(revision.starts_with(app), "{event}");
        let result = &event["result"];
        let allowed = result.get("allowed").unwrap_or(result).as_bool().unwrap();
        assert_eq!(allowed, line.status == 200, "{event}");
    }
}

#[test]
fn the_bundle_server_speaks_opas_protocol() {
    let (_program, lines) = start();
    let bundles = lines
        .iter()
        .find(|line| line.request.contains("/publish/"))
        .unwrap()
        .address;
    let orders = get(bundles, "/bundles/orders");
    assert_eq!(orders.status, 200);
    assert_eq!(
        orders.header("content-type"),
        Some("application/vnd.openpolicyagent.bundles")
    );
    let bundle = opa_core::bundle::read(&*orders.body, &Default::default()).unwrap();
    assert_eq!(bundle.manifest().revision(), "orders-1");

    let known = format!("If-None-Match: {}", orders.header("etag").unwrap());
    for prefer in [
        "Prefer: modes=snapshot",
        "Prefer: modes=snapshot,delta;wait=1",
    ] {
        let unchanged = send(bundles, "GET /bundles/orders", &[&known, prefer], &[]);
        assert_eq!(
            (unchanged.status, unchanged.body.len()),
            (304, 0),
            "{prefer}"
        );
    }
    assert_eq!(get(bundles, "/bundles/green").status, 404);
    assert_eq!(get(bundles, "/bundles/nobody").status, 404);
    assert_eq!(
        send(bundles, "POST /publish/orders/orders-9", &[], &[]).status,
        404
    );
    assert_eq!(
        send(bundles, "POST /publish/nobody/1", &[], &[]).status,
        404
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_gracefully() {
    for signal in ["INT", "TERM"] {
        let (mut program, lines) = start();
        assert_eq!(send(lines[0].address, "GET /orders", &[], &[]).status, 401);
        program.signal(signal);
        assert!(program.wait().success(), "{signal}");
        let errors = program.errors();
        assert_eq!(
            errors.len(),
            1,
            "the last decision is logged, and nothing else: {errors:?}"
        );
    }
}

#[test]
fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut program = Program::start(QUICKSTART, ["--listen", &address]);
    assert_eq!(program.wait().code(), Some(1));
    let errors = program.errors().concat();
    assert!(
        errors.starts_with(&format!("error: cannot listen on {address}: ")),
        "{errors}"
    );
    assert_eq!(program.rest_of_stdout(), [""; 0]);
}
