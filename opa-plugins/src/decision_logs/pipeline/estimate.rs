//! About how many bytes an event holds that waits to be encoded.

use opa_core::Value;
use opa_core::plugin::{Event, EventInput};

/// An event without its documents.
const EVENT: usize = 1024;

/// A member of an array, set or object.
const MEMBER: usize = 32;

/// How many values are looked at.
const VALUES: usize = 64;

/// About how many bytes `event` holds: its documents count as if nobody else had them. Cheap: it
/// looks at some of their values, and takes the others for as large as these are on average.
pub(super) fn bytes(event: &Event) -> usize {
    let input = match &event.input {
        EventInput::Built(input) => of_value(input),
        EventInput::Deferred(input) => input.size_hint(),
        EventInput::None | EventInput::Withheld => 0,
    };
    let others = [&event.result, &event.nd_builtin_cache];
    let others = others.into_iter().flatten();
    let custom = event.custom.iter().map(|(_, value)| value);
    let values = others.chain(custom).map(of_value);
    let headers = event.request_headers.iter().flat_map(|it| &it.values);
    let texts = headers.chain(event.error.as_ref().map(|error| &error.message));
    let texts = texts.map(|text| MEMBER + text.len());
    let more = values.chain(texts);
    more.fold(EVENT.saturating_add(input), usize::saturating_add)
}

fn of_value(value: &Value) -> usize {
    of_some(value, VALUES)
}

/// `looks` members are looked at, those of members included.
fn of_some(value: &Value, looks: usize) -> usize {
    if let Some(text) = value.as_str() {
        return text.len();
    }
    let members = value.len().unwrap_or_default();
    // Not all at one level: what is in them counts, too.
    let some = members.min(looks.div_ceil(4));
    if some == 0 {
        return members.saturating_mul(MEMBER);
    }
    let (step, looks) = (members / some, looks / some - 1);
    let size = |value: &Value| of_some(value, looks);
    let (mut looked_at, mut bytes) = (0_usize, 0_usize);
    let mut add = |size: usize| {
        looked_at += 1;
        bytes = bytes.saturating_add(size);
    };
    if let Some(items) = value.as_array() {
        items.iter().step_by(step).map(size).for_each(&mut add);
    } else if let Some(items) = value.as_set() {
        items.iter().step_by(step).map(size).for_each(&mut add);
    } else if let Some(members) = value.as_object() {
        let sizes = members.iter().step_by(step);
        sizes
            .map(|(key, value)| size(key).saturating_add(size(value)))
            .for_each(&mut add);
    }
    let bytes = match looked_at == members {
        true => bytes,
        false => (bytes / looked_at.max(1)).saturating_mul(members),
    };
    bytes.saturating_add(members.saturating_mul(MEMBER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_told_from_what_is_small() {
        let long = Value::from("x".repeat(1_000_000));
        let wide = Value::array((0..100_000).map(Value::from));
        let nested =
            Value::object([(Value::from("a"), Value::array([wide.clone(), long.clone()]))]);
        for (value, least) in [(long, 1_000_000), (wide, 3_200_000), (nested, 4_200_000)] {
            let bytes = of_value(&value);
            assert!((least..least * 2).contains(&bytes), "{bytes}");
        }
        assert!(of_value(&Value::from(1)) < 100);
    }
    #[test]
    fn what_is_not_looked_at_is_as_large_as_what_is() {
        let text = Value::from("x".repeat(1_000));
        let texts = Value::array(vec![text.clone(); 10_000]);
        let pairs = (0..10_000).map(|key| (Value::from(format!("key{key:0997}")), text.clone()));
        let object = Value::object(pairs);
        let rows = Value::array(vec![Value::array(vec![text.clone(); 100]); 100]);
        let mut deep = text;
        for _ in 0..50 {
            deep = Value::array([deep]);
        }
        for (value, holds) in [
            (texts, 10_000_000),
            (object, 20_000_000),
            (rows, 10_000_000),
            (deep, 1_000),
        ] {
            let bytes = of_value(&value);
            assert!((holds..holds * 3).contains(&bytes), "{bytes} of {holds}");
        }
    }

    #[test]
    fn headers_and_what_else_an_event_has_count() {
        let app = opa_core::AppId::new("shop").unwrap();
        let labels = opa_core::plugin::Labels::new([]);
        let at = std::time::SystemTime::UNIX_EPOCH;
        let reason = opa_core::Reason::Decided;
        let mut event = Event::new(app, labels, "1".into(), reason, at);
        event.request_headers = vec![opa_core::plugin::RequestHeader {
            name: "cookie".into(),
            values: vec!["x".repeat(10_000).into(); 5],
        }];
        event.custom = vec![("more", Value::from("x".repeat(7_000)))];
        event.error = Some(opa_core::plugin::EventError {
            code: "code".into(),
            message: "x".repeat(3_000).into(),
        });
        let bytes = bytes(&event);
        assert!((60_000..65_000).contains(&bytes), "{bytes}");
    }
}
