use std::hash::{BuildHasher, RandomState};
use std::thread;

use super::*;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn nest(depth: usize, wrap: impl Fn(Value) -> Value, innermost: Value) -> Value {
    (0..depth).fold(innermost, |value, _| wrap(value))
}

/// The smallest stack that a server would give a thread, so that recursion can't hide.
fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn kinds_are_ordered_as_in_opa() {
    let ascending = [
        Value::NULL,
        Value::from(false),
        Value::from(true),
        Value::from(-1),
        Value::from(1),
        Value::from(""),
        Value::from("a"),
        Value::from("é"),
        Value::array([]),
        Value::array([Value::from(1)]),
        Value::array([Value::from(1), Value::NULL]),
        Value::array([Value::from(2)]),
        Value::empty_object(),
        json(r#"{"a": 1}"#),
        json(r#"{"a": 1, "b": 0}"#),
        json(r#"{"a": 2}"#),
        json(r#"{"b": 0}"#),
        Value::set([]),
        Value::set([Value::from(1)]),
        Value::set([Value::from(1), Value::from(2)]),
        Value::set([Value::from(2)]),
    ];
    for (i, left) in ascending.iter().enumerate() {
        for (j, right) in ascending.iter().enumerate() {
            assert_eq!(left.cmp(right), i.cmp(&j), "{left:?} {right:?}");
            assert_eq!(left == right, i == j, "{left:?} {right:?}");
        }
    }
}

#[test]
fn equality_and_hash_see_values_not_texts() {
    let (left, right) = (
        json(r#"{"a": [1.0, "x"], "b": {}}"#),
        json(r#"{"b": {}, "a": [1, "x"]}"#),
    );
    let hasher = RandomState::new();
    assert_eq!(left, right);
    assert_eq!(hasher.hash_one(&left), hasher.hash_one(&right));
    assert_ne!(left.to_json(), right.to_json());
    assert_ne!(Value::array([Value::from(1)]), Value::set([Value::from(1)]));
}

#[test]
fn sets_and_objects_are_sorted_and_distinct() {
    let set = Value::set([json("2"), json("1"), json("2.0"), json("\"1\"")]);
    assert_eq!(format!("{set:?}"), r#"{1, 2, "1"}"#);
    assert!(set.as_set().unwrap().contains(&json("1e0")));
    assert!(!set.as_set().unwrap().contains(&json("3")));

    let object = Value::object([
        (json("1"), json("\"first\"")),
        (json("[1]"), json("\"array\"")),
        (json("1.0"), json("\"last\"")),
    ]);
    assert_eq!(format!("{object:?}"), r#"{1: "last", [1]: "array"}"#);
    let view = object.as_object().unwrap();
    assert_eq!(view.get(&json("10e-1")), Some(&Value::from("last")));
    assert_eq!(view.get_str("1"), None);
    assert_eq!(
        (view.len(), view.is_empty(), view.iter().len()),
        (2, false, 2)
    );
}

#[test]
fn paths_lead_through_objects_and_arrays() {
    let value = json(r#"{"a": {"b": [10, {"c": true}]}, "0": "zero"}"#);
    assert_eq!(value.at(&["a", "b", "1", "c"]), Some(&Value::from(true)));
    assert_eq!(value.at(&["0"]), Some(&Value::from("zero")));
    assert_eq!(value.at(&[]), Some(&value));
    for path in [
        &["a", "b", "2"][..],
        &["a", "b", "01"],
        &["a", "b", "+1"],
        &["a", "x"],
        &["0", "0"],
    ] {
        assert_eq!(value.at(path), None, "{path:?}");
    }
}

#[test]
fn accessors_answer_for_their_kind_only() {
    let values = [
        (Value::NULL, Kind::Null, None),
        (Value::from(true), Kind::Boolean, None),
        (Value::from(3_u64), Kind::Number, None),
        (Value::from("s"), Kind::String, None),
        (Value::array([Value::NULL]), Kind::Array, Some(1)),
        (Value::empty_object(), Kind::Object, Some(0)),
        (Value::set([Value::NULL]), Kind::Set, Some(1)),
    ];
    for (value, kind, len) in &values {
        assert_eq!((value.kind(), value.len()), (*kind, *len));
        assert_eq!(value.is_null(), *kind == Kind::Null);
        assert_eq!(value.as_bool().is_some(), *kind == Kind::Boolean);
        assert_eq!(value.as_number().is_some(), *kind == Kind::Number);
        assert_eq!(value.as_i64(), (*kind == Kind::Number).then_some(3));
        assert_eq!(value.as_str().is_some(), *kind == Kind::String);
        assert_eq!(value.as_array().is_some(), *kind == Kind::Array);
        assert_eq!(value.as_object().is_some(), *kind == Kind::Object);
        assert_eq!(value.as_set().is_some(), *kind == Kind::Set);
    }
    assert_eq!(Value::default(), Value::NULL);
    assert_eq!(Kind::Boolean.to_string(), "boolean");
}

#[test]
fn depth_is_known() {
    assert_eq!(json("1").depth(), 0);
    assert_eq!(json("[]").depth(), 1);
    assert_eq!(json(r#"{"a": [[]], "b": 1}"#).depth(), 3);
    assert_eq!(Value::object([(json("[[1]]"), json("1"))]).depth(), 3);
    assert_eq!(Value::set([json("[]")]).depth(), 2);
}

#[test]
fn values_are_small_and_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Value>();
    assert!(size_of::<Value>() <= 24);
    let value = json(r#"{"a": [1, 2, 3]}"#);
    let (clone, original) = (value.clone(), value);
    assert!(std::ptr::eq(
        clone.get("a").unwrap(),
        original.get("a").unwrap()
    ));
}

#[test]
fn ten_thousand_levels_need_no_stack() {
    on_small_stack(|| {
        let hasher = RandomState::new();
        let wrappers: [fn(Value) -> Value; 4] = [
            |value| Value::array([value]),
            |value| Value::set([value]),
            |value| Value::object([(Value::from("k"), value)]),
            |value| Value::object([(value, Value::NULL)]),
        ];
        for wrap in wrappers {
            let deep = nest(10_000, wrap, Value::from(1));
            let same = nest(10_000, wrap, Value::from(1));
            let other = nest(10_000, wrap, Value::from(2));
            assert_eq!(deep.depth(), 10_000);
            assert!(deep == same && deep != other);
            assert!(deep.cmp(&same).is_eq() && deep.cmp(&other).is_lt());
            assert!(nest(10_001, wrap, Value::from(1)) > deep);
            assert_eq!(hasher.hash_one(&deep), hasher.hash_one(&same));
            assert_ne!(hasher.hash_one(&deep), hasher.hash_one(&other));
            assert!(format!("{deep:?}").len() > 20_000);
            // Keys in keys are the one thing whose text grows faster; see the JSON writer.
            assert!(deep.to_json().len() > 20_000);
            drop(deep.clone());
            let through = Value::from(deep.to_serde());
            assert_eq!(through.to_json(), deep.to_json());
        }
    });
}

#[test]
fn wide_and_deep_containers_come_apart_without_recursion() {
    on_small_stack(|| {
        let wide =
            |value: Value| Value::array([Value::from(0), value.clone(), Value::from("x"), value]);
        // Each level holds the one below twice: shared, or it wouldn't fit in memory.
        let shared = nest(5_000, wide, Value::from(1));
        assert_eq!(shared, shared.clone());
        drop(shared);
        let deep = nest(
            10_000,
            |value| Value::array([value, Value::array([])]),
            Value::NULL,
        );
        let other = nest(
            10_000,
            |value| Value::array([value, Value::empty_object()]),
            Value::NULL,
        );
        assert!(deep < other);
    });
}

#[test]
fn two_threads_may_drop_the_same_deep_value_at_once() {
    for _ in 0..20 {
        let deep = nest(2_000, |value| Value::array([value]), Value::NULL);
        let other = deep.clone();
        let thread = thread::spawn(move || drop(other));
        drop(deep);
        thread.join().unwrap();
    }
}

#[test]
fn serde_values_come_and_go() {
    let serde = serde_json::json!({
        "null": null, "true": true, "int": -3, "big": u64::MAX, "float": 1.5,
        "list": [1, [], {}, "x"], "object": {"a": {"b": []}},
    });
    let value = Value::from(&serde);
    assert_eq!(value.to_json(), serde.to_string());
    assert_eq!(value.to_serde(), serde);
    assert_eq!(Value::from(serde), value);
}

#[test]
fn serde_gets_the_nearest_number_it_can_hold() {
    assert_eq!(json("1e400").to_serde(), serde_json::json!(f64::MAX));
    assert_eq!(json("-1e400").to_serde(), serde_json::json!(f64::MIN));
    assert_eq!(json("1e2").to_serde(), serde_json::json!(100.0));
    assert_eq!(
        json("18446744073709551616").to_serde(),
        serde_json::json!(18446744073709551616.0)
    );
    let odd = Value::object([(json("[1]"), Value::set([json("2"), json("1")]))]);
    assert_eq!(odd.to_serde(), serde_json::json!({"[1]": [1, 2]}));
}
