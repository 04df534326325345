//! The YAML 1.2 core schema (§10.3): which value an unquoted word is.

use std::sync::Arc;

use serde_json::Number;

use crate::config::node::Value;

/// Types an unquoted scalar. The error says what is wrong with it.
pub(crate) fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("`{text}` is not a number in JSON"));
    }
    Ok(match number(text, unsigned)? {
        Some(number) => Value::Number(number),
        None => Value::String(text.into()),
    })
}

/// Types the value of an override as OPA's flag does: booleans in any case, `null` for an empty
/// object, decimal integers without a leading zero that fit 64 bits; the rest are strings.
pub(crate) fn of_flag(text: &str) -> Value {
    if text.eq_ignore_ascii_case("true") {
        return Value::Bool(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Value::Bool(false);
    }
    if text.eq_ignore_ascii_case("null") {
        return Value::Object(Arc::new([]));
    }
    match text.parse::<i64>() {
        Ok(number) if text == "0" || !text.starts_with('0') => Value::Number(number.into()),
        _ => Value::String(text.into()),
    }
}

fn number(text: &str, unsigned: &str) -> Result<Option<Number>, String> {
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(None);
    }
    let radix = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        let valid = !digits.starts_with('+');
        u64::from_str_radix(digits, radix)
            .ok()
            .filter(|_| valid)
            .map(Number::from)
    };
    if let Some(number) = radix("0o", 8).or_else(|| radix("0x", 16)) {
        return Ok(Some(number));
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return integer(text, unsigned).map(Some);
    }
    Ok(is_float(unsigned)
        .then(|| text.parse().ok().and_then(Number::from_f64))
        .flatten())
}

/// Decimal digits. Integers beyond 64 bits are floats, as in OPA.
fn integer(text: &str, digits: &str) -> Result<Number, String> {
    if digits.len() > 1 && digits.starts_with('0') {
        // The text isn't repeated: it may be a token that lacks its quotes.
        return Err(
            "expected no leading zero, which is octal to OPA and decimal to YAML 1.2: \
                    leave it out or, if this is a text, put it in quotes"
                .to_owned(),
        );
    }
    let small = text
        .parse::<i64>()
        .map(Number::from)
        .or_else(|_| text.parse::<u64>().map(Number::from));
    let large = || text.parse().ok().and_then(Number::from_f64);
    small
        .ok()
        .or_else(large)
        .ok_or_else(|| "expected a number that fits 64 bits".to_owned())
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(unsigned: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn typed(text: &str) -> Json {
        let value = plain(text).unwrap();
        crate::config::node::Node {
            value,
            position: None,
            per_app: false,
            flag: None,
        }
        .to_json()
    }

    #[test]
    fn the_core_schema_types_words() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("True", json!(true)),
            ("false", json!(false)),
            ("0", json!(0)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("0o17", json!(15)),
            ("0xFf", json!(255)),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            ("1.5", json!(1.5)),
            ("-.5", json!(-0.5)),
            ("5.", json!(5.0)),
            ("1e3", json!(1000.0)),
            ("0.25E-2", json!(0.0025)),
        ] {
            assert_eq!(typed(text), expected, "{text}");
        }
    }

    #[test]
    fn all_else_is_a_string() {
        for text in [
            "yes",
            "no",
            "on",
            "Off",
            "y",
            "nULL",
            "tRUE",
            "1_000",
            "0b1",
            "-0x1",
            "0x",
            "0o8",
            "0o+7",
            "0x-1",
            ".",
            "-",
            "+",
            "1.2.3",
            "1e",
            "e3",
            "1e+",
            "+-1",
            "0x1FFFFFFFFFFFFFFFFF",
            "1e999",
            "2024-01-01",
            "12:30:45",
            " 1",
            "inf",
            "nan",
            "+.nan",
            "..5",
            "1 2",
        ] {
            assert_eq!(typed(text), json!(text), "{text}");
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_refused() {
        for text in [".inf", "-.INF", "+.Inf", ".nan", ".NaN"] {
            assert!(plain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn leading_zeros_are_refused_because_opa_reads_octal() {
        for text in ["010", "-007", "00", "+08"] {
            assert!(
                plain(text).is_err_and(|message| !message.contains(text)),
                "{text}"
            );
        }
        assert_eq!(typed("00.5"), json!(0.5));
    }
}
