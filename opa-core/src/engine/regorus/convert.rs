//! Values and numbers on their way into regorus and out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regorus::Value as Theirs;
use regorus::value::Object;

use crate::engine::{EvalContext, Interrupt};
use crate::{Kind, Number, Value};

/// How deep input and data may be nested. regorus drops, compares and prints its values by
/// recursion, on whatever thread it happens to be.
pub(super) const MAX_DEPTH: usize = 100;

/// How deep a result may be nested: a policy can build deeper values than it was given.
const MAX_RESULT_DEPTH: usize = 500;

/// How many digits a number may have when its exponent is written out. regorus writes it out, so
/// that `1e1000000000` would take gigabytes.
pub(super) const MAX_DIGITS: usize = 1_000;

/// What regorus can't hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsupported {
    Depth,
    Number,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => write!(f, "nested more than {MAX_DEPTH} levels deep"),
            Self::Number => write!(f, "a number of more than {MAX_DIGITS} digits"),
        }
    }
}

/// Why a result can't be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadResult {
    Depth,
    NotANumber,
    Interrupted(Interrupt),
}

impl From<Interrupt> for BadResult {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl fmt::Display for BadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => {
                write!(
                    f,
                    "the result is nested more than {MAX_RESULT_DEPTH} levels deep"
                )
            }
            Self::NotANumber => f.write_str("the result has a number that is not finite"),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

/// How objects are held: compact, or in the form that is built fastest.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Kept for a long time.
    Data,
    /// Used for one evaluation.
    Input,
}

/// Our value as one of regorus'.
pub(super) fn to_regorus(value: &Value, purpose: Use) -> Result<Theirs, Unsupported> {
    if value.depth() > MAX_DEPTH {
        return Err(Unsupported::Depth);
    }
    convert(value, purpose)
}

fn convert(value: &Value, purpose: Use) -> Result<Theirs, Unsupported> {
    if let Some(text) = value.as_str() {
        return Ok(Theirs::String(Arc::from(text)));
    }
    if let Some(object) = value.as_object() {
        let members = object
            .iter()
            .map(|(key, value)| Ok((convert(key, purpose)?, convert(value, purpose)?)));
        let members: BTreeMap<Theirs, Theirs> = members.collect::<Result<_, _>>()?;
        return Ok(match purpose {
            Use::Data => Theirs::from(members),
            Use::Input => Theirs::Object(Arc::new(Object::from(members))),
        });
    }
    if let Some(items) = value.as_array() {
        let items = items.iter().map(|item| convert(item, purpose));
        return Ok(Theirs::from(items.collect::<Result<Vec<_>, _>>()?));
    }
    if let Some(items) = value.as_set() {
        let items = items.iter().map(|item| convert(item, purpose));
        return Ok(Theirs::from(
            items.collect::<Result<std::collections::BTreeSet<_>, _>>()?,
        ));
    }
    if let Some(number) = value.as_number() {
        return to_their_number(number);
    }
    Ok(value.as_bool().map_or(Theirs::Null, Theirs::Bool))
}

/// Integers stay exact, all else becomes binary64.
fn to_their_number(number: &Number) -> Result<Theirs, Unsupported> {
    if let Some(integer) = number.as_i64() {
        return Ok(Theirs::from(integer));
    }
    let text = number.as_str();
    if !is_writable(&text) {
        return Err(Unsupported::Number);
    }
    Theirs::from_numeric_string(&text).map_err(|_| Unsupported::Number)
}

/// Whether a number in JSON's grammar has at most [`MAX_DIGITS`] digits when its exponent is
/// written out.
pub(super) fn is_writable(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent = exponent.parse::<i32>().map(i32::unsigned_abs);
    exponent.is_ok_and(|exponent| {
        usize::try_from(exponent).is_ok_and(|zeros| mantissa.len() + zeros <= MAX_DIGITS)
    })
}

/// A value of regorus' as one of ours, charged to `ctx`. Members without a value are left out.
pub(super) fn from_regorus(value: &Theirs, ctx: &mut EvalContext) -> Result<Value, BadResult> {
    read(value, MAX_RESULT_DEPTH, ctx)
}

fn read(value: &Theirs, levels: usize, ctx: &mut EvalContext) -> Result<Value, BadResult> {
    let below = || levels.checked_sub(1).ok_or(BadResult::Depth);
    charge(value, ctx)?;
    Ok(match value {
        Theirs::Null | Theirs::Undefined => Value::NULL,
        Theirs::Bool(value) => Value::from(*value),
        Theirs::String(text) => Value::from(Arc::clone(text)),
        Theirs::Number(_) => Value::from(read_number(value).ok_or(BadResult::NotANumber)?),
        Theirs::Array(items) => {
            let below = below()?;
            let items = items.iter().map(|item| read(item, below, ctx));
            Value::array(items.collect::<Result<Vec<_>, _>>()?)
        }
        Theirs::Set(items) => {
            let below = below()?;
            let items = items.iter().map(|item| read(item, below, ctx));
            Value::set(items.collect::<Result<Vec<_>, _>>()?)
        }
        Theirs::Object(members) => {
            let below = below()?;
            let defined = members
                .iter()
                .filter(|(_, value)| !matches!(value, Theirs::Undefined));
            let members =
                defined.map(|(key, value)| Ok((read(key, below, ctx)?, read(value, below, ctx)?)));
            Value::object(members.collect::<Result<Vec<_>, BadResult>>()?)
        }
    })
}

/// Charges what a value takes, without what is in it.
fn charge(value: &Theirs, ctx: &mut EvalContext) -> Result<(), Interrupt> {
    let member = size_of::<Value>();
    let bytes = match value {
        Theirs::String(text) => text.len(),
        Theirs::Array(items) => items.len() * member,
        Theirs::Set(items) => items.len() * member,
        Theirs::Object(members) => members.len() * 2 * member,
        _ => 0,
    };
    ctx.allocate(u64::try_from(member + bytes).unwrap_or(u64::MAX))
}

fn read_number(value: &Theirs) -> Option<Number> {
    let number = value.as_number().ok()?;
    if let Some(integer) = number.as_i64() {
        return Some(Number::from(integer));
    }
    if let Some(integer) = number.as_u64() {
        return Some(Number::from(integer));
    }
    match number.as_big() {
        Some(big) => Number::parse(&big.to_string()),
        None => Number::from_f64(number.as_f64()?),
    }
}

/// What lies at the rest of a path within a value: members of objects by their key, items of
/// arrays by their index, items of sets by themselves. A segment that is a canonical integer is
/// tried as a number, too.
pub(super) fn descend<'v>(
    value: &'v Theirs,
    path: impl IntoIterator<Item = &'v str>,
) -> Option<&'v Theirs> {
    path.into_iter().try_fold(value, |value, segment| {
        let text = Theirs::String(Arc::from(segment));
        let number = integer(segment).map(Theirs::from);
        match value {
            Theirs::Object(members) => members.get(&text).or_else(|| members.get(number.as_ref()?)),
            Theirs::Set(items) => items.get(&text).or_else(|| items.get(number.as_ref()?)),
            Theirs::Array(items) => items.get(usize::try_from(integer(segment)?).ok()?),
            _ => None,
        }
    })
}

/// The same within one of our values.
pub(super) fn descend_data<'v>(
    value: &'v Value,
    path: impl IntoIterator<Item = &'v str>,
) -> Option<&'v Value> {
    path.into_iter()
        .try_fold(value, |value, segment| match value.kind() {
            Kind::Array => value
                .as_array()?
                .get(usize::try_from(integer(segment)?).ok()?),
            _ => value.get(segment),
        })
}

/// Only the canonical form, so that each item has one path.
fn integer(segment: &str) -> Option<i64> {
    let integer: i64 = segment.parse().ok()?;
    (integer.to_string() == segment).then_some(integer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Budget;

    fn there_and_back(json: &str) -> String {
        let value = Value::from_json(json.as_bytes()).unwrap();
        let mut ctx = EvalContext::new(Budget::default());
        let [data, input] = [Use::Data, Use::Input].map(|purpose| {
            let theirs = to_regorus(&value, purpose).unwrap();
            from_regorus(&theirs, &mut ctx).unwrap().to_json()
        });
        assert_eq!(data, input);
        data
    }

    #[test]
    fn json_comes_back_as_it_was() {
        for json in [
            "null",
            "true",
            "false",
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "123456789012345678901234567890",
            "0.1",
            "-2.5",
            "1e-7",
            r#""""#,
            r#""a\"b\u0000é""#,
            "[]",
            "[1,[2,[]]]",
            "{}",
            r#"{"a":{"b":[null]},"c":1}"#,
        ] {
            assert_eq!(there_and_back(json), json);
        }
    }

    #[test]
    fn a_decimal_becomes_binary64_and_loses_its_text() {
        assert_eq!(there_and_back("1.0"), "1");
        assert_eq!(there_and_back("1e2"), "100");
        assert_eq!(there_and_back("1e25"), format!("1{}", "0".repeat(25)));
        assert_eq!(there_and_back("0.1000000000000000055"), "0.1");
    }

    #[test]
    fn sets_and_keys_of_any_kind_stay_what_they_are() {
        let set = Value::set([Value::from(2), Value::from("b"), Value::array([])]);
        let object = Value::object([(set.clone(), Value::from(1)), (Value::NULL, set.clone())]);
        let mut ctx = EvalContext::new(Budget::default());
        for value in [set, object] {
            let theirs = to_regorus(&value, Use::Data).unwrap();
            assert_eq!(from_regorus(&theirs, &mut ctx), Ok(value));
        }
    }

    #[test]
    fn numbers_that_would_be_written_out_without_end_are_refused() {
        for text in [
            "1e1000000000",
            "1e1001",
            "-1e-99999999999999999999",
            "1.5E+998",
        ] {
            let number = Value::from(Number::parse(text).unwrap());
            assert_eq!(
                to_regorus(&number, Use::Input),
                Err(Unsupported::Number),
                "{text}"
            );
        }
        let digits = Value::from(Number::parse(&"9".repeat(1001)).unwrap());
        assert_eq!(to_regorus(&digits, Use::Input), Err(Unsupported::Number));
        assert_eq!(there_and_back("1e900").len(), 901);
    }

    fn nested(levels: usize) -> Theirs {
        (0..levels).fold(Theirs::Null, |value, _| Theirs::from(vec![value]))
    }

    #[test]
    fn depth_is_bounded_in_both_directions() {
        let deep = (0..=MAX_DEPTH).fold(Value::NULL, |value, _| Value::array([value]));
        assert_eq!(to_regorus(&deep, Use::Data), Err(Unsupported::Depth));
        assert!(to_regorus(deep.at(&["0"]).unwrap(), Use::Data).is_ok());

        let mut ctx = EvalContext::new(Budget::default());
        assert!(from_regorus(&nested(MAX_RESULT_DEPTH), &mut ctx).is_ok());
        let refused = from_regorus(&nested(MAX_RESULT_DEPTH + 1), &mut ctx);
        assert_eq!(refused, Err(BadResult::Depth));
    }

    #[test]
    fn members_without_a_value_are_left_out() {
        let members = BTreeMap::from([
            (Theirs::from("a"), Theirs::Undefined),
            (Theirs::from("b"), Theirs::Null),
        ]);
        let mut ctx = EvalContext::new(Budget::default());
        let read = from_regorus(&Theirs::from(members), &mut ctx).unwrap();
        assert_eq!(read.to_json(), r#"{"b":null}"#);
    }

    #[test]
    fn a_result_beyond_the_memory_budget_interrupts() {
        let text = Theirs::from("x".repeat(1000));
        let mut ctx = EvalContext::new(Budget::default().memory(1000));
        let interrupted = from_regorus(&text, &mut ctx);
        assert_eq!(interrupted, Err(BadResult::Interrupted(Interrupt::Memory)));
    }

    #[test]
    fn a_path_descends_into_objects_arrays_and_sets() {
        let json = r#"{"a": [{"1": "x"}], "s": {}, "-0": 1}"#;
        let value = Value::from_json(json.as_bytes()).unwrap();
        let theirs = to_regorus(&value, Use::Data).unwrap();
        let paths: [(&[&str], Option<&str>); 9] = [
            (&["a", "0", "1"], Some(r#""x""#)),
            (&["a", "00"], None),
            (&["a", "-1"], None),
            (&["a", "+0"], None),
            (&["a", "1"], None),
            (&["a", "0", "x"], None),
            (&["-0"], Some("1")),
            (&["s"], Some("{}")),
            (&["s", "a", "b"], None),
        ];
        for (path, expected) in paths {
            let found = descend(&theirs, path.iter().copied()).map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{path:?}");
            let found = descend_data(&value, path.iter().copied()).map(Value::to_json);
            assert_eq!(found.as_deref(), expected, "{path:?}");
        }
        let set = Theirs::from(std::collections::BTreeSet::from([Theirs::from(1_i64)]));
        assert_eq!(descend(&set, ["1"]), Some(&Theirs::from(1_i64)));
        assert_eq!(descend(&set, ["2"]), None);
        let keyed = Theirs::from(BTreeMap::from([(Theirs::from(7_i64), Theirs::Null)]));
        assert_eq!(descend(&keyed, ["7"]), Some(&Theirs::Null));
    }
}
