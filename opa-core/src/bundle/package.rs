//! Finds the package of a policy file, which decides whether it lies in the bundle's roots.
//!
//! Only the `package` clause is read: what follows is for the engine, whose error messages are
//! better. The clause is the same in all Rego versions.

/// What the head of a policy file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// The segments of the path, without `data`.
    pub(super) path: Vec<String>,
    /// Whether anything but imports follows. A package without rules collides with no data.
    pub(super) has_rules: bool,
}

/// Why there is no readable `package` clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackageError {
    /// Counted from 1.
    pub(super) line: usize,
    /// In OPA's words where it has some.
    pub(super) message: &'static str,
}

/// Reads the `package` clause at the head of a policy file.
pub(super) fn package(source: &str) -> Result<Package, PackageError> {
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut scanner = Scanner { text, rest: text };
    scanner.clause().map_err(|message| PackageError {
        line: scanner.line(),
        message,
    })
}

struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn clause(&mut self) -> Result<Package, &'static str> {
        self.skip_blank();
        if self.rest.is_empty() {
            return Err("empty module");
        }
        if self.identifier() != Some("package") || !self.skip_blank() {
            return Err("package expected");
        }
        let first = self.identifier().ok_or("expected a name after `package`")?;
        let mut path = vec![first.to_owned()];
        loop {
            if self.take('.') {
                let name = self.identifier().ok_or("expected a name after `.`")?;
                path.push(name.to_owned());
            } else if self.take('[') {
                path.push(self.bracket()?);
            } else {
                break;
            }
        }
        Ok(Package {
            path,
            has_rules: self.has_rules(),
        })
    }

    /// The string between `[` and `]`.
    fn bracket(&mut self) -> Result<String, &'static str> {
        self.skip_blank();
        let segment = match self.rest.chars().next() {
            Some('"') => self.quoted()?,
            Some('`') => self.raw()?,
            _ => return Err("expected a string between `[` and `]`"),
        };
        self.skip_blank();
        if self.take(']') {
            Ok(segment)
        } else {
            Err("expected `]` after the string")
        }
    }

    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut escaped = false;
        let end = self
            .rest
            .char_indices()
            .skip(1)
            .find(|(_, char)| {
                let closes = *char == '"' && !escaped;
                escaped = *char == '\\' && !escaped;
                closes
            })
            .map(|(at, _)| at + 1)
            .ok_or("expected the end of the string")?;
        let (literal, rest) = self.rest.split_at(end);
        let segment =
            serde_json::from_str(literal).map_err(|_| "expected a string with valid escapes")?;
        self.rest = rest;
        Ok(segment)
    }

    fn raw(&mut self) -> Result<String, &'static str> {
        let inner = self.rest.strip_prefix('`').unwrap_or(self.rest);
        let (segment, rest) = inner
            .split_once('`')
            .ok_or("expected the end of the raw string")?;
        self.rest = rest;
        Ok(segment.to_owned())
    }

    /// Whether the rest has a line that is neither blank nor an import.
    fn has_rules(&mut self) -> bool {
        loop {
            self.skip_blank();
            if self.rest.is_empty() {
                return false;
            }
            if self.identifier() != Some("import") {
                return true;
            }
            // An import is `import path as name` with blanks between them.
            self.skip_blank();
            let end = self
                .rest
                .find(|char: char| char.is_ascii_whitespace() || matches!(char, '#' | ';'))
                .unwrap_or(self.rest.len());
            self.rest = self.rest.get(end..).unwrap_or_default();
            let after_path = self.rest;
            self.skip_blank();
            if self.identifier() == Some("as") && self.skip_blank() {
                self.identifier();
            } else {
                self.rest = after_path;
            }
        }
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let rest = self.rest;
        let end = rest
            .find(|char: char| !char.is_ascii_alphanumeric() && char != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at_checked(end)?;
        let first = name.chars().next()?;
        if first.is_ascii_digit() {
            return None;
        }
        self.rest = after;
        Some(name)
    }

    /// Skips white space and comments; says whether there were any.
    fn skip_blank(&mut self) -> bool {
        let before = self.rest.len();
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
            let Some(comment) = self.rest.strip_prefix('#') else {
                return self.rest.len() < before;
            };
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn take(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn line(&self) -> usize {
        let read = self.text.len().saturating_sub(self.rest.len());
        let read = self.text.as_bytes().get(..read).unwrap_or_default();
        read.iter().filter(|byte| **byte == b'\n').count() + 1
    }
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
    }

    #[test]
    fn rules_after_it() {
        let has_rules = |source| package(source).unwrap().has_rules;
        assert!(!has_rules("package a\n# allow := true\n"));
        assert!(!has_rules(
            "package a\nimport rego.v1\nimport data.b as c\nimport data[\"as\"] as # x\n d"
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
        assert_eq!(fault(""), (1, "empty module"));
        assert_eq!(fault("# only\n# comments"), (2, "empty module"));
        assert_eq!(fault("\nallow := true"), (2, "package expected"));
        assert_eq!(fault("packagea"), (1, "package expected"));
        assert_eq!(fault("package 1a"), (1, "expected a name after `package`"));
        assert_eq!(fault("package a."), (1, "expected a name after `.`"));
        assert_eq!(
            fault("package a[1]"),
            (1, "expected a string between `[` and `]`")
        );
        assert_eq!(
            fault("package a[\"b"),
            (1, "expected the end of the string")
        );
        assert_eq!(
            fault("package a[`b"),
            (1, "expected the end of the raw string")
        );
        assert_eq!(
            fault("package a[\"\\q\"]"),
            (1, "expected a string with valid escapes")
        );
        assert_eq!(
            fault("package a[\"b\"x"),
            (1, "expected `]` after the string")
        );
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
