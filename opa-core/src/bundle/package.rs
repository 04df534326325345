//! Finds the package of a policy file, which decides whether it lies in the bundle's roots.
//!
//! Only the head of the file is read, up to the first rule: what follows is for the engine, whose
//! error messages are better. The `package` clause is the same in all Rego versions.

use std::iter::Peekable;

use opa_rego::token::{Token, TokenError, TokenKind, Tokens, tokens};

/// What the head of a policy file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// The segments of the path, without `data`.
    pub(super) path: Vec<String>,
    /// Whether anything but imports follows. A package without rules collides with no data.
    pub(super) has_rules: bool,
}

/// Why there is no readable `package` clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackageError {
    /// Counted from 1.
    pub(super) line: usize,
    /// In OPA's words where it has some.
    pub(super) message: String,
}

/// Reads the `package` clause at the head of a policy file.
pub(super) fn package(source: &str) -> Result<Package, PackageError> {
    let mut head = Head {
        tokens: tokens(source).peekable(),
        line: 1,
    };
    head.keyword()?;
    let path = head.path()?;
    Ok(Package {
        path,
        has_rules: head.has_rules(),
    })
}

struct Head<'a> {
    tokens: Peekable<Tokens<'a>>,
    /// Where the last token stood.
    line: usize,
}

impl<'a> Head<'a> {
    fn keyword(&mut self) -> Result<(), PackageError> {
        match self.next()? {
            Some(token) if token.is("package") => Ok(()),
            Some(_) => Err(self.fault("package expected")),
            None => Err(self.fault("empty module")),
        }
    }

    /// `a.b["c"]`: no blanks but inside of brackets.
    fn path(&mut self) -> Result<Vec<String>, PackageError> {
        let (first, mut end) = self.name("expected a name after `package`")?;
        let mut path = vec![first];
        loop {
            let segment = if self.take(".", end) {
                let (name, end_of_name) = self.name("expected a name after `.`")?;
                end = end_of_name;
                name
            } else if self.take("[", end) {
                let segment = self.string()?;
                match self.next()? {
                    Some(token) if token.is("]") => end = end_of(&token),
                    _ => return Err(self.fault("expected `]` after the string")),
                }
                segment
            } else {
                return Ok(path);
            };
            path.push(segment);
        }
    }

    fn name(&mut self, expected: &str) -> Result<(String, usize), PackageError> {
        match self.next()? {
            Some(token) if token.kind == TokenKind::Identifier => {
                Ok((token.text.to_owned(), end_of(&token)))
            }
            _ => Err(self.fault(expected)),
        }
    }

    fn string(&mut self) -> Result<String, PackageError> {
        match self.next()? {
            Some(token) if token.kind == TokenKind::String => serde_json::from_str(token.text)
                .map_err(|_| self.fault("expected a string with valid escapes")),
            Some(token) if token.kind == TokenKind::RawString => {
                Ok(token.text.trim_matches('`').to_owned())
            }
            _ => Err(self.fault("expected a string between `[` and `]`")),
        }
    }

    /// Whether anything but `import path` and `import path as name` is left. What can't be read
    /// may be a rule.
    fn has_rules(&mut self) -> bool {
        loop {
            match self.next() {
                Ok(None) => return false,
                Ok(Some(token)) if token.is("import") => {}
                Ok(Some(token)) if token.is(";") => continue,
                _ => return true,
            }
            if self.path().is_err() {
                return true;
            }
            let alias = |token: &Result<Token<'_>, TokenError>| {
                token.as_ref().is_ok_and(|token| token.is("as"))
            };
            if self.tokens.next_if(alias).is_some() && self.name("").is_err() {
                return true;
            }
        }
    }

    /// Takes a token that stands right behind the last one.
    fn take(&mut self, text: &str, at: usize) -> bool {
        let expected = |token: &Result<Token<'_>, TokenError>| {
            token
                .as_ref()
                .is_ok_and(|token| token.is(text) && token.offset == at)
        };
        self.tokens.next_if(expected).is_some()
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, PackageError> {
        match self.tokens.next() {
            None => Ok(None),
            Some(Ok(token)) => {
                self.line = token.line;
                Ok(Some(token))
            }
            Some(Err(error)) => Err(PackageError {
                line: error.line(),
                message: error.message().to_owned(),
            }),
        }
    }

    fn fault(&self, message: &str) -> PackageError {
        PackageError {
            line: self.line,
            message: message.to_owned(),
        }
    }
}

fn end_of(token: &Token<'_>) -> usize {
    token.offset.saturating_add(token.text.len())
}

/// The clause as OPA prints it in messages: `package a.b["c-d"]`.
pub(super) fn shown(path: &[String]) -> String {
    let mut text = String::from("package ");
    for (position, segment) in path.iter().enumerate() {
        let mut chars = segment.chars();
        let plain = chars
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && chars.all(|char| char.is_ascii_alphanumeric() || char == '_');
        if position == 0 {
            text.push_str(segment);
        } else if plain {
            text.push('.');
            text.push_str(segment);
        } else {
            text.push_str(&format!("[{}]", serde_json::Value::from(segment.as_str())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: &str) -> Vec<String> {
        package(source).unwrap().path
    }

    #[test]
    fn paths() {
        assert_eq!(path("package a"), ["a"]);
        assert_eq!(path("package a.b.c\nallow := true"), ["a", "b", "c"]);
        assert_eq!(path("\u{feff}# hello\n\n  package\ta.b # why"), ["a", "b"]);
        assert_eq!(path("package a[\"b-c\"].d"), ["a", "b-c", "d"]);
        assert_eq!(
            path("package a[ \"x\\\"\\u00e9\" ][`r\\`]"),
            ["a", "x\"é", "r\\"]
        );
        assert_eq!(path("package a[\"b/c\"]"), ["a", "b/c"]);
        assert_eq!(path("package\r\n#x\r\n a"), ["a"]);
        assert_eq!(path("package _1;x"), ["_1"]);
        // A blank ends the path.
        assert_eq!(path("package a .b"), ["a"]);
        assert_eq!(path("package a\n[1]"), ["a"]);
    }

    #[test]
    fn rules_after_it() {
        let has_rules = |source| package(source).unwrap().has_rules;
        assert!(!has_rules("package a\n# allow := true\n"));
        assert!(!has_rules(
            "package a\nimport rego.v1\nimport data.b as c; import data[\"a b\"] as # x\n d"
        ));
        assert!(has_rules("package a\nimport rego.v1\nallow := true"));
        assert!(has_rules("package a\nimport data.x\nas := 1"));
        assert!(has_rules("package a\n\"weird\""));
    }

    #[test]
    fn faults_name_line_and_expectation() {
        let fault = |source| {
            let error = package(source).unwrap_err();
            (error.line, error.message)
        };
        for (source, line, message) in [
            ("", 1, "empty module"),
            ("# only\n# comments", 1, "empty module"),
            ("\nallow := true", 2, "package expected"),
            ("packagea", 1, "package expected"),
            ("\"package\" a", 1, "package expected"),
            ("package", 1, "expected a name after `package`"),
            ("package.a", 1, "expected a name after `package`"),
            ("package\n\"a\"", 2, "expected a name after `package`"),
            ("package a.", 1, "expected a name after `.`"),
            ("package a[1]", 1, "expected a string between `[` and `]`"),
            ("package a[\"b\"x", 1, "expected `]` after the string"),
        ] {
            assert_eq!(fault(source), (line, message.to_owned()), "{source}");
        }
        // What the tokenizer refuses.
        for source in [
            "package 1a",
            "package a[\"\\q\"]",
            "package a[\"b",
            "package a[`b",
            "\u{7}",
        ] {
            assert!(package(source).is_err(), "{source}");
        }
    }

    #[test]
    fn shown_as_opa_shows_it() {
        let shown_of = |source| shown(&path(source));
        assert_eq!(shown_of("package a.b"), "package a.b");
        assert_eq!(
            shown_of("package a[\"b-c\"].d[\"\"]"),
            "package a[\"b-c\"].d[\"\"]"
        );
    }
}
