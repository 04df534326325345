//! The patterns of `file_rego_versions`: the syntax of Go's `gobwas/glob`, which OPA compiles
//! without separators, so that `*` passes over "/" too.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    parts: Vec<Part>,
    /// The one text that it matches, if it has no wildcards. `opa build` names files so.
    literal: Option<String>,
}

/// Groups nested deeper are refused, since matching recurses over them.
const MAX_NESTING: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    One,
    /// `*` and `**`
    Any,
    /// `[abc]`, `[a-c]`, either negated by `!`
    Class {
        negated: bool,
        set: Set,
    },
    /// `{a,b}`
    Alternatives(Vec<Vec<Part>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    Of(Vec<char>),
    Range(char, char),
}

impl Glob {
    /// Compiles a pattern, or says what is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<Self, &'static str> {
        let mut parser = Parser {
            rest: pattern.chars().peekable(),
        };
        let parts = parser.sequence(0)?;
        let literal = parts.iter().map(Part::literal).collect();
        Ok(Self { parts, literal })
    }

    /// An upper bound of the steps that matching takes.
    pub(super) fn cost(&self, text: &str) -> u64 {
        match self.literal {
            Some(_) => 1,
            None => (count(&self.parts) as u64).saturating_mul(text.len() as u64 + 1),
        }
    }

    /// Whether the pattern matches the whole text. Positions are followed as a set, without
    /// backtracking.
    pub(super) fn matches(&self, text: &str) -> bool {
        if let Some(literal) = &self.literal {
            return literal == text;
        }
        let text: Vec<char> = text.chars().collect();
        let mut start = vec![false; text.len() + 1];
        if let Some(first) = start.first_mut() {
            *first = true;
        }
        follow(&self.parts, start, &text).last() == Some(&true)
    }
}

impl Part {
    fn literal(&self) -> Option<char> {
        match self {
            Self::Char(char) => Some(*char),
            _ => None,
        }
    }
}

fn count(parts: &[Part]) -> usize {
    let inner = parts.iter().map(|part| match part {
        Part::Alternatives(alternatives) => alternatives.iter().map(|parts| 1 + count(parts)).sum(),
        Part::Class {
            set: Set::Of(chars),
            ..
        } => chars.len(),
        _ => 0,
    });
    parts.len() + inner.sum::<usize>()
}

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Parser<'_> {
    /// Parts up to the end of the pattern, or inside a group up to its next `,` or `}`.
    fn sequence(&mut self, nesting: usize) -> Result<Vec<Part>, &'static str> {
        let mut parts = Vec::new();
        while let Some(&next) = self.rest.peek() {
            if nesting > 0 && matches!(next, ',' | '}') {
                break;
            }
            self.rest.next();
            parts.push(match next {
                '?' => Part::One,
                '*' => Part::Any,
                '[' => self.class()?,
                '{' => self.alternatives(nesting + 1)?,
                '\\' => Part::Char(self.rest.next().ok_or("trailing backslash")?),
                other => Part::Char(other),
            });
        }
        Ok(parts)
    }

    fn alternatives(&mut self, nesting: usize) -> Result<Part, &'static str> {
        if nesting > MAX_NESTING {
            return Err("groups nested too deep");
        }
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence(nesting)?);
            match self.rest.next() {
                Some(',') => {}
                Some(_) => return Ok(Part::Alternatives(alternatives)),
                None => return Err("unclosed `{`"),
            }
        }
    }

    fn class(&mut self) -> Result<Part, &'static str> {
        let unclosed = "unclosed `[`";
        let negated = self.rest.next_if_eq(&'!').is_some();
        let first = self.rest.next().ok_or(unclosed)?;
        if self.rest.next_if_eq(&'-').is_some() {
            let last = self.rest.next().ok_or(unclosed)?;
            if last < first {
                return Err("range ends before it begins");
            }
            if self.rest.next().ok_or(unclosed)? != ']' {
                return Err("expected `]` after a range");
            }
            let set = Set::Range(first, last);
            return Ok(Part::Class { negated, set });
        }
        let mut set = Vec::new();
        let mut next = first;
        while next != ']' {
            set.push(match next {
                '\\' => self.rest.next().ok_or("trailing backslash")?,
                other => other,
            });
            next = self.rest.next().ok_or(unclosed)?;
        }
        if set.is_empty() {
            return Err("empty `[]`");
        }
        let set = Set::Of(set);
        Ok(Part::Class { negated, set })
    }
}

/// The positions that can be reached from `at` by matching all parts.
fn follow(parts: &[Part], mut at: Vec<bool>, text: &[char]) -> Vec<bool> {
    for part in parts {
        at = match part {
            Part::Char(expected) => advance(&at, text, |char| char == *expected),
            Part::One => advance(&at, text, |_| true),
            Part::Class { negated, set } => {
                advance(&at, text, |char| set.contains(char) != *negated)
            }
            Part::Any => {
                let mut reached = false;
                at.into_iter()
                    .map(|here| {
                        reached |= here;
                        reached
                    })
                    .collect()
            }
            Part::Alternatives(alternatives) => alternatives
                .iter()
                .map(|parts| follow(parts, at.clone(), text))
                .reduce(|a, b| a.iter().zip(b).map(|(a, b)| *a || b).collect())
                .unwrap_or(at),
        };
    }
    at
}

fn advance(at: &[bool], text: &[char], accepts: impl Fn(char) -> bool) -> Vec<bool> {
    let stepped = at
        .iter()
        .zip(text)
        .map(|(here, char)| *here && accepts(*char));
    std::iter::once(false).chain(stepped).collect()
}

impl Set {
    fn contains(&self, char: char) -> bool {
        match self {
            Self::Of(chars) => chars.contains(&char),
            Self::Range(first, last) => (*first..=*last).contains(&char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn literal_paths_match_themselves() {
        assert!(matches("/a/b.rego", "/a/b.rego"));
        assert!(!matches("/a/b.rego", "a/b.rego"));
        assert!(!matches("/a/b.rego", "/a/b.rego2"));
        assert!(matches("", ""));
        assert!(matches("a,b}]-!", "a,b}]-!"));
    }

    #[test]
    fn wildcards_pass_over_slashes() {
        assert!(matches("*/v0/*", "/x/v0/y/z.rego"));
        assert!(matches("**.rego", "/x/y.rego"));
        assert!(matches("*", ""));
        assert!(matches("/?.rego", "/é.rego"));
        assert!(!matches("/?.rego", "/ab.rego"));
        assert!(!matches("*/v0/*", "/x/v1/y.rego"));
    }

    #[test]
    fn classes() {
        assert!(matches("/[abc].rego", "/b.rego"));
        assert!(!matches("/[!abc].rego", "/b.rego"));
        assert!(matches("/[a-c].rego", "/c.rego"));
        assert!(matches("/[!a-c].rego", "/d.rego"));
        assert!(matches("/[\\]x]", "/]"));
        assert!(matches("/[ab-]", "/-"));
    }

    #[test]
    fn groups_nest() {
        assert!(matches("/{a,b{c,d}*}.rego", "/bd/x.rego"));
        assert!(matches("/{a,}.rego", "/.rego"));
        assert!(!matches("/{a,b}.rego", "/c.rego"));
        assert!(matches("\\{a\\*", "{a*"));
    }

    #[test]
    fn faulty_patterns_are_named() {
        for pattern in [
            "{a", "[a", "[", "[]", "[!]", "[a-", "[a-b", "[b-a]", "[a-bc]", "a\\",
        ] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
        assert!(Glob::new(&"{".repeat(100_000)).is_err());
    }

    #[test]
    fn many_wildcards_stay_cheap() {
        let text = format!("/{}b", "a".repeat(4_000));
        assert!(!matches(&"*a".repeat(400), &text));
        assert!(matches(&"*a".repeat(400), &text[..4_001]));
    }
}
