//! Numbers as Rego sees them: compared by value, printed as they were written.
//!
//! ```
//! use opa_rego::Number;
//!
//! let price = Number::parse("1.50").expect("a JSON number");
//! assert_eq!(price, Number::parse("15e-1").expect("a JSON number"));
//! assert_eq!(price.as_str(), "1.50");
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use decimal::Decimal;

mod decimal;

/// A number of any size and precision.
///
/// Two numbers are equal when their values are equal (`1`, `1.0` and `10e-1`), and [`Hash`] and
/// [`Ord`] agree with that. The text of a number is kept as it was written. Comparing never
/// expands an exponent, so `1e1000000000` costs what its twelve characters cost.
///
/// Exponents beyond ±10<sup>18</sup> are compared as if they were ±10<sup>18</sup>; no system that
/// computes with them tells them apart.
#[derive(Clone)]
pub struct Number(Repr);

#[derive(Clone)]
enum Repr {
    /// An integer whose text is its canonical decimal form.
    Integer(i64),
    Written(Arc<Written>),
}

/// A number with a text of its own.
struct Written {
    text: Box<str>,
    value: Exact,
}

/// The value of a text; integers that fit are always `Integer`, so that equal numbers have equal
/// variants.
#[derive(Clone, Copy)]
enum Exact {
    Integer(i64),
    Decimal(Decimal),
}

impl Number {
    /// Reads a number in JSON's grammar (RFC 8259, section 6), and nothing around it.
    ///
    /// ```
    /// use opa_rego::Number;
    ///
    /// assert!(Number::parse("-1.5e+300").is_some());
    /// assert!(Number::parse("+1").is_none());
    /// assert!(Number::parse("01").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let length = decimal::scan(text.as_bytes())?;
        (length == text.len()).then(|| Self::from_scanned(text))
    }

    /// Takes a finite binary floating-point number with its shortest text, or `None` for NaN and
    /// the infinities.
    ///
    /// ```
    /// use opa_rego::Number;
    ///
    /// assert_eq!(Number::from_f64(0.1).map(|n| n.to_string()), Some("0.1".to_owned()));
    /// assert_eq!(Number::from_f64(f64::NAN), None);
    /// ```
    pub fn from_f64(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        let magnitude = value.abs();
        // The limits at which Go's encoding/json changes to an exponent.
        let text = if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
            let text = format!("{value:e}");
            if magnitude < 1.0 {
                text
            } else {
                text.replace('e', "e+")
            }
        } else {
            value.to_string()
        };
        Self::parse(&text)
    }

    /// The value, if it is an integer in the range of `i64` (also when written `1.0` or `1e2`).
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Integer(value) => Some(*value),
            Repr::Written(written) => match written.value {
                Exact::Integer(value) => Some(value),
                Exact::Decimal(_) => None,
            },
        }
    }

    /// The value, if it is an integer in the range of `u64` (also when written `1.0` or `1e2`).
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Repr::Integer(value) => u64::try_from(*value).ok(),
            Repr::Written(written) => match written.value {
                Exact::Integer(value) => u64::try_from(value).ok(),
                Exact::Decimal(value) => u64::try_from(value.to_integer(&written.text)?).ok(),
            },
        }
    }

    /// The nearest binary floating-point number, or `None` beyond the range of `f64`.
    pub fn as_f64(&self) -> Option<f64> {
        match &self.0 {
            #[expect(
                clippy::cast_precision_loss,
                reason = "the nearest value is what is asked for"
            )]
            Repr::Integer(value) => Some(*value as f64),
            Repr::Written(written) => written
                .text
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite()),
        }
    }

    /// The text: as it was written, or the decimal form of an integer.
    pub fn as_str(&self) -> Cow<'_, str> {
        match &self.0 {
            Repr::Integer(value) => Cow::Owned(value.to_string()),
            Repr::Written(written) => Cow::Borrowed(&written.text),
        }
    }

    /// Takes a text that [`decimal::scan`] has accepted as a whole.
    pub(crate) fn from_scanned(text: &str) -> Self {
        // JSON's grammar has no leading zeros and no plus sign, so only `-0` isn't canonical.
        if text != "-0"
            && let Ok(value) = text.parse()
        {
            return Self(Repr::Integer(value));
        }
        let decimal = Decimal::read(text);
        let value = decimal
            .to_integer(text)
            .and_then(|value| i64::try_from(value).ok())
            .map_or(Exact::Decimal(decimal), Exact::Integer);
        Self(Repr::Written(Arc::new(Written {
            text: text.into(),
            value,
        })))
    }

    fn exact(&self) -> Exact {
        match &self.0 {
            Repr::Integer(value) => Exact::Integer(*value),
            Repr::Written(written) => written.value,
        }
    }
}

pub(crate) use decimal::scan;

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(Repr::Integer(value))
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Self {
        Self::from(i64::from(value))
    }
}

impl From<u16> for Number {
    fn from(value: u16) -> Self {
        Self::from(i64::from(value))
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::from(i64::from(value))
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        match i64::try_from(value) {
            Ok(value) => Self::from(value),
            Err(_) => Self::from_scanned(&value.to_string()),
        }
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        match i64::try_from(value) {
            Ok(value) => Self::from(value),
            Err(_) => Self::from_scanned(&value.to_string()),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self.exact(), other.exact()) {
            (Exact::Integer(left), Exact::Integer(right)) => left == right,
            (Exact::Decimal(_), Exact::Decimal(_)) => self.cmp(other) == Ordering::Equal,
            _ => false,
        }
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.exact(), other.exact()) {
            (Exact::Integer(left), Exact::Integer(right)) => left.cmp(&right),
            (left, right) => {
                let (left_text, right_text) = (self.as_str(), other.as_str());
                left.decimal(&left_text)
                    .cmp(&left_text, right.decimal(&right_text), &right_text)
            }
        }
    }
}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (&self.0, self.exact()) {
            (Repr::Written(written), Exact::Decimal(decimal)) => decimal.hash(&written.text, state),
            (_, Exact::Integer(value)) => value.hash(state),
            // `exact` answers a decimal for written numbers only.
            (Repr::Integer(value), Exact::Decimal(_)) => value.hash(state),
        }
    }
}

impl Exact {
    fn decimal(self, text: &str) -> Decimal {
        match self {
            Self::Integer(_) => Decimal::read(text),
            Self::Decimal(decimal) => decimal,
        }
    }
}

/// Writes the text, see [`Number::as_str`].
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

/// Writes the text, see [`Number::as_str`].
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
