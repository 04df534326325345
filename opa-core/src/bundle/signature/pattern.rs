//! The patterns of `exclude_files`: the syntax of Go's `filepath.Match`, in which no wildcard
//! passes over a "/".

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// Whether it matches the whole name. A malformed pattern matches nothing.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        matches(&self.0, &name).unwrap_or(false)
    }
}

/// `None` stands for a malformed pattern. At each `*` only the last one can still give way, so
/// the time is bounded by the product of the lengths.
fn matches(pattern: &[char], name: &[char]) -> Option<bool> {
    let (mut pattern_left, mut name_left) = (pattern, name);
    let mut last_star: Option<(&[char], &[char])> = None;
    loop {
        let step = match pattern_left.split_first() {
            Some(('*', rest)) => {
                last_star = Some((rest, name_left));
                pattern_left = rest;
                continue;
            }
            Some(_) => one(pattern_left, name_left.first().copied())?,
            None if name_left.is_empty() => return Some(true),
            None => None,
        };
        if let (Some(rest), Some((_, after))) = (step, name_left.split_first()) {
            (pattern_left, name_left) = (rest, after);
            continue;
        }
        // The last `*` takes one character more.
        let Some((rest, from)) = last_star else {
            return Some(false);
        };
        let Some((_, after)) = from.split_first().filter(|(first, _)| **first != '/') else {
            return Some(false);
        };
        last_star = Some((rest, after));
        (pattern_left, name_left) = (rest, after);
    }
}

/// Matches one character. Answers what is left of the pattern, or that it doesn't match.
#[expect(clippy::option_option, reason = "malformed, or no match, or a match")]
fn one(pattern: &[char], char: Option<char>) -> Option<Option<&[char]>> {
    let (first, rest) = pattern.split_first()?;
    match first {
        '?' => Some(char.filter(|char| *char != '/').map(|_| rest)),
        '\\' => {
            let (escaped, rest) = rest.split_first()?;
            Some((char == Some(*escaped)).then_some(rest))
        }
        '[' => class(rest, char),
        literal => Some((char == Some(*literal)).then_some(rest)),
    }
}

#[expect(clippy::option_option, reason = "malformed, or no match, or a match")]
fn class(pattern: &[char], char: Option<char>) -> Option<Option<&[char]>> {
    let (negated, mut left) = match pattern.split_first()? {
        ('^', rest) => (true, rest),
        _ => (false, pattern),
    };
    let (mut found, mut first) = (false, true);
    loop {
        if let (Some((']', rest)), false) = (left.split_first(), first) {
            let matched = char.is_some() && found != negated;
            return Some(matched.then_some(rest));
        }
        first = false;
        let (low, rest) = bound(left)?;
        let (high, rest) = match rest.split_first() {
            Some(('-', rest)) => bound(rest)?,
            _ => (low, rest),
        };
        found |= char.is_some_and(|char| low <= char && char <= high);
        left = rest;
    }
}

fn bound(pattern: &[char]) -> Option<(char, &[char])> {
    let (bound, rest) = match pattern.split_first()? {
        ('-' | ']', _) => return None,
        ('\\', rest) => rest.split_first()?,
        other => other,
    };
    // What follows must at least be the end of the class.
    (!rest.is_empty()).then_some((*bound, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_of_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[x-]", "x", false),
            ("[-x]", "x", false),
            ("\\", "a", false),
            ("[a-b-c]", "a", false),
            ("[", "a", false),
            ("[^", "a", false),
            ("[^bc", "a", false),
            ("a[", "a", false),
            ("a[", "ab", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("**", "a/b", false),
            ("*/*", "a/b", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(100);
        assert!(!Pattern::new(&format!("{pattern}b")).matches(&"a".repeat(10_000)));
    }
}
