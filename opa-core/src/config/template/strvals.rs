//! The grammar of OPA's `--set` and `--set-file`: `a.b[0].c=v,d={x,y}`.

use std::iter::Peekable;
use std::str::Chars;

use super::position::Cursor;

/// Array indices up to this one, as in OPA.
const MAX_INDEX: usize = 65_536;

/// Paths of at most this many steps, as deep as a file may be.
const MAX_STEPS: usize = 128;

/// One `path=value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) path: Vec<Step>,
    pub(super) value: Assigned<Word>,
    /// Where it begins.
    pub(super) start: Cursor,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(Word),
    Index(usize),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Assigned<T> {
    One(T),
    /// `{a,b}`
    List(Vec<T>),
}

/// Text without its escapes, and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) at: Cursor,
}

/// What is wrong, and with which assignment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) start: Cursor,
    pub(super) at: Cursor,
    pub(super) message: String,
}

/// Reads all assignments of a flag.
///
/// What OPA would take without any effect, or end with a panic for, is an error.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, Problem> {
    let mut parser = Parser {
        chars: text.chars().peekable(),
        at: Cursor::START,
        start: Cursor::START,
    };
    let mut all = vec![parser.assignment()?];
    while parser.chars.peek().is_some() {
        all.push(parser.assignment()?);
    }
    Ok(all)
}

struct Parser<'t> {
    chars: Peekable<Chars<'t>>,
    at: Cursor,
    /// Where the assignment begins.
    start: Cursor,
}

impl Parser<'_> {
    fn assignment(&mut self) -> Result<Assignment, Problem> {
        self.start = self.at;
        let mut path = Vec::new();
        while !self.step(&mut path)? {
            if path.len() > MAX_STEPS {
                return Err(self.problem(self.at, format!("expected at most {MAX_STEPS} levels")));
            }
        }
        let value = self.value()?;
        let start = self.start;
        Ok(Assignment { path, value, start })
    }

    /// Reads a key and the indices behind it. Answers whether the value follows.
    fn step(&mut self, path: &mut Vec<Step>) -> Result<bool, Problem> {
        let (word, mut stop) = self.until(&['=', '[', ',', '.']);
        if !matches!(stop, Some('=' | '[' | '.')) {
            let message = format!("key `{}` has no value", word.text);
            return Err(self.problem(word.at, message));
        }
        if word.text.is_empty() {
            return Err(self.problem(word.at, "expected a key, found nothing"));
        }
        path.push(Step::Key(word));
        while stop == Some('[') {
            path.push(Step::Index(self.index()?));
            let at = self.at;
            stop = self.next();
            if path.len() > MAX_STEPS || !matches!(stop, Some('=' | '[' | '.')) {
                return Err(self.problem(at, "expected `=`, `[` or `.` after an index"));
            }
        }
        Ok(stop == Some('='))
    }

    /// Reads an index and the bracket behind it.
    fn index(&mut self) -> Result<usize, Problem> {
        let (word, stop) = self.until(&[']']);
        // Go's Atoi takes a sign.
        let index = word.text.strip_prefix('+').unwrap_or(&word.text);
        let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|index| *index <= MAX_INDEX);
        match (index, stop) {
            (Some(index), Some(_)) if is_number => Ok(index),
            _ => {
                let message = format!("expected an index from 0 to {MAX_INDEX} and `]`");
                Err(self.problem(word.at, message))
            }
        }
    }

    fn value(&mut self) -> Result<Assigned<Word>, Problem> {
        if self.chars.peek() != Some(&'{') {
            return Ok(Assigned::One(self.until(&[',']).0));
        }
        let open = self.at;
        self.next();
        let mut items = Vec::new();
        loop {
            let (item, stop) = self.until(&[',', '}']);
            items.push(item);
            match stop {
                Some(',') => {}
                Some(_) => break,
                None => return Err(self.problem(open, "the list has no `}` at its end")),
            }
        }
        let at = self.at;
        match self.next() {
            None | Some(',') => Ok(Assigned::List(items)),
            Some(_) => Err(self.problem(at, "expected `,` after a list")),
        }
    }

    /// Reads up to one of `stops`, which it answers, or the end. A backslash takes what follows as
    /// it is.
    fn until(&mut self, stops: &[char]) -> (Word, Option<char>) {
        let mut word = Word {
            text: String::new(),
            at: self.at,
        };
        while let Some(c) = self.next() {
            match c {
                c if stops.contains(&c) => return (word, Some(c)),
                '\\' => word.text.extend(self.next()),
                c => word.text.push(c),
            }
        }
        (word, None)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.at.advance(c.encode_utf8(&mut [0; 4]));
        Some(c)
    }

    fn problem(&self, at: Cursor, message: impl Into<String>) -> Problem {
        Problem {
            start: self.start,
            at,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each assignment as `a.[0].b=v`, lists in braces.
    fn read(text: &str) -> Vec<String> {
        let show = |assignment: &Assignment| {
            let path: Vec<String> = assignment
                .path
                .iter()
                .map(|step| match step {
                    Step::Key(word) => word.text.clone(),
                    Step::Index(index) => format!("[{index}]"),
                })
                .collect();
            let value = match &assignment.value {
                Assigned::One(word) => word.text.clone(),
                Assigned::List(words) => {
                    let words: Vec<_> = words.iter().map(|word| &*word.text).collect();
                    format!("{{{}}}", words.join("|"))
                }
            };
            format!("{}={value}", path.join("/"))
        };
        parse(text).unwrap().iter().map(show).collect()
    }

    #[test]
    fn paths_lists_and_escapes_are_read() {
        for (text, expected) in [
            ("a.b=c", &["a/b=c"] as &[_]),
            ("a.b[0].c=v,d={x,y},e=", &["a/b/[0]/c=v", "d={x|y}", "e="]),
            ("a[1][2]=v", &["a/[1]/[2]=v"]),
            ("a[+1]=v", &["a/[1]=v"]),
            (r"a\.b\,c\=d\[e=v\,w\\", &[r"a.b,c=d[e=v,w\"]),
            (r"a=\{x,b=y", &["a={x", "b=y"]),
            ("a=b=c,", &["a=b=c"]),
            ("a={},b={x},", &["a={}", "b={x}"]),
            (r"a={x\,y,}", &["a={x,y|}"]),
            (" a =  b ", &[" a =  b "]),
            (r"a=b\", &["a=b"]),
            ("a]=}", &["a]=}"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_its_place() {
        for (text, column, message) in [
            ("", 1, "key `` has no value"),
            ("a", 1, "key `a` has no value"),
            ("a.b", 3, "key `b` has no value"),
            ("a=1,b", 5, "key `b` has no value"),
            ("a.b,c=1", 3, "key `b` has no value"),
            ("a=1,,b=2", 5, "key `` has no value"),
            ("=1", 1, "expected a key, found nothing"),
            (".a=1", 1, "expected a key, found nothing"),
            ("a..b=1", 3, "expected a key, found nothing"),
            ("[0]=1", 1, "expected a key, found nothing"),
            ("a[0].=1", 6, "expected a key, found nothing"),
            ("a[]=1", 3, "expected an index from 0 to 65536 and `]`"),
            ("a[-1]=1", 3, "expected an index from 0 to 65536 and `]`"),
            ("a[x]=1", 3, "expected an index from 0 to 65536 and `]`"),
            ("a[0=1", 3, "expected an index from 0 to 65536 and `]`"),
            ("a[65537]=1", 3, "expected an index from 0 to 65536 and `]`"),
            ("a[0]x=1", 5, "expected `=`, `[` or `.` after an index"),
            ("a[0]", 5, "expected `=`, `[` or `.` after an index"),
            ("ä={b", 3, "the list has no `}` at its end"),
            ("a={b}c=1", 6, "expected `,` after a list"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(
                (problem.at.column, &*problem.message),
                (column, message),
                "{text}"
            );
        }
        let deep = format!("a{}=1", "[0]".repeat(MAX_STEPS + 1));
        assert!(parse(&deep).is_err());
        let deep = format!("{}a=1", "a.".repeat(MAX_STEPS + 1));
        assert!(parse(&deep).is_err());
    }
}
