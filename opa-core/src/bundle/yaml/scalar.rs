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
        Some(b'.') if underscores_separate_digits(text) => {
            float(&text.replace('_', "")).map_or(Scalar::Text, Scalar::Float)
        }
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
    if let Some(number) = signed_after_prefix(plain) {
        return Some(number);
    }
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

/// `0b-1` and `0o+7`: the library takes the sign after the prefix too, if it is in lower case.
fn signed_after_prefix(plain: &str) -> Option<i128> {
    let (radix, number) = match plain.get(..2)? {
        "0b" => (2, plain.get(2..)?),
        "0o" => (8, plain.get(2..)?),
        _ => return None,
    };
    let signed = number.starts_with(['+', '-']);
    let number = i64::from_str_radix(number, radix).ok()?;
    signed.then_some(i128::from(number))
}

fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'_')
        .all(|(at, _)| digit(at.checked_sub(1)) && digit(at.checked_add(1)))
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
    /// An integer that a tag calls a float.
    pub(super) fn whole_float(number: i128) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a float is what was asked for")]
        let number = number as f64;
        Self::Float(number)
    }

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
    let (digits, exponent) = shortest(&format!("{number:e}"), |precision| {
        let text = format!("{number:.precision$e}");
        (text.parse() == Ok(number)).then_some(text)
    });
    if number != 0.0 && !(-6..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{}", exponent.unsigned_abs());
    }
    plain(&digits, exponent)
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
    let (digits, exponent) = shortest(&format!("{number:e}"), |precision| {
        let text = format!("{number:.precision$e}");
        (text.parse() == Ok(number)).then_some(text)
    });
    if number == 0.0 || (-4..6).contains(&exponent) {
        return plain(&digits, exponent);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// The shortest digits of a number and its decimal exponent. Where two candidates are equally
/// near, Rust's shortest form may take either, Go's takes the even one, as the exact form does.
fn shortest(text: &str, exact: impl Fn(usize) -> Option<String>) -> (String, i32) {
    let digits = text.split('e').next().unwrap_or_default();
    let precision = digits
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len());
    let exact = exact(precision);
    let text = exact.as_deref().unwrap_or(text);
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (digits.to_owned(), exponent.parse().unwrap_or_default())
}

/// Digits `d.ddd` with a decimal exponent as a number without one.
fn plain(digits: &str, exponent: i32) -> String {
    let sign = if digits.starts_with('-') { "-" } else { "" };
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let zeros = |count: usize| "0".repeat(count);
    let Ok(point) = usize::try_from(exponent) else {
        let leading = usize::try_from(exponent.unsigned_abs() - 1).unwrap_or_default();
        return format!("{sign}0.{}{digits}", zeros(leading));
    };
    match digits.split_at_checked(point + 1) {
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{digits}{}", zeros(point + 1 - digits.len())),
    }
}
