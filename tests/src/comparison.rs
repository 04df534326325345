//! Compares two answers as JSON documents, and holds the differences against a list of those that
//! are known, each with its cause.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// A place where two documents differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// A JSON pointer.
    pub pointer: String,
    /// What the first has there; `None` when it has nothing.
    pub theirs: Option<Value>,
    /// What the second has there; `None` when it has nothing.
    pub ours: Option<Value>,
}

/// All differences. Only objects are looked into; everything else is compared as a whole.
pub fn differences(theirs: &Value, ours: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(theirs), Some(ours), &mut found);
    found
}

fn compare(
    pointer: &str,
    theirs: Option<&Value>,
    ours: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (theirs, ours) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for name in names {
                // RFC 6901, section 3.
                let escaped = name.replace('~', "~0").replace('/', "~1");
                let pointer = format!("{pointer}/{escaped}");
                compare(&pointer, left.get(name), right.get(name), found);
            }
        }
        _ if theirs == ours => {}
        _ => found.push(Difference {
            pointer: pointer.to_owned(),
            theirs: theirs.cloned(),
            ours: ours.cloned(),
        }),
    }
}

/// A difference that is known: where, in which case, what, and why that is right.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    case: &'static str,
    pointer: &'static str,
    theirs: &'static str,
    ours: &'static str,
    cause: &'static str,
}

/// For a value: whatever it is.
pub const ANY: &str = "*";

/// For a value: there is none.
pub const NOTHING: &str = "nothing";

const EVERYWHERE: &str = "*";

impl Known {
    /// A difference in the one case `case`.
    ///
    /// `pointer` is a JSON pointer. `theirs` and `ours` are the two values as JSON text, [`ANY`] or
    /// [`NOTHING`].
    pub const fn at(
        case: &'static str,
        pointer: &'static str,
        theirs: &'static str,
        ours: &'static str,
        cause: &'static str,
    ) -> Known {
        Known {
            case,
            pointer,
            theirs,
            ours,
            cause,
        }
    }

    /// A difference that may show in any case, and does in one at least.
    pub const fn everywhere(
        pointer: &'static str,
        theirs: &'static str,
        ours: &'static str,
        cause: &'static str,
    ) -> Known {
        Known::at(EVERYWHERE, pointer, theirs, ours, cause)
    }

    fn covers(&self, case: &str, difference: &Difference) -> bool {
        (self.case == EVERYWHERE || self.case == case)
            && self.is_place_of(difference)
            && is(self.theirs, &difference.theirs)
            && is(self.ours, &difference.ours)
    }

    /// Where any value may stand, all below it may differ.
    fn is_place_of(&self, difference: &Difference) -> bool {
        let below = difference.pointer.strip_prefix(self.pointer);
        let any = self.theirs == ANY && self.ours == ANY;
        below.is_some_and(|rest| rest.is_empty() || any && rest.starts_with('/'))
    }
}

fn is(expected: &str, value: &Option<Value>) -> bool {
    expected == ANY || expected == text(value)
}

fn text(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or_else(|| NOTHING.to_owned(), Value::to_string)
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.case, self.pointer, self.cause)
    }
}

/// Collects the differences of a run.
#[derive(Debug)]
pub struct Judge<'a> {
    known: &'a [Known],
    seen: Vec<bool>,
    complaints: Vec<String>,
}

impl<'a> Judge<'a> {
    /// For a list of known differences.
    pub fn new(known: &'a [Known]) -> Judge<'a> {
        Judge {
            known,
            seen: vec![false; known.len()],
            complaints: Vec::new(),
        }
    }

    /// Compares the two answers of one case.
    pub fn compare(&mut self, case: &str, theirs: &Value, ours: &Value) {
        for difference in differences(theirs, ours) {
            let mut listed = false;
            for (known, seen) in self.known.iter().zip(&mut self.seen) {
                if known.covers(case, &difference) {
                    listed = true;
                    *seen = true;
                }
            }
            if !listed {
                self.complaints.push(complaint(case, &difference));
            }
        }
    }

    /// What is wrong with the run: each difference that isn't listed, and each listed one that
    /// didn't show.
    pub fn complaints(self) -> Vec<String> {
        let unseen = self.known.iter().zip(self.seen).filter(|(_, seen)| !seen);
        let unseen = unseen.map(|(known, _)| format!("listed, but agrees: {known}"));
        self.complaints.into_iter().chain(unseen).collect()
    }
}

fn complaint(case: &str, difference: &Difference) -> String {
    let (theirs, ours) = (text(&difference.theirs), text(&difference.ours));
    format!(
        "{case}: at {} theirs is {theirs}, ours is {ours}",
        difference.pointer
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: [Known; 2] = [
        Known::everywhere("/time", ANY, ANY, "the clock"),
        Known::at("a: b", "/status", "1", "2", "a reason"),
    ];

    fn run(cases: &[(&str, Value, Value)]) -> Vec<String> {
        let mut judge = Judge::new(&KNOWN);
        for (case, theirs, ours) in cases {
            judge.compare(case, theirs, ours);
        }
        judge.complaints()
    }

    #[test]
    fn differences_are_found_at_their_places() {
        let left = json!({"same": {"x": [1]}, "list": [1, 2], "left": null, "a/b": {"c~d": 1}});
        let right = json!({"same": {"x": [1]}, "list": [2, 1], "right": 1, "a/b": {"c~d": 2}});
        let pointers: Vec<_> = differences(&left, &right)
            .into_iter()
            .map(|d| d.pointer)
            .collect();
        assert_eq!(pointers, ["/a~1b/c~0d", "/left", "/list", "/right"]);
    }

    #[test]
    fn a_null_is_not_an_absent_member() {
        assert_eq!(
            differences(&json!({"a": null}), &json!({})),
            [Difference {
                pointer: "/a".to_owned(),
                theirs: Some(Value::Null),
                ours: None
            }]
        );
    }

    fn case(name: &'static str, theirs: Value, ours: Value) -> (&'static str, Value, Value) {
        (name, theirs, ours)
    }

    #[test]
    fn what_is_listed_and_differs_is_no_complaint() {
        let cases = [
            case(
                "a: b",
                json!({"status": 1, "time": {"s": 1}}),
                json!({"status": 2, "time": {"s": 2}}),
            ),
            case("a: c", json!({"time": 1}), json!({"time": 1})),
        ];
        assert_eq!(run(&cases), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_listed_is_a_complaint() {
        let cases = [
            case(
                "a: b",
                json!({"status": 1, "time": 1}),
                json!({"status": 2, "time": 2}),
            ),
            case(
                "a: c",
                json!({"status": 1, "timer": 1}),
                json!({"status": 2}),
            ),
        ];
        let expected = [
            "a: c: at /status theirs is 1, ours is 2",
            "a: c: at /timer theirs is 1, ours is nothing",
        ];
        assert_eq!(run(&cases), expected);
    }

    #[test]
    fn another_difference_at_a_listed_place_is_a_complaint() {
        let cases = [case(
            "a: b",
            json!({"status": 1, "time": 1}),
            json!({"status": 3}),
        )];
        let expected = [
            "a: b: at /status theirs is 1, ours is 3",
            "listed, but agrees: a: b at /status (a reason)",
        ];
        assert_eq!(run(&cases), expected);
    }

    #[test]
    fn what_is_listed_and_agrees_is_a_complaint() {
        let cases = [case("a: b", json!({"time": 1}), json!({"time": 2}))];
        assert_eq!(
            run(&cases),
            ["listed, but agrees: a: b at /status (a reason)"]
        );
    }
}
