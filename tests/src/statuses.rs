//! Statuses of OPA and of ours, made comparable.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The one timer of bundles that OPA has and ours have not: modules are parsed when they are
/// compiled.
const PARSING: &str = "timer_rego_module_parse_ns";

/// A status without what differs from process to process: times as whether they are there, that
/// of the last success as whether it is the last request's too, texts of failures other than those
/// of a server, and timers of bundles, as whether they are there.
///
/// # Panics
/// When it is no status of a bundle `b`.
pub fn shape(mut status: Value) -> Value {
    status.as_object_mut().unwrap().remove("metrics");
    status["labels"]["id"] = "some".into();
    // Discovery and the status plugin itself become ready whenever they do.
    status["plugins"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["discovery", "status"].contains(&&**name));
    let bundle = status["bundles"]["b"].as_object_mut().unwrap();
    let last_request = bundle["last_request"].clone();
    for (name, value) in bundle {
        if name == "metrics" {
            let timers = value.as_object_mut().unwrap();
            timers.remove(PARSING);
            for timer in timers.values_mut() {
                assert!(timer.as_u64().is_some(), "{timer}");
                *timer = "some".into();
            }
        }
        if name.starts_with("last_") {
            let time = value.as_str().unwrap();
            let form = if time == "0001-01-01T00:00:00Z" {
                time
            } else if name == "last_successful_request" && *value == last_request {
                "that of the last request"
            } else {
                "some"
            };
            assert!(time.ends_with('Z') && time.contains('T'), "{time}");
            *value = form.into();
        }
        if name == "message" && !value.as_str().unwrap().starts_with("server replied with") {
            *value = "some".into();
        }
    }
    status
}

/// What differs, by its place.
pub fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", ours, theirs, &mut found);
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    let (Some(left), Some(right)) = (ours.as_object(), theirs.as_object()) else {
        if ours != theirs {
            found.push(format!("{path}: ours {ours}, OPA's {theirs}"));
        }
        return;
    };
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let null = &Value::Null;
        let side = |object: &Map<String, Value>| object.get(name).unwrap_or(null).clone();
        compare(&format!("{path}/{name}"), &side(left), &side(right), found);
    }
}

/// What `metrics.prometheus` of a status has: families with their help, type and the labels of
/// their series, without values.
///
/// # Panics
/// When it has none, or not in Prometheus' JSON.
pub fn series(status: &Value) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let families = status["metrics"]["prometheus"].as_object().unwrap();
    let objects = families.iter().filter(|(_, family)| family.is_object());
    let read = |(name, family): (&String, &Value)| {
        assert_eq!(family["name"], **name);
        let about = format!("{} {}", family["type"], family["help"]);
        let series = family["metric"].as_array().unwrap().iter();
        let series = series.map(|one| {
            let kinds: Vec<_> = one.as_object().unwrap().keys().collect();
            format!("{kinds:?} {}", one["label"])
        });
        (name.clone(), (about, series.collect()))
    };
    objects.map(read).collect()
}
