use super::*;
use opa_core::plugin::{DeferredInput, EventError, Labels};
use opa_core::{AppId, Reason};
use std::sync::Arc;
use std::time::SystemTime;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

fn event(input: &str) -> Event {
    let app = AppId::new("shop").unwrap();
    let at = SystemTime::UNIX_EPOCH;
    let mut event = Event::new(app, Labels::new([]), "d".into(), Reason::Decided, at);
    event.input = EventInput::Built(json(input));
    event
}

fn masked(input: &str, mask: &str) -> Event {
    let mut event = event(input);
    let rules = MaskRules::from_answer(Some(&json(mask))).unwrap();
    rules.apply(&mut event).unwrap();
    event
}

fn input(event: &Event) -> String {
    match &event.input {
        EventInput::Built(input) => input.to_json(),
        other => format!("{other:?}"),
    }
}

#[test]
fn rules_are_applied_in_their_order() {
    // Input, mask, input afterwards, erased, masked.
    for (before, mask, after, erased, set) in [
        (
            r#"{"a":1,"b":2}"#,
            r#"["/input/a"]"#,
            r#"{"b":2}"#,
            "/input/a",
            "",
        ),
        (
            r#"{"a":1}"#,
            r#"["/input/x", "/input/a/b", "/result", "/nd_builtin_cache/x"]"#,
            r#"{"a":1}"#,
            "",
            "",
        ),
        (
            r#"{"a":1}"#,
            r#"["/input", "/input", {"op":"upsert","path":"/input"}]"#,
            "None",
            "/input",
            "",
        ),
        (
            "[1,2,3,4]",
            r#"["/input/1","/input/1"]"#,
            "[1,4]",
            "/input/1 /input/1",
            "",
        ),
        (
            "[[1,2],3]",
            r#"["/input/0/+1","/input/-1","/input/9","/input/x"]"#,
            "[[1],3]",
            "/input/0/+1",
            "",
        ),
        (
            r#"{"":{"":1,"a":2}}"#,
            r#"["/input//"]"#,
            r#"{"":{"a":2}}"#,
            "/input//",
            "",
        ),
        (
            r#"{"a%2Fb":1,"a%252Fb":2,"a b":3,"a%20b":4}"#,
            r#"["/input/a%2Fb","/input/a b"]"#,
            r#"{"a b":3,"a%2Fb":1}"#,
            "/input/a%252Fb /input/a%20b",
            "",
        ),
        (
            "{}",
            r#"[{"op":"upsert","path":"/input/a/b/c","value":[1]},"/input/a/b/c/0"]"#,
            r#"{"a":{"b":{"c":[]}}}"#,
            "/input/a/b/c/0",
            "/input/a/b/c",
        ),
        (
            r#"{"a":[1,{"b":null}]}"#,
            r#"[{"op":"upsert","path":"/input/a/0"},{"op":"upsert","path":"/input/a/2","value":1},{"op":"upsert","path":"/input/a/1/b/c","value":1}]"#,
            r#"{"a":[null,{"b":null}]}"#,
            "",
            "/input/a/0",
        ),
        (
            "1",
            r#"[{"op":"upsert","path":"/input/a","value":1},{"op":"upsert","path":"/input","value":{"x":1}},{"op":"remove","path":"/input/x"}]"#,
            "{}",
            "/input/x",
            "/input",
        ),
    ] {
        let event = masked(before, mask);
        assert_eq!(input(&event), after, "{mask}");
        assert_eq!(event.erased.join(" "), erased, "{mask}");
        assert_eq!(event.masked.join(" "), set, "{mask}");
    }
}

#[test]
fn sets_are_arrays_and_other_keys_are_texts() {
    let mut event = event("{}");
    let set = Value::set([Value::from("b"), Value::from("a"), Value::from(1)]);
    event.result = Some(Value::object([
        (Value::from(1), set),
        (Value::from("1"), Value::from("text")),
        (Value::from(2), Value::set([Value::from(7), Value::from(5)])),
    ]));
    let rules = json(r#"["/result/2/0", "/result/1/0"]"#);
    MaskRules::from_answer(Some(&rules))
        .unwrap()
        .apply(&mut event)
        .unwrap();
    assert_eq!(event.result.unwrap().to_json(), r#"{"1":"text","2":[7]}"#);
    assert_eq!(*event.erased, ["/result/2/0".into()]);
}

#[test]
fn a_set_of_rules_has_the_order_of_its_values() {
    let rules = Value::set([
        json(r#"{"op":"upsert","path":"/input/a","value":1}"#),
        json(r#""/input/b""#),
        json(r#""/input/a""#),
    ]);
    let mut event = event(r#"{"a":0,"b":0}"#);
    MaskRules::from_answer(Some(&rules))
        .unwrap()
        .apply(&mut event)
        .unwrap();
    assert_eq!(input(&event), r#"{"a":1}"#);
    assert_eq!(*event.erased, ["/input/a".into(), "/input/b".into()]);
}

#[test]
fn one_bad_rule_is_no_mask_at_all() {
    for (mask, error) in [
        ("true", MaskError::NoCollection),
        ("false", MaskError::NoCollection),
        ("null", MaskError::NoCollection),
        ("{}", MaskError::NoCollection),
        (r#""/input""#, MaskError::NoCollection),
        (r#"["/input/a", 1]"#, MaskError::Element),
        (r#"[["/input/a"]]"#, MaskError::Element),
        (r#"[""]"#, MaskError::EmptyPath),
        (r#"[{"op":"remove"}]"#, MaskError::EmptyPath),
        (r#"[{"op":"remove","path":null}]"#, MaskError::PathType),
        (r#"["input/a"]"#, MaskError::NoSlash),
        (r#"["/labels"]"#, MaskError::Prefix),
        (r#"["/"]"#, MaskError::Prefix),
        (r#"["/INPUT"]"#, MaskError::Prefix),
        (r#"["/input/%zz"]"#, MaskError::Escape),
        (r#"[{"path":"/input/a"}]"#, MaskError::Op),
        (r#"[{"op":"delete","path":"/input/a"}]"#, MaskError::Op),
        (r#"[{"op":1,"path":"/input/a"}]"#, MaskError::Op),
    ] {
        assert_eq!(
            MaskRules::from_answer(Some(&json(mask))).unwrap_err(),
            error,
            "{mask}"
        );
    }
}

#[test]
fn undefined_is_no_rules() {
    for answer in [None, Some(json("[]"))] {
        assert!(MaskRules::from_answer(answer.as_ref()).unwrap().is_empty());
    }
}

#[test]
fn what_is_not_on_the_way_stays_shared() {
    let shared = json(r#"{"big":[1,2,3]}"#);
    let mut event = event("{}");
    event.input = EventInput::Built(Value::object([
        (Value::from("keep"), shared.clone()),
        (Value::from("drop"), Value::from(1)),
    ]));
    let rules = MaskRules::from_answer(Some(&json(r#"["/input/drop"]"#))).unwrap();
    rules.apply(&mut event).unwrap();
    let EventInput::Built(after) = &event.input else {
        panic!("the input is gone")
    };
    let kept = after.at(&["keep", "big"]).unwrap().as_array().unwrap();
    let before = shared.get("big").unwrap().as_array().unwrap();
    assert!(std::ptr::eq(kept, before));
}

struct Later;

impl DeferredInput for Later {
    fn build(&self) -> Value {
        json(r#"{"a":1,"b":2}"#)
    }
}

#[test]
fn a_deferred_input_is_built_only_for_rules_about_it() {
    let mut event = event("{}");
    event.input = EventInput::Deferred(Arc::new(Later));
    let about = |mask| MaskRules::from_answer(Some(&json(mask))).unwrap();
    about(r#"["/result"]"#).apply(&mut event).unwrap();
    assert!(matches!(event.input, EventInput::Deferred(_)));
    about(r#"["/input/a"]"#).apply(&mut event).unwrap();
    assert_eq!(input(&event), r#"{"b":2}"#);
}

#[test]
fn depth_is_no_danger() {
    let deep = format!("/input{}", "/a".repeat(200_000));
    let upsert = Value::object([
        (Value::from("op"), Value::from("upsert")),
        (Value::from("path"), Value::from(&deep)),
        (Value::from("value"), Value::from(1)),
    ]);
    let mut event = event("{}");
    let rules = Value::array([upsert, Value::from(deep)]);
    MaskRules::from_answer(Some(&rules))
        .unwrap()
        .apply(&mut event)
        .unwrap();
    assert_eq!((event.erased.len(), event.masked.len()), (1, 1));
}

#[test]
fn work_is_bounded() {
    let many = Value::array((0..=MAX_RULES).map(|_| Value::from("/input")));
    assert_eq!(
        MaskRules::from_answer(Some(&many)).unwrap_err(),
        MaskError::TooManyRules
    );
    let long = Value::from(format!("/input/{}", "a".repeat(10_000)));
    let long = Value::array((0..2_000).map(|_| long.clone()));
    assert_eq!(
        MaskRules::from_answer(Some(&long)).unwrap_err(),
        MaskError::TooMuchWork
    );
    let wide = Value::array((0..10_000).map(Value::from));
    let mut event = event("{}");
    event.input = EventInput::Built(wide.clone());
    let first = Value::array((0..5_000).map(|_| Value::from("/input/0")));
    let rules = MaskRules::from_answer(Some(&first)).unwrap();
    assert_eq!(rules.apply(&mut event).unwrap_err(), MaskError::TooMuchWork);
    assert_eq!(input(&event), wide.to_json());
    assert!(event.erased.is_empty());
}

#[test]
fn a_withheld_event_shows_nothing_that_a_mask_might_hide() {
    let mut event = event(r#"["secret"]"#);
    event.result = Some(Value::from("secret"));
    event.nd_builtin_cache = Some(Value::from("secret"));
    event.error = Some(EventError {
        code: "eval_builtin_error".into(),
        message: "secret".into(),
    });
    withhold(&mut event, &MaskError::Op.to_string());
    let mut text = Vec::new();
    super::super::write_event(&event, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert!(
        text.contains(r#""custom":{"withheld":"mask op is not supported"}"#),
        "{text}"
    );
    assert!(text.contains(r#""code":"eval_builtin_error""#), "{text}");
}
