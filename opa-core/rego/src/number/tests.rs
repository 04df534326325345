use std::hash::{BuildHasher, RandomState};

use super::*;

fn number(text: &str) -> Number {
    Number::parse(text).unwrap_or_else(|| panic!("`{text}` must be a number"))
}

#[test]
fn takes_json_numbers_and_nothing_else() {
    for text in [
        "0", "-0", "1", "-12", "0.5", "1.0", "1e5", "1E+05", "1e-0", "-1.5e300", "100",
    ] {
        assert_eq!(number(text).as_str(), text);
    }
    for text in [
        "", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "1.e1", "0x1", "1_0", " 1", "1 ",
        "1e5x", "NaN", "Infinity", "--1", "1.2.3", "1e1.5", "\u{663}",
    ] {
        assert!(Number::parse(text).is_none(), "`{text}`");
    }
}

#[test]
fn equal_values_are_equal_however_written() {
    let hasher = RandomState::new();
    for same in [
        &["0", "-0", "0.0", "-0.00e5", "0e99999999999999999999999"][..],
        &["1", "1.0", "1.000", "10e-1", "0.001e3", "1e0", "1E-0"],
        &["100", "1e2", "100.0", "10e1", "0.1e3", "1E+2"],
        &["-1500", "-1.5e3", "-15e2"],
        &["0.5", "5e-1", "0.50", "0.0005e3"],
        &[
            "9223372036854775807",
            "9223372036854775807.0",
            "9.223372036854775807e18",
        ],
        &["-9223372036854775808", "-9.223372036854775808e18"],
        &[
            "9223372036854775808",
            "9.223372036854775808e18",
            "922337203685477580800e-2",
        ],
        &["1e1000000000", "10e999999999", "0.1e1000000001"],
        &[
            "123456789012345678901234567890",
            "1.2345678901234567890123456789e29",
        ],
    ] {
        for (left, right) in same.iter().flat_map(|l| same.iter().map(move |r| (l, r))) {
            let (left, right) = (number(left), number(right));
            assert_eq!(left, right);
            assert_eq!(left.cmp(&right), Ordering::Equal, "{left} {right}");
            assert_eq!(
                hasher.hash_one(&left),
                hasher.hash_one(&right),
                "{left} {right}"
            );
        }
    }
}

#[test]
fn orders_by_value_without_expanding_exponents() {
    let ascending = [
        "-1e1000000000",
        "-9223372036854775809",
        "-9223372036854775808",
        "-2",
        "-1.5",
        "-1",
        "-0.1",
        "-1e-1000000000",
        "0",
        "1e-1000000000",
        "1e-999999999",
        "0.09999999999999999999999999",
        "0.1",
        "0.10000000000000000000000001",
        "1",
        "1.0000000000000000000000000001",
        "2",
        "9",
        "10",
        "11.5",
        "99",
        "9223372036854775807",
        "9223372036854775807.5",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        "1.00000001e400",
        "1e1000000000",
        "2e1000000000",
        "1e999999999999999999",
    ];
    for (i, left) in ascending.iter().enumerate() {
        for (j, right) in ascending.iter().enumerate() {
            assert_eq!(
                number(left).cmp(&number(right)),
                i.cmp(&j),
                "{left} {right}"
            );
            assert_eq!(number(left) == number(right), i == j, "{left} {right}");
        }
    }
}

#[test]
fn a_huge_exponent_keeps_order_and_equality_lawful() {
    let (huge, larger) = (
        number("1e99999999999999999999"),
        number("1e999999999999999999999999"),
    );
    assert!(huge > number("1e999999999999999999"));
    assert_eq!(huge, larger);
    assert!(number("-1e99999999999999999999") < number("-5e100"));
    assert!(number("1e-99999999999999999999") > number("0"));
    assert!(number("1e-99999999999999999999") < number("1e-100"));
    assert_eq!(huge.as_str(), "1e99999999999999999999");
    assert_eq!(
        (huge.as_i64(), huge.as_u64(), huge.as_f64()),
        (None, None, None)
    );
}

#[test]
fn gives_machine_numbers_where_they_fit() {
    assert_eq!(number("1e2").as_i64(), Some(100));
    assert_eq!(number("1.5").as_i64(), None);
    assert_eq!(number("-0").as_i64(), Some(0));
    assert_eq!(number("9223372036854775808").as_i64(), None);
    assert_eq!(
        number("9223372036854775808").as_u64(),
        Some(9_223_372_036_854_775_808)
    );
    assert_eq!(number("18446744073709551615.0").as_u64(), Some(u64::MAX));
    assert_eq!(number("18446744073709551616").as_u64(), None);
    assert_eq!(number("-1").as_u64(), None);
    assert_eq!(number("1e19").as_u64(), Some(10_000_000_000_000_000_000));
    assert_eq!(number("99999999999999999999").as_u64(), None);
    assert_eq!(number("0.25").as_f64(), Some(0.25));
    assert_eq!(number("1e400").as_f64(), None);
    assert_eq!(number("1e-400").as_f64(), Some(0.0));
    assert_eq!(Number::from(-3_i64).as_f64(), Some(-3.0));
}

#[test]
fn machine_numbers_become_numbers() {
    assert_eq!(Number::from(u64::MAX).as_str(), "18446744073709551615");
    assert_eq!(Number::from(u64::MAX).as_u64(), Some(u64::MAX));
    assert_eq!(Number::from(i64::MIN).as_str(), "-9223372036854775808");
    assert_eq!(Number::from(7_usize), Number::from(7_u16));
    for (value, text) in [
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (-2.5e-7, "-2.5e-7"),
        (0.000_001, "0.000001"),
        (f64::MAX, "1.7976931348623157e+308"),
    ] {
        assert_eq!(Number::from_f64(value).unwrap().as_str(), text);
        assert_eq!(Number::from_f64(value).unwrap().as_f64(), Some(value));
    }
    assert!(Number::from_f64(f64::INFINITY).is_none());
}

#[test]
fn a_decimal_of_a_million_digits_costs_its_length() {
    let long = format!("0.{}1", "0".repeat(1_000_000));
    let (long, same) = (number(&long), number("1e-1000001"));
    assert_eq!(long, same);
    assert!(long < number("1e-1000000"));
}

#[test]
fn agrees_with_integers_scaled_by_hand() {
    // Every pair of small mantissas and exponents, against the same values times 1000.
    let mut numbers = Vec::new();
    for mantissa in -25_i64..=25 {
        for exponent in -3_i64..=3 {
            let scaled = mantissa * 10_i64.pow(u32::try_from(exponent + 3).unwrap());
            numbers.push((number(&format!("{mantissa}e{exponent}")), scaled));
        }
    }
    for (left, left_scaled) in &numbers {
        for (right, right_scaled) in &numbers {
            assert_eq!(
                left.cmp(right),
                left_scaled.cmp(right_scaled),
                "{left} {right}"
            );
            assert_eq!(left == right, left_scaled == right_scaled, "{left} {right}");
        }
    }
}
