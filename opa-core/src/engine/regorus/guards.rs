//! Bounds for built-ins that would run on, take all memory or overflow the stack: regorus looks at
//! its timer between calls only.
//!
//! A guard looks at the arguments before regorus' own function gets them. It takes the function's
//! place as an extension, which regorus prefers to its built-ins.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{error, fmt};

use regorus::unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Source, Span};
use regorus::{LimitError, Value as Theirs};

use super::text;

/// How many items a built-in may make of its arguments.
const MAX_ITEMS: u64 = 1_000_000;

/// How far `bits.lsh` may shift.
const MAX_SHIFT: i64 = 65_536;

/// Widths and precisions in `sprintf` have at most as many digits.
const MAX_WIDTH_DIGITS: usize = 4;

/// How many braces a glob pattern may have: regorus reads nested ones by recursion.
const MAX_BRACES: usize = 100;

/// The longest amount that is read, in bytes.
const MAX_UNIT_TEXT: usize = 300;

/// What a guard says about arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// The call fails as a built-in does.
    Fail(&'static str),
    /// The evaluation has used up its memory.
    Memory,
}

type Guard = fn(&[Theirs]) -> Verdict;

/// The guarded built-ins.
const GUARDS: [(&str, Guard); 8] = [
    ("bits.lsh", shift),
    ("glob.match", glob),
    ("net.cidr_expand", cidr),
    ("numbers.range", range),
    ("numbers.range_step", range_step),
    ("sprintf", format),
    ("units.parse", units),
    ("units.parse_bytes", units),
];

/// A guarded built-in that a policy calls.
#[derive(Clone, Copy)]
pub(super) struct Guarded {
    name: &'static str,
    guard: Guard,
    function: BuiltinFcn,
}

impl Guarded {
    /// The guarded built-ins among those that are called.
    pub(super) fn among(calls: impl Fn(&str) -> bool) -> Vec<Self> {
        let called = GUARDS.iter().filter(|(name, _)| calls(name));
        let known = called.filter_map(|(name, guard)| {
            BUILTINS.get(name).map(|function| Self {
                name,
                guard: *guard,
                function: *function,
            })
        });
        known.collect()
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn arity(&self) -> u8 {
        self.function.1
    }

    /// Calls the built-in, if the arguments are harmless. If they are not, `exhausted` is raised
    /// or the call fails: with an error if `strict`, else without a value.
    pub(super) fn call(
        &self,
        args: &[Theirs],
        strict: bool,
        exhausted: &AtomicBool,
    ) -> Result<Theirs, Failure> {
        let failed = match (self.guard)(args) {
            Verdict::Pass => {
                let Some((span, expr)) = &*NOWHERE else {
                    return Err(Failure(format!("{}: internal error", self.name)));
                };
                let params = vec![expr.clone(); args.len()];
                match (self.function.0)(span, &params, args, strict) {
                    Ok(value) => return Ok(value),
                    Err(error) if error.is::<LimitError>() => {
                        return Err(Failure(error.to_string()));
                    }
                    Err(error) => text::read(&error.to_string()).message,
                }
            }
            Verdict::Fail(text) => text.to_owned(),
            Verdict::Memory => {
                exhausted.store(true, Ordering::Relaxed);
                return Err(Failure(format!("{}: too large", self.name)));
            }
        };
        if strict {
            Err(Failure(format!("{}: {failed}", self.name)))
        } else {
            Ok(Theirs::Undefined)
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({})", self.name)
    }
}

/// Why a guarded call has no answer.
#[derive(Debug)]
pub(super) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Failure {}

/// A place in no module, for the errors of built-ins: regorus adds the place of the call.
static NOWHERE: LazyLock<Option<(Span, Ref<Expr>)>> = LazyLock::new(|| {
    let source = Source::from_contents(String::new(), String::new()).ok()?;
    let span = Span {
        source,
        line: 1,
        col: 1,
        start: 0,
        end: 0,
    };
    let expr = Expr::Null {
        span: span.clone(),
        value: Theirs::Null,
        eidx: 0,
    };
    Some((span, Ref::new(expr)))
});

fn shift(args: &[Theirs]) -> Verdict {
    let too_far = |by: i64| by > MAX_SHIFT;
    verdict(args.get(1).and_then(integer).is_some_and(too_far))
}

fn range(args: &[Theirs]) -> Verdict {
    let [from, to, ..] = args else {
        return Verdict::Pass;
    };
    // Numbers beyond 64 bits: regorus refuses ranges whose length is.
    let (Some(from), Some(to)) = (integer(from), integer(to)) else {
        return big_range(args);
    };
    verdict(from.abs_diff(to) >= MAX_ITEMS)
}

/// Bounds that are no 64-bit integers would be rare: only equal ones pass.
fn big_range(args: &[Theirs]) -> Verdict {
    let is_number = |arg: &Theirs| arg.as_number().is_ok();
    let [from, to, ..] = args else {
        return Verdict::Pass;
    };
    let fails_anyway = !is_number(from) || !is_number(to);
    if fails_anyway || from == to {
        Verdict::Pass
    } else {
        Verdict::Memory
    }
}

fn range_step(args: &[Theirs]) -> Verdict {
    match args.get(2).and_then(integer) {
        // A step of 0 makes regorus panic.
        Some(step) if step <= 0 => Verdict::Fail("step must be a positive integer"),
        Some(step) => {
            let [from, to, ..] = args else {
                return Verdict::Pass;
            };
            let (Some(from), Some(to)) = (integer(from), integer(to)) else {
                return big_range(args);
            };
            verdict(from.abs_diff(to) / step.unsigned_abs() >= MAX_ITEMS)
        }
        None => Verdict::Fail("step must be a positive integer"),
    }
}

fn cidr(args: &[Theirs]) -> Verdict {
    let Some((address, prefix)) = string(args, 0).and_then(|text| text.split_once('/')) else {
        return Verdict::Pass;
    };
    let bits: u32 = if address.contains(':') { 128 } else { 32 };
    let host_bits = prefix
        .parse::<u32>()
        .map(|prefix| bits.saturating_sub(prefix));
    verdict(host_bits.is_ok_and(|bits| bits >= MAX_ITEMS.ilog2()))
}

fn format(args: &[Theirs]) -> Verdict {
    let Some(text) = string(args, 0) else {
        return Verdict::Pass;
    };
    let is_wide = |directive: &str| {
        let ends = |c: char| !(c.is_ascii_digit() || "+-# .*[]".contains(c));
        let options = directive.split(ends).next().unwrap_or_default();
        longest_number(options) > MAX_WIDTH_DIGITS
    };
    if text.split('%').skip(1).any(is_wide) {
        Verdict::Fail("a width or precision is too large")
    } else {
        Verdict::Pass
    }
}

fn units(args: &[Theirs]) -> Verdict {
    let Some(text) = string(args, 0) else {
        return Verdict::Pass;
    };
    if text.len() > MAX_UNIT_TEXT
        || text
            .split(['e', 'E'])
            .skip(1)
            .any(|e| longest_number(e) > 3)
    {
        Verdict::Fail("the amount is too large")
    } else {
        Verdict::Pass
    }
}

fn glob(args: &[Theirs]) -> Verdict {
    let braces = string(args, 0).map_or(0, |pattern| pattern.matches('{').count());
    if braces > MAX_BRACES {
        Verdict::Fail("the pattern has too many braces")
    } else {
        Verdict::Pass
    }
}

fn verdict(is_too_large: bool) -> Verdict {
    if is_too_large {
        Verdict::Memory
    } else {
        Verdict::Pass
    }
}

/// The longest run of digits in a text.
fn longest_number(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .max()
        .unwrap_or(0)
}

fn integer(value: &Theirs) -> Option<i64> {
    value.as_number().ok()?.as_i64()
}

fn string(args: &[Theirs], at: usize) -> Option<&str> {
    args.get(at)?.as_string().ok().map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, args: &str, strict: bool) -> (Result<String, String>, bool) {
        let guarded = Guarded::among(|called| called == name);
        let [guarded] = guarded[..] else {
            panic!("{name} is not guarded")
        };
        let args = Theirs::from_json_str(args)
            .unwrap()
            .as_array()
            .unwrap()
            .to_vec();
        let exhausted = AtomicBool::new(false);
        let answer = guarded.call(&args, strict, &exhausted);
        let answer = answer
            .map(|value| value.to_string())
            .map_err(|error| error.to_string());
        (answer, exhausted.into_inner())
    }

    #[test]
    fn harmless_calls_are_answered_by_the_built_in() {
        for (name, args, expected) in [
            ("bits.lsh", "[1, 4]", "16"),
            ("glob.match", r#"["{a,b}.c", ["."], "b.c"]"#, "true"),
            (
                "net.cidr_expand",
                r#"["10.0.0.0/31"]"#,
                r#"["10.0.0.0","10.0.0.1"]"#,
            ),
            ("numbers.range", "[3, 1]", "[3,2,1]"),
            ("numbers.range_step", "[1, 5, 2]", "[1,3,5]"),
            ("sprintf", r#"["%s is %d%%", ["x", 100]]"#, r#""x is 100%""#),
            ("units.parse", r#"["10K"]"#, "10000"),
            ("units.parse_bytes", r#"["1e3KiB"]"#, "1024000"),
        ] {
            assert_eq!(
                call(name, args, false),
                (Ok(expected.to_owned()), false),
                "{name}"
            );
        }
        assert_eq!(GUARDS.len(), Guarded::among(|_| true).len());
    }

    #[test]
    fn what_would_take_all_memory_exhausts_the_evaluation() {
        for (name, args) in [
            ("bits.lsh", "[1, 1000000000000]"),
            ("net.cidr_expand", r#"["0.0.0.0/0"]"#),
            ("net.cidr_expand", r#"["::/0"]"#),
            ("numbers.range", "[1, 1000000000000]"),
            (
                "numbers.range",
                "[9223372036854775807, -9223372036854775808]",
            ),
            ("numbers.range", "[1, 18446744073709551615]"),
            ("numbers.range_step", "[1, 1000000000000, 2]"),
        ] {
            let (answer, exhausted) = call(name, args, false);
            assert!(answer.is_err() && exhausted, "{name} {args}");
        }
    }

    #[test]
    fn what_would_run_on_has_no_value_or_fails_in_strict_mode() {
        let braces = format!(r#"["{}", [], "x"]"#, "{".repeat(20_000));
        for (name, args) in [
            ("glob.match", braces.as_str()),
            ("numbers.range_step", "[1, 10, 0]"),
            ("numbers.range_step", "[1, 10, -1]"),
            ("numbers.range_step", r#"[1, 10, "x"]"#),
            ("sprintf", r#"["%.2000000000f", [1.5]]"#),
            ("sprintf", r#"["%2000000000d", [1]]"#),
            ("sprintf", r#"["%-+99999s", ["x"]]"#),
            ("units.parse", r#"["1e1000000000"]"#),
            ("units.parse_bytes", r#"["10e10000000Ei"]"#),
        ] {
            assert_eq!(
                call(name, args, false),
                (Ok("\"<undefined>\"".to_owned()), false),
                "{name}"
            );
            let (answer, exhausted) = call(name, args, true);
            let text = answer.unwrap_err();
            assert!(text.starts_with(name) && !exhausted, "{text}");
        }
    }

    #[test]
    fn an_error_of_the_built_in_keeps_its_text() {
        let (answer, _) = call("numbers.range", r#"["a", 1]"#, true);
        assert!(
            answer
                .unwrap_err()
                .contains("numbers.range` expects numeric")
        );
    }
}
