//! Finds placeholders in a configuration text and puts opaque tokens in their place.
//!
//! OPA and Skipper replace placeholders in the raw text, so a value that holds `: ` or a line
//! break becomes structure. Here the YAML parser sees a token that is nothing but a word, and the
//! value is filled in after parsing.

use super::position::{Cursor, PositionMap};
use super::scan::{Finder, Found, GO_SPACE, Kind};
use crate::config::error::Position;

/// More placeholders than this are refused, so that tokens can't blow up the text.
const MAX_PLACEHOLDERS: usize = 10_000;

/// Digits of a token's number; enough for [`MAX_PLACEHOLDERS`].
const INDEX_DIGITS: usize = 5;

/// A placeholder as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placeholder {
    pub(crate) kind: Kind,
    /// The text in the file, such as `${NAME}`.
    pub(crate) source: Box<str>,
    pub(crate) position: Position,
}

/// A configuration text whose placeholders became tokens.
#[derive(Debug)]
pub(crate) struct Tokenised {
    pub(crate) text: String,
    pub(crate) positions: PositionMap,
    pub(crate) placeholders: Placeholders,
}

/// The placeholders of a text, and how their tokens look.
#[derive(Debug)]
pub(crate) struct Placeholders {
    prefix: String,
    list: Vec<Placeholder>,
}

/// A part of a scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Placeholder(usize),
}

/// There are more than [`MAX_PLACEHOLDERS`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) position: Position,
    pub(crate) limit: usize,
}

/// Replaces the placeholders of `text` by tokens.
pub(crate) fn tokenise(text: &str) -> Result<Tokenised, TooMany> {
    let mut writer = Writer::new(text);
    for found in Finder::new(text) {
        writer.placeholder(&found)?;
        if found.trims_right {
            writer.skip_space();
        }
    }
    writer.literal(text.len(), false);
    Ok(writer.output)
}

impl Tokenised {
    /// A text that is not searched for placeholders.
    pub(crate) fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            positions: PositionMap::default(),
            placeholders: Placeholders {
                prefix: String::new(),
                list: Vec::new(),
            },
        }
    }
}

impl Placeholders {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Placeholder> {
        self.list.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Placeholder> {
        self.list.get(index)
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        !self.list.is_empty() && text.contains(&self.prefix)
    }

    /// Takes a scalar apart at its tokens.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        if self.list.is_empty() {
            return match text {
                "" => parts,
                text => vec![Part::Text(text)],
            };
        }
        let mut rest = text;
        let mut searched = 0;
        while let Some(start) = rest
            .get(searched..)
            .and_then(|tail| tail.find(&self.prefix))
            .map(|at| at + searched)
        {
            let digits = start + self.prefix.len();
            let end = digits + INDEX_DIGITS;
            let index = rest
                .get(digits..end)
                .and_then(|digits| digits.parse::<usize>().ok());
            let Some(index) = index.filter(|index| *index < self.list.len()) else {
                searched = digits;
                continue;
            };
            let (before, after) = rest.split_at(end);
            if let Some(before) = before.get(..start).filter(|before| !before.is_empty()) {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Placeholder(index));
            rest = after;
            searched = 0;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest));
        }
        parts
    }

    /// Writes tokens as the placeholders that they stand for.
    pub(crate) fn restore(&self, text: &str) -> String {
        if !self.is_in(text) {
            return text.to_owned();
        }
        let source = |index| {
            self.get(index)
                .map_or("", |placeholder| &*placeholder.source)
        };
        self.split(text)
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Placeholder(index) => source(index),
            })
            .collect()
    }
}

/// Writes the text with tokens and keeps both positions.
struct Writer<'t> {
    input: &'t str,
    /// How much of the input was looked at.
    read: usize,
    original: Cursor,
    derived: Cursor,
    output: Tokenised,
}

impl<'t> Writer<'t> {
    fn new(input: &'t str) -> Self {
        let placeholders = Placeholders {
            prefix: fresh_prefix(input),
            list: Vec::new(),
        };
        let text = String::with_capacity(input.len());
        Self {
            input,
            read: 0,
            original: Cursor::START,
            derived: Cursor::START,
            output: Tokenised {
                text,
                positions: PositionMap::default(),
                placeholders,
            },
        }
    }

    /// Copies the input up to `end`.
    fn literal(&mut self, end: usize, trim_end: bool) {
        let segment = self.input.get(self.read..end).unwrap_or_default();
        let kept = if trim_end {
            segment.trim_end_matches(GO_SPACE)
        } else {
            segment
        };
        self.output
            .positions
            .push(self.derived, self.original, false);
        self.output.text.push_str(kept);
        self.derived.advance(kept);
        self.original.advance(segment);
        self.read = end;
    }

    fn placeholder(&mut self, found: &Found) -> Result<(), TooMany> {
        self.literal(found.start, found.trims_left);
        let position = self.original.into();
        let list = &mut self.output.placeholders.list;
        if list.len() == MAX_PLACEHOLDERS {
            return Err(TooMany {
                position,
                limit: MAX_PLACEHOLDERS,
            });
        }
        let source = self.input.get(found.start..found.end).unwrap_or_default();
        let token = format!(
            "{}{:0INDEX_DIGITS$}",
            self.output.placeholders.prefix,
            list.len()
        );
        list.push(Placeholder {
            kind: found.kind.clone(),
            source: source.into(),
            position,
        });
        self.output
            .positions
            .push(self.derived, self.original, true);
        self.output.text.push_str(&token);
        self.derived.advance(&token);
        self.skip_to(found.end);
        Ok(())
    }

    fn skip_space(&mut self) {
        let rest = self.input.get(self.read..).unwrap_or_default();
        let space = rest.len() - rest.trim_start_matches(GO_SPACE).len();
        self.skip_to(self.read + space);
    }

    /// Passes over input that isn't copied.
    fn skip_to(&mut self, end: usize) {
        self.original
            .advance(self.input.get(self.read..end).unwrap_or_default());
        self.read = end;
    }
}

/// A token's start: a word that the text doesn't hold and that nobody can guess, so that it
/// can't be smuggled in by an escape sequence either.
///
/// Its first letter occurs nowhere else in a token, so tokens don't overlap with each other or
/// with text beside them, and it is no YAML escape, so a backslash before a placeholder is a
/// syntax error.
fn fresh_prefix(text: &str) -> String {
    loop {
        let prefix = format!("Q{}", uuid::Uuid::new_v4().simple());
        if !text.contains(&prefix) {
            return prefix;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with each token written as `<index>`, and the placeholders.
    fn tokens(text: &str) -> (String, Vec<(String, Kind)>) {
        let tokenised = tokenise(text).unwrap();
        let placeholders = &tokenised.placeholders;
        let shown = placeholders
            .split(&tokenised.text)
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Placeholder(index) => format!("<{index}>"),
            })
            .collect();
        let list = placeholders
            .iter()
            .map(|p| (p.source.to_string(), p.kind.clone()))
            .collect();
        (shown, list)
    }

    fn kind(text: &str) -> Kind {
        let (shown, list) = tokens(text);
        assert_eq!(shown, "<0>", "{text}");
        list[0].1.clone()
    }

    fn env(name: &str) -> Kind {
        Kind::Env(name.into())
    }

    #[test]
    fn text_without_placeholders_is_unchanged() {
        for text in [
            "",
            "a: {b: {c: 1}}",
            "$A $(B) {C} {",
            "$ {A}",
            "}}",
            "100 %",
        ] {
            assert_eq!(tokens(text), (text.to_owned(), vec![]));
        }
    }

    #[test]
    fn variables_end_at_the_first_brace_of_the_line() {
        assert_eq!(kind("${A}"), env("A"));
        assert_eq!(kind("${A B-c.d}"), env("A B-c.d"));
        assert_eq!(kind("${}"), env(""));
        assert_eq!(kind("${A${B}"), env("A${B"));
        assert_eq!(tokens("${A}}${B}").0, "<0>}<1>");
        assert_eq!(tokens("$${A}").0, "$<0>");
        assert_eq!(tokens("{${A}}").0, "{<0>}");
        assert_eq!(tokens("${A\n}").0, "${A\n}");
        assert_eq!(tokens("${A\n${B} ${C").0, "${A\n<0> ${C");
    }

    #[test]
    fn actions_are_read_as_go_reads_them() {
        for text in [
            "{{.bundlename}}",
            "{{ .bundlename }}",
            "{{\t.bundlename\r\n}}",
        ] {
            assert_eq!(kind(text), Kind::App, "{text}");
        }
        assert_eq!(kind("{{ .Env.A_1 }}"), env("A_1"));
        assert_eq!(kind("{{.Env.Ä}}"), env("Ä"));
        assert_eq!(tokens("${{ .bundlename }}").0, "$<0>");
        assert_eq!(tokens("{{ .bundlename }}}").0, "<0>}");
    }

    #[test]
    fn other_actions_are_unknown() {
        for text in [
            "{{ .foo }}",
            "{{ bundlename }}",
            "{{ .Bundlename }}",
            "{{ .bundlename.x }}",
            "{{ .Env }}",
            "{{ .Env. }}",
            "{{ .Env.A.B }}",
            "{{ .Env.1 }}",
            "{{ . }}",
            "{{ }}",
            "{{}}",
            "{{ if .x }}",
            "{{ .bundlename | lower }}",
            "{{ (.bundlename) }}",
            "{{ $.bundlename }}",
            "{{-.bundlename}}",
            "{{.bundlename-}}",
            "{{/* x */}}",
            "{{ .a",
            "{{ \"x\" }}",
            "{{ .\u{a0}bundlename }}",
            "{{{ .bundlename }}",
            "${A{{ .bundlename }",
        ] {
            assert_eq!(kind(text), Kind::Unknown, "{text}");
        }
    }

    #[test]
    fn unknown_actions_end_with_their_line() {
        assert_eq!(tokens("a {{ .x\r\nb }} c").0, "a <0>\r\nb }} c");
    }

    #[test]
    fn dashes_trim_white_space() {
        assert_eq!(tokens("a \r\n\t{{- .bundlename }} b").0, "a<0> b");
        assert_eq!(tokens("a {{ .bundlename -}} \n b").0, "a <0>b");
        assert_eq!(
            tokens("a {{- .Env.B -}} {{- .bundlename -}}\n").0,
            "a<0><1>"
        );
        assert_eq!(
            tokens("{{ .bundlename -}} ${A} {{- .Env.B }}").0,
            "<0><1><2>"
        );
    }

    #[test]
    fn tokens_beside_text_that_resembles_them_stay_apart() {
        // The start of a token may stand before it: the text holds no whole prefix.
        for text in ["Q${A}", "QQ${A}Q", "Q0${A}00000", "${A}${B}0"] {
            let (shown, _) = tokens(text);
            assert_eq!(shown, text.replace("${A}", "<0>").replace("${B}", "<1>"));
        }
    }

    #[test]
    fn forged_tokens_are_text() {
        let placeholders = Placeholders {
            prefix: "Qx".to_owned(),
            list: Vec::new(),
        };
        for text in ["Qx00000", "Qx", "Qx0000", "Qxüüü", "QxQx00000"] {
            assert_eq!(placeholders.split(text), [Part::Text(text)]);
        }
    }

    #[test]
    fn prefixes_differ_from_run_to_run() {
        assert_ne!(fresh_prefix(""), fresh_prefix(""));
    }

    #[test]
    fn positions_lead_back_to_the_original() {
        let text = "a: ${A} b\r\nc:\n  {{- .bundlename -}}  \n ü {{ .Env.B }} x\ny";
        let tokenised = tokenise(text).unwrap();
        for word in ["a:", " b", "c:", "ü", " x", "y"] {
            let expected = {
                let mut cursor = Cursor::START;
                cursor.advance(text.split_at(text.find(word).unwrap()).0);
                Position::from(cursor)
            };
            let mut derived = Cursor::START;
            derived.advance(
                tokenised
                    .text
                    .split_at(tokenised.text.find(word).unwrap())
                    .0,
            );
            assert_eq!(tokenised.positions.original(derived), expected, "{word}");
        }
        let positions: Vec<_> = tokenised.placeholders.iter().map(|p| p.position).collect();
        let at = |line, column| Position { line, column };
        assert_eq!(positions, [at(1, 4), at(3, 3), at(4, 4)]);
    }

    #[test]
    fn restored_texts_show_the_placeholders() {
        let tokenised = tokenise("x ${A} y").unwrap();
        assert_eq!(tokenised.placeholders.restore(&tokenised.text), "x ${A} y");
    }

    #[test]
    fn their_number_is_bounded() {
        let many = "${A}".repeat(MAX_PLACEHOLDERS);
        assert_eq!(
            tokenise(&many).unwrap().placeholders.len(),
            MAX_PLACEHOLDERS
        );
        let too_many = tokenise(&format!("{many}\n ${{A}}")).unwrap_err();
        assert_eq!(too_many.position, Position { line: 2, column: 2 });
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        // Each of these was built to be quadratic; at this size it would take minutes.
        for text in [
            "${".repeat(2_000_000),
            "$".repeat(4_000_000),
            "{".repeat(4_000_000),
        ] {
            assert!(tokenise(&text).is_ok());
        }
    }
}
