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
/// looks at some of their values, and counts the members of the others.
pub(super) fn bytes(event: &Event) -> usize {
    let input = match &event.input {
        EventInput::Built(input) => of_value(input),
        EventInput::Deferred(input) => input.size_hint(),
        EventInput::None | EventInput::Withheld => 0,
    };
    let others = [&event.result, &event.nd_builtin_cache];
    let others = others.into_iter().flatten().map(of_value);
    others.fold(EVENT.saturating_add(input), usize::saturating_add)
}

fn of_value(value: &Value) -> usize {
    let mut values = [value; VALUES];
    let (mut next, mut known, mut bytes) = (0, 1, 0_usize);
    while next < known
        && let Some(value) = values.get(next).copied()
    {
        next += 1;
        let members = value.len().unwrap_or_default();
        bytes = bytes.saturating_add(members.saturating_mul(MEMBER));
        let mut add = |value| {
            if let Some(place) = values.get_mut(known) {
                *place = value;
                known += 1;
            }
        };
        if let Some(text) = value.as_str() {
            bytes = bytes.saturating_add(text.len());
        } else if let Some(items) = value.as_array() {
            items.iter().take(VALUES).for_each(&mut add);
        } else if let Some(items) = value.as_set() {
            items.iter().take(VALUES).for_each(&mut add);
        } else if let Some(members) = value.as_object() {
            for (key, value) in members.iter().take(VALUES) {
                add(value);
                add(key);
            }
        }
    }
    bytes
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
}
