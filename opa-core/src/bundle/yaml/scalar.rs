//! What an unquoted YAML scalar stands for.
//!
//! OPA reads YAML data with `go.yaml.in/yaml/v3` and hands it on as JSON, so these are the rules
//! of that library, not only those of YAML's core schema: `yes` and `on` are strings, but
//! `1_000` is a number and `0777` is octal. Numbers that are no integers pass through a `f64`.

use opa_rego::{Number, Value};

/// The meaning of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    /// An integer within `i64` or `u64`.
    Int(i128),
    Float(f64),
    Text,
}

/// Resolves the text of a plain scalar without a tag.
pub(super) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.bytes().next() {
        Some(b'.') => float(text).map_or(Scalar::Text, Scalar::Float),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = text.replace('_', "");
            integer(&plain)
                .map(Scalar::Int)
                .or_else(|| float(&plain).map(Scalar::Float))
                .unwrap_or(Scalar::Text)
        }
        _ => Scalar::Text,
    }
}

/// An integer as Go's `ParseInt` and `ParseUint` read it with base 0.
fn integer(plain: &str) -> Option<i128> {
    let (signed, digits) = match plain.strip_prefix(['+', '-']) {
        Some(digits) => (true, digits),
        None => (false, plain),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    // Rust would take a second sign.
    if !digits.bytes().next()?.is_ascii_hexdigit() {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let number = if plain.starts_with('-') {
        -magnitude
    } else {
        magnitude
    };
    let fits = i64::try_from(number).is_ok() || (!signed && u64::try_from(number).is_ok());
    fits.then_some(number)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?` within the range of a `f64`.
fn float(plain: &str) -> Option<f64> {
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    plain
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
}

impl Scalar {
    /// The value that OPA reads, or what was expected instead.
    pub(super) fn to_value(&self, text: &str) -> Result<Value, &'static str> {
        let number = match self {
            Self::Null => return Ok(Value::NULL),
            Self::Bool(bool) => return Ok(Value::from(*bool)),
            Self::Text => return Ok(Value::from(text)),
            Self::Int(number) => Number::parse(&number.to_string()),
            Self::Float(number) if number.is_finite() => Number::parse(&json_float(*number)),
            Self::Float(_) => None,
        };
        number
            .map(Value::from)
            .ok_or("a finite number, since JSON has no other")
    }

    /// The key of an object that a scalar makes, or what was expected instead.
    pub(super) fn to_key(&self, text: &str) -> Result<String, &'static str> {
        match self {
            Self::Text => Ok(text.to_owned()),
            Self::Bool(bool) => Ok(bool.to_string()),
            Self::Int(number) => Ok(number.to_string()),
            Self::Float(number) => Ok(key_float(*number)),
            Self::Null => Err("a key that is not null"),
        }
    }
}

/// A number as Go's `encoding/json` writes it: shortest, with an exponent below 1e-6 and from
/// 1e21 on.
fn json_float(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                format!("{mantissa}e+{exponent}")
            }
            _ => text,
        };
    }
    format!("{number}")
}

/// A number as Go's `FormatFloat(number, 'g', -1, 32)` writes it, which is what a key becomes.
fn key_float(number: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys are shortened to single precision, as OPA's are"
    )]
    let number = number as f32;
    if number.is_nan() {
        return ".nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}
