//! Masks: the same rules on the same events by the real `opa` and by ours leave the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, StatusCode};
use opa_core::plugin::{Event, EventInput, Labels};
use opa_core::{AppId, Reason, Value};
use opa_plugins::decision_logs::mask::MaskRules;
use opa_plugins::decision_logs::{is_dropped, write_event};
use tests::http_client;
use tests::peers;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

fn set(items: &[&str]) -> Value {
    Value::set(items.iter().map(|item| json(item)))
}

fn upsert(path: &str, value: &str) -> Value {
    let members = [
        ("op", "upsert".into()),
        ("path", path.into()),
        ("value", json(value)),
    ];
    Value::object(members.map(|(name, value)| (Value::from(name), value)))
}

/// Inputs and results that masks are tried on; `None` is absent and undefined.
fn documents() -> Vec<Option<Value>> {
    let wide = r#"{
        "a": 1, "A": 2, "": {"": 0, "x": 1}, "0": "zero", "é": 1, "%C3%A9": 2, "a b": 1, "a%20b": 2,
        "a/b": 3, "a%2Fb": 4, "a%252Fb": 5, "<&>": 6, "%3C&%3E": 7, "~.$+:=@-_": 8, "null": null,
        "b": {"c": [1, [2, 3], {"d": null, "e": "x"}, [[4]]]}, "n": [1.0, 1e5, 12345678901234567890123]
    }"#;
    vec![
        Some(json(wide)),
        Some(json(
            r#"[1, [2, {"a": 3}], {"a": [], "b": {"c": []}}, null, "s"]"#,
        )),
        Some(json(r#""scalar""#)),
        Some(json("false")),
        Some(json("{}")),
        Some(json("[]")),
        None,
    ]
}

/// A result that is no JSON: sets, and keys that are no strings.
fn no_json() -> Value {
    Value::object([
        (Value::from(1), set(&["3", "1", "2"])),
        (Value::from("1"), Value::from("the same text")),
        (
            Value::from(2),
            set(&[r#"{"a": 1}"#, r#"{"a": 2}"#, "[5, 6]"]),
        ),
        (Value::from("a"), Value::array([set(&[]), set(&["7"])])),
        (Value::NULL, Value::from("null")),
        (json(r#"["k", 1]"#), Value::from("array")),
    ])
}

/// Paths below a part.
const PATHS: [&str; 44] = [
    "",
    "/",
    "//",
    "//x",
    "/a",
    "/A",
    "/a/",
    "/a/x",
    "/x",
    "/x/y/z",
    "/b",
    "/b/c",
    "/b/c/0",
    "/b/c/1",
    "/b/c/1/0",
    "/b/c/1/-1",
    "/b/c/4",
    "/b/c/99999999999999999999",
    "/b/c/+1",
    "/b/c/01",
    "/b/c/-0",
    "/b/c/1.0",
    "/b/c/1e0",
    "/b/c/x",
    "/b/c/0/x",
    "/b/c/2/d",
    "/b/c/2/d/e",
    "/b/c/2/f/g",
    "/b/c/3/0/0",
    "/0",
    "/1/1/a",
    "/2/a",
    "/2/a/0",
    "/é",
    "/%C3%A9",
    "/a b",
    "/a%20b",
    "/a%2Fb",
    "/<&>",
    "/~.$+:=@-_",
    "/null",
    "/null/x",
    "/n/2",
    "/1/0",
];

fn masks() -> Vec<Value> {
    let mut masks = Vec::new();
    for part in ["/input", "/result"] {
        for path in PATHS {
            let path = format!("{part}{path}");
            masks.push(Value::array([Value::from(&path)]));
            masks.push(Value::array([upsert(&path, r#"{"new": [1, {"<": "&"}]}"#)]));
        }
    }
    for several in [
        r#"["/input/b/c/0", "/input/b/c/0", "/input/b/c/0"]"#,
        r#"["/input/a", "/input/a"]"#,
        r#"["/input", "/input", "/input/a"]"#,
        r#"["/input/b", "/input/b/c/1"]"#,
        r#"["/input/b/c/1/1", "/input/b/c/1", "/input/b/c"]"#,
        r#"["/result/1", "/result/a/0", "/result/1", "/result/2/0/a", "/result/2/2/a"]"#,
        r#"[{"op": "remove", "path": "/input/a", "value": 1}, {"op": "remove", "path": "/input/b"}]"#,
        r#"[{"op": "upsert", "path": "/input/a"}, {"op": "upsert", "path": "/input/null/x", "value": 1}]"#,
        r#"[{"op": "upsert", "path": "/input"}, "/input/a", {"op": "upsert", "path": "/input/a", "value": 1}]"#,
        r#"["/input", {"op": "upsert", "path": "/input", "value": {"a": 1}}]"#,
        r#"[{"op": "upsert", "path": "/input", "value": {"a": {"b": 1}}}, "/input/a/b", {"op": "upsert", "path": "/input/a/c", "value": 2}]"#,
        r#"[{"op": "upsert", "path": "/input/p/q", "value": [1, 2]}, "/input/p/q/0", {"op": "upsert", "path": "/input/p/q/0/x", "value": 1}, {"op": "upsert", "path": "/input/p/q/0", "value": null}]"#,
        r#"[{"op": "upsert", "path": "/input/a", "value": 1}, {"op": "upsert", "path": "/input/a", "value": 2}, "/input/a", {"op": "upsert", "path": "/input/a", "value": 3}]"#,
        r#"[{"op": "remove", "path": "/input/a", "x": {}, "op2": 1}]"#,
        r#"["/nd_builtin_cache"]"#,
        r#"["/nd_builtin_cache/rand.intn"]"#,
        r#"["/nd_builtin_cache/rand.intn/[\"x\",1]", "/nd_builtin_cache/rand.intn/%5B%22x%22%2C1%5D"]"#,
        r#"[{"op": "upsert", "path": "/nd_builtin_cache/rand.intn/x", "value": 1}]"#,
        r#"[{"op": "upsert", "path": "/nd_builtin_cache", "value": []}]"#,
        r#"[]"#,
        // Answers and elements that are no rules.
        r#"{}"#,
        r#"null"#,
        r#"true"#,
        r#"false"#,
        r#"1"#,
        r#""/input/a""#,
        r#"{"op": "remove", "path": "/input/a"}"#,
        r#"["/input/a", 1]"#,
        r#"["/input/a", null]"#,
        r#"["/input/a", ["/input/b"]]"#,
        r#"[""]"#,
        r#"["input/a"]"#,
        r#"["/"]"#,
        r#"["/inputs"]"#,
        r#"["/Input"]"#,
        r#"["//input"]"#,
        r#"["/labels/id"]"#,
        r#"["/metrics"]"#,
        r#"["/error"]"#,
        r#"["/custom/a"]"#,
        r#"["/%69nput/a"]"#,
        r#"["/input/%"]"#,
        r#"["/input/%2"]"#,
        r#"["/input/%zz"]"#,
        r#"["/input/a", "/input/%"]"#,
        r#"[{"path": "/input/a"}]"#,
        r#"[{"op": "", "path": "/input/a"}]"#,
        r#"[{"op": 1, "path": "/input/a"}]"#,
        r#"[{"op": null, "path": "/input/a"}]"#,
        r#"[{"op": "REMOVE", "path": "/input/a"}]"#,
        r#"[{"op": "delete", "path": "/input/a"}]"#,
        r#"[{"op": "remove"}]"#,
        r#"[{"op": "remove", "path": ""}]"#,
        r#"[{"op": "remove", "path": null}]"#,
        r#"[{"op": "remove", "path": 1}]"#,
        r#"[{"op": "upsert", "path": ["input", "a"]}]"#,
        r#"[{}]"#,
    ] {
        masks.push(json(several));
    }
    let set_value = Value::object([
        (Value::from("op"), Value::from("upsert")),
        (Value::from("path"), Value::from("/input/s")),
        (Value::from("value"), Value::array([no_json()])),
    ]);
    masks.push(Value::array([
        set_value.clone(),
        "/input/s/0/1".into(),
        "/input/s/0/2/0/0".into(),
    ]));
    masks.push(Value::array([
        set_value,
        "/input/s/0/2/0".into(),
        "/input/s/0/null".into(),
    ]));
    masks.push(set(&[]));
    masks.push(set(&[
        r#""/input/b/c/1""#,
        r#""/input/b/c/0""#,
        r#""/input/a""#,
    ]));
    masks.push(set(&[
        r#"{"op": "upsert", "path": "/input/z", "value": 1}"#,
        r#"{"op": "upsert", "path": "/input/a", "value": 1}"#,
        r#""/input/z""#,
        r#"{"op": "remove", "path": "/input/b"}"#,
    ]));
    masks.push(set(&[r#""/input/a""#, "1"]));
    masks.push(set(&[r#""/input/a""#, r#"["/input/a"]"#]));
    // Keys that are no strings are texts.
    masks.push(Value::array([Value::object([
        (Value::from(1), Value::from(2)),
        (Value::from("op"), Value::from("remove")),
        (Value::from("path"), Value::from("/input/a")),
    ])]));
    masks
}

/// Document and result of decision `d`, mask of decision `m`, both in the path: `cases/d3/m17`.
fn policies(results: &[Option<Value>], masks: &[Value]) -> (String, String) {
    let mut cases = "package cases\n".to_owned();
    for (number, result) in results.iter().enumerate() {
        let Some(result) = result else { continue };
        let name = format!("d{number}");
        writeln!(cases, "{name}[sprintf(\"m%d\", [m])] := {result:?} if {{ some m in numbers.range(0, {}); rand.intn(\"x\", 1) == 0 }}", masks.len()).unwrap();
    }
    let mut log = "package system.log\n".to_owned();
    for (number, mask) in masks.iter().enumerate() {
        writeln!(
            log,
            "mask := {mask:?} if endswith(input.path, \"/m{number}\")"
        )
        .unwrap();
    }
    (cases, log)
}

/// The events of OPA's console by their path. Numbers keep their text.
fn console(log: &str) -> impl Iterator<Item = (String, Value)> {
    log.lines().filter_map(|line| {
        let event = Value::from_json(line.as_bytes()).ok()?;
        event.get("decision_id")?;
        let path = event.get("path")?.as_str()?.to_owned();
        Some((path, event))
    })
}

/// The members that masks are about.
fn members(event: &Value) -> BTreeMap<&'static str, Value> {
    ["input", "result", "nd_builtin_cache", "erased", "masked"]
        .into_iter()
        .filter_map(|name| Some((name, event.get(name)?.clone())))
        .collect()
}

/// What ours makes of the event; `None` if it is withheld.
fn ours(input: Option<&Value>, result: Option<&Value>, mask: &Value) -> Option<Value> {
    let app = AppId::new("shop").unwrap();
    let labels = Labels::new([]);
    let mut event = Event::new(app, labels, "d".into(), Reason::Decided, SystemTime::now());
    event.input = input.map_or(EventInput::None, |it| EventInput::Built(it.clone()));
    event.result = result.cloned();
    event.nd_builtin_cache = Some(match result {
        Some(_) => json(r#"{"rand.intn": {"[\"x\",1]": 0}}"#),
        None => json("{}"),
    });
    MaskRules::from_answer(Some(mask))
        .ok()?
        .apply(&mut event)
        .ok()?;
    let mut text = Vec::new();
    write_event(&event, &mut text).unwrap();
    Some(Value::from_json(&text).unwrap())
}

#[tokio::test]
async fn masks_leave_what_opas_leave() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let inputs = documents();
    let mut results = documents();
    results.push(Some(no_json()));
    let masks = masks();
    let (cases, log) = policies(&results, &masks);
    std::fs::write(folder.path().join("cases.rego"), cases).unwrap();
    std::fs::write(folder.path().join("log.rego"), log).unwrap();
    let bundle = folder.path().join("bundle.tar.gz");
    opa.build(folder.path(), &bundle, "r1");
    let mut server = opa
        .serve(&format!(
            "bundles: {{b: {{resource: 'file://{}'}}}}\nnd_builtin_cache: true\n\
             decision_logs: {{console: true, nd_builtin_cache: true}}",
            bundle.display()
        ))
        .await;

    let mut tried = Vec::new();
    for (number, result) in results.iter().enumerate() {
        let input = inputs.get(number).unwrap_or(&inputs[0]);
        for (mask, rules) in masks.iter().enumerate() {
            let path = format!("cases/d{number}/m{mask}");
            let body = match input {
                Some(input) => format!(r#"{{"input":{input}}}"#),
                None => "{}".to_owned(),
            };
            let request = Request::post(format!("/v1/data/{path}")).body(Bytes::from(body));
            let response = http_client::send(server.address(), request.unwrap())
                .await
                .unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{:?}", response.body());
            tried.push((path, ours(input.as_ref(), result.as_ref(), rules), rules));
        }
    }
    // The events are written before the responses.
    let theirs: BTreeMap<_, _> = console(&server.process().stderr()).collect();
    assert!(tried.len() > 1_000 && theirs.len() > tried.len() / 2);
    let differ: Vec<_> = tried
        .iter()
        .filter(|(path, ours, _)| theirs.get(path).map(members) != ours.as_ref().map(members))
        .map(|(path, ours, mask)| {
            let (theirs, ours) = (theirs.get(path).map(members), ours.as_ref().map(members));
            format!("{path} {mask}\n  opa:  {theirs:?}\n  ours: {ours:?}")
        })
        .collect();
    let shown = differ
        .iter()
        .take(10)
        .map(String::as_str)
        .collect::<Vec<_>>();
    assert!(
        differ.is_empty(),
        "{} of {}:\n{}",
        differ.len(),
        tried.len(),
        shown.join("\n")
    );
    println!(
        "{} decisions, {} of them withheld by ours and lost by OPA",
        tried.len(),
        tried.len() - theirs.len()
    );
}

#[tokio::test]
async fn events_are_dropped_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let answers = [
        "true",
        "false",
        "null",
        "1",
        r#""true""#,
        "[true]",
        r#"{"a": true}"#,
        "[]",
    ];
    let mut log = "package system.log\n".to_owned();
    for (number, answer) in answers.iter().enumerate() {
        writeln!(log, "drop := {answer} if input.path == \"p/a{number}\"").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log.rego"), log).unwrap();
    let bundle = folder.path().join("bundle.tar.gz");
    opa.build(folder.path(), &bundle, "r1");
    let config = format!(
        "bundles: {{b: {{resource: 'file://{}'}}}}\ndecision_logs: {{console: true}}",
        bundle.display()
    );
    let server = opa.serve(&config).await;
    // The last one's drop is undefined.
    for number in 0..=answers.len() {
        server
            .decide(&format!("p/a{number}"), &serde_json::json!(1))
            .await;
    }
    let events = server.decision_logs();
    let logged: Vec<_> = events
        .iter()
        .map(|event| event["path"].as_str().unwrap())
        .collect();
    let ours: Vec<_> = (0..=answers.len())
        .filter(|number| !is_dropped(answers.get(*number).map(|it| json(it)).as_ref()))
        .map(|number| format!("p/a{number}"))
        .collect();
    assert_eq!(logged, ours);
    assert_eq!(logged.len(), answers.len());
}
