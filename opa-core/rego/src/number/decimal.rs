//! A decimal text taken apart, without copying its digits or expanding its exponent.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// The largest exponent that is told apart from its neighbours.
const EXPONENT_LIMIT: i64 = 1_000_000_000_000_000_000;

/// The longest integer that `i64` and `u64` can hold has 20 digits.
const MAX_INTEGER_EXPONENT: i64 = 19;

/// The length of the JSON number at the start of `bytes`, if there is one.
pub(crate) fn scan(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        bytes
            .iter()
            .skip(from)
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

/// `±d.ddd… × 10^exponent`, where the digits stay in the text.
#[derive(Clone, Copy)]
pub(super) struct Decimal {
    sign: Sign,
    /// The power of ten of the first significant digit; 0 for zero.
    exponent: i64,
    /// Where the text has its first and (exclusive) last digit that isn't zero.
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sign {
    Negative,
    Zero,
    Positive,
}

impl Decimal {
    /// Takes apart a text that [`scan`] has accepted.
    pub(super) fn read(text: &str) -> Self {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)),
            None => (text, 0),
        };
        let significant = |byte: u8| (b'1'..=b'9').contains(&byte);
        let bytes = mantissa.as_bytes();
        let Some(start) = bytes.iter().position(|byte| significant(*byte)) else {
            return Self {
                sign: Sign::Zero,
                exponent: 0,
                start: 0,
                end: 0,
            };
        };
        let end = bytes
            .iter()
            .rposition(|byte| significant(*byte))
            .map_or(start, |last| last + 1);
        let point = mantissa.find('.').unwrap_or(mantissa.len());
        let lead = if start < point {
            distance(start + 1, point)
        } else {
            -distance(point, start)
        };
        let sign = if bytes.first() == Some(&b'-') {
            Sign::Negative
        } else {
            Sign::Positive
        };
        Self {
            sign,
            exponent: exponent.saturating_add(lead),
            start,
            end,
        }
    }

    /// The value, if it is an integer of at most 20 digits.
    pub(super) fn to_integer(self, text: &str) -> Option<i128> {
        if self.sign == Sign::Zero {
            return Some(0);
        }
        if !(0..=MAX_INTEGER_EXPONENT).contains(&self.exponent) {
            return None;
        }
        let places = usize::try_from(self.exponent).ok()? + 1;
        let mut digits = self.digits(text);
        let mut value = 0;
        for _ in 0..places {
            value = value * 10 + i128::from(digits.next().unwrap_or(b'0') - b'0');
        }
        if digits.next().is_some() {
            return None;
        }
        Some(if self.sign == Sign::Negative {
            -value
        } else {
            value
        })
    }

    pub(super) fn cmp(self, text: &str, other: Self, other_text: &str) -> Ordering {
        let by_magnitude = || {
            self.exponent
                .cmp(&other.exponent)
                .then_with(|| self.digits(text).cmp(other.digits(other_text)))
        };
        self.sign.cmp(&other.sign).then_with(|| match self.sign {
            Sign::Negative => by_magnitude().reverse(),
            Sign::Zero => Ordering::Equal,
            Sign::Positive => by_magnitude(),
        })
    }

    pub(super) fn hash<H: Hasher>(self, text: &str, state: &mut H) {
        self.sign.hash(state);
        self.exponent.hash(state);
        for digit in self.digits(text) {
            state.write_u8(digit);
        }
    }

    /// The digits from the first to the last that isn't zero.
    fn digits(self, text: &str) -> impl Iterator<Item = u8> {
        let digits = text.get(self.start..self.end).unwrap_or_default();
        digits.bytes().filter(u8::is_ascii_digit)
    }
}

fn read_exponent(text: &str) -> i64 {
    let negative = text.starts_with('-');
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    let magnitude = match digits {
        "" => 0,
        digits => digits
            .parse()
            .map_or(EXPONENT_LIMIT, |value: i64| value.min(EXPONENT_LIMIT)),
    };
    if negative { -magnitude } else { magnitude }
}

/// A distance within a text, which no allocation lets grow beyond `i64::MAX`.
fn distance(from: usize, to: usize) -> i64 {
    i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX)
}
