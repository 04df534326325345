//! Parses YAML 1.2 (and so JSON) into a template tree.

use std::collections::HashSet;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::builder::{Builder, Built, Content, too_deep};
use super::placeholder::{Part, Tokenised};
use super::position::Cursor;
use super::tags::{fits_collection, scalar_typing};
use super::tree::{Defect, Piece, Scalar, Tree, Typing};
use crate::config::error::Position;
use crate::config::node::Node;

/// The parsed text, and the placeholders that ended up in a scalar or key.
pub(crate) struct Parsed {
    /// `None` for an empty document.
    pub(crate) root: Option<Arc<Tree>>,
    pub(crate) used: HashSet<usize>,
}

/// Parses the text's only document.
pub(crate) fn parse(tokenised: &Tokenised) -> Result<Parsed, (Defect, String)> {
    let builder = Builder::default();
    let mut events = Events {
        tokenised,
        builder,
        used: HashSet::new(),
        documents: 0,
    };
    match events.run() {
        Ok(()) => Ok(Parsed {
            root: events.builder.finish(),
            used: events.used,
        }),
        Err(defect) => Err((defect, events.builder.path(&tokenised.placeholders))),
    }
}

/// Turns the parser's events into nodes.
struct Events<'t> {
    tokenised: &'t Tokenised,
    builder: Builder,
    used: HashSet<usize>,
    documents: usize,
}

impl Events<'_> {
    fn run(&mut self) -> Result<(), Defect> {
        let mut parser = Parser::new_from_str(&self.tokenised.text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let position = self.position(*error.marker());
                if error.info() == "recursion limit exceeded" {
                    return too_deep(position);
                }
                Defect::new(position, self.tokenised.placeholders.restore(error.info()))
            })?;
            if matches!(event, Event::StreamEnd) {
                break;
            }
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Defect> {
        let position = self.position(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Defect::new(
                        position,
                        "expected one document, found another",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), position)
            }
            Event::Alias(anchor) => self.builder.alias(anchor, position),
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", position)?;
                self.builder.open(Content::array(), anchor, position)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", position)?;
                self.builder
                    .open(Content::object(position), anchor, position)
            }
            Event::SequenceEnd | Event::MappingEnd => self.builder.close(position),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<(), Defect> {
        let typing = scalar_typing(style, tag).ok_or_else(|| self.unknown_tag(tag, position))?;
        if self.builder.wants_key() && text == "<<" && typing == Typing::Plain {
            self.builder.merge_key();
            return Ok(());
        }
        let tree = if self.tokenised.placeholders.is_in(text) {
            let pieces = self.pieces(text);
            Tree::Scalar(Scalar {
                pieces,
                typing,
                position,
            })
        } else {
            let value = typing
                .value(text)
                .map_err(|message| Defect::new(position, message))?;
            Tree::Const(Node {
                value,
                position: Some(position),
                per_app: false,
                flag: None,
            })
        };
        self.builder
            .node(Built::scalar(tree, text), anchor, position)
    }

    fn pieces(&mut self, text: &str) -> Vec<Piece> {
        let parts = self.tokenised.placeholders.split(text);
        self.used.extend(parts.iter().filter_map(|part| match part {
            Part::Placeholder(index) => Some(*index),
            Part::Text(_) => None,
        }));
        parts
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => Piece::Text(text.into()),
                Part::Placeholder(index) => Piece::Placeholder(index),
            })
            .collect()
    }

    fn check_tag(&self, tag: Option<&Tag>, kind: &str, position: Position) -> Result<(), Defect> {
        if fits_collection(tag, kind) {
            Ok(())
        } else {
            Err(self.unknown_tag(tag, position))
        }
    }

    fn unknown_tag(&self, tag: Option<&Tag>, position: Position) -> Defect {
        let tag = tag
            .map(|tag| format!("{}{}", tag.handle, tag.suffix))
            .unwrap_or_default();
        let tag = self.tokenised.placeholders.restore(&tag);
        Defect::new(
            position,
            format!("expected a tag of the YAML core schema, found `{tag}`"),
        )
    }

    fn position(&self, marker: Marker) -> Position {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let cursor = Cursor {
            line: count(marker.line()),
            column: count(marker.col()).saturating_add(1),
        };
        self.tokenised.positions.original(cursor)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{json, render, render_error};
    use serde_json::json;

    #[test]
    fn yaml_1_2_words_are_typed() {
        assert_eq!(
            json("a: yes\nb: on\nc: true\nd: 010x\ne: 1\nf: 1.5\ng:\nh: '1'\ni: 2024-01-01"),
            json!({"a": "yes", "b": "on", "c": true, "d": "010x", "e": 1, "f": 1.5, "g": null,
                "h": "1", "i": "2024-01-01"})
        );
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"a": [1, -2.5e3, "x\n\u00e4", true, null, {}], "b": {"c": []}}"#;
        assert_eq!(
            json(text),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }

    #[test]
    fn an_empty_text_is_an_empty_object() {
        for text in ["", "\n", "# nothing\n", "---\n", "null"] {
            assert_eq!(json(text), json!({}), "{text:?}");
        }
    }

    #[test]
    fn keys_become_strings() {
        assert_eq!(
            json(
                "1: a\ntrue: b\n1.5: c\n0x10: d\n'2': e\n? f\n: g\n&k h: i\n*k : j\n"
                    .replace("*k : j\n", "")
                    .as_str()
            ),
            json!({"1": "a", "true": "b", "1.5": "c", "16": "d", "2": "e", "f": "g", "h": "i"})
        );
        assert_eq!(json("a: &k x\n*k : 1"), json!({"a": "x", "x": 1}));
        for (text, found) in [
            ("null: a", "null"),
            ("[1]: a", "an array"),
            ("? {a: 1}\n: b", "an object"),
            ("a: &k [1]\n*k : b", "an array"),
        ] {
            let error = render_error(text);
            assert!(error.message().contains(found), "{text}: {error}");
        }
    }

    #[test]
    fn keys_are_unique() {
        let error = render_error("a:\n  b: 1\n  c: 2\n  b: 3\n");
        assert_eq!(
            error.to_string(),
            "opa.yaml:4:3: a: key `b` is defined twice, first on line 2"
        );
        assert!(render_error("1: a\n'1': b").message().contains("twice"));
    }

    #[test]
    fn there_is_one_document() {
        assert_eq!(json("---\na: 1\n...\n"), json!({"a": 1}));
        let error = render_error("a: 1\n---\nb: 2\n");
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:1: expected one document, found another"
        );
        // Errors after the document count as well.
        render_error("  a: 1\nb: 2\n");
    }

    #[test]
    fn aliases_repeat_their_anchor() {
        assert_eq!(
            json("a: &x {y: 1}\nb: *x\nc: [*x, &x 2, *x]"),
            json!({"a": {"y": 1}, "b": {"y": 1}, "c": [{"y": 1}, 2, 2]})
        );
        assert!(render_error("a: *x").message().contains("anchor"));
        let error = render_error("a: &x [*x]");
        assert_eq!(
            error.message(),
            "an anchor can't contain an alias to itself"
        );
    }

    #[test]
    fn merge_keys_fill_gaps() {
        assert_eq!(
            json(
                "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: *a, y: 0}\nd: {<<: [*a, *b]}\n\
                  e: {y: 0, <<: *b}\nf: {<<: *b, <<: *a}\ng: {<<: {x: 3}}\nh: {'<<': 1}"
            ),
            json!({
                "a": {"x": 1, "y": 1}, "b": {"y": 2, "z": 2}, "c": {"x": 1, "y": 0},
                "d": {"x": 1, "y": 1, "z": 2}, "e": {"y": 0, "z": 2},
                "f": {"x": 1, "y": 2, "z": 2}, "g": {"x": 3}, "h": {"<<": 1},
            })
        );
        assert_eq!(
            json("a: &a {x: '${A}', y: 1}\nb: {<<: *a, y: '{{ .bundlename }}'}"),
            json!({"a": {"x": "1", "y": 1}, "b": {"x": "1", "y": "orders"}})
        );
        for text in [
            "a: {<<: 1}",
            "a: {<<: [1]}",
            "a: {<<: }",
            "a: {<<: ${A}}",
            "<<: [[]]",
        ] {
            let message = "map merge requires map or sequence of maps as the value";
            assert_eq!(render_error(text).message(), message, "{text}");
        }
    }

    #[test]
    fn tags_of_the_core_schema_are_obeyed() {
        assert_eq!(
            json(
                "a: !!str 5\nb: !!int '5'\nc: !!float 5\nd: !!bool \"true\"\ne: !!null ''\n\
                  f: !!map {}\ng: !!seq []\nh: ! 5\ni: !!str"
            ),
            json!({"a": "5", "b": 5, "c": 5, "d": true, "e": null, "f": {}, "g": [], "h": "5",
                "i": ""})
        );
        for text in [
            "a: !!int x",
            "a: !!int 1.5",
            "a: !!bool 1",
            "a: !!map []",
            "a: !!seq {}",
            "a: !foo 1",
            "a: !!binary aGk=",
            "a: !!set {x}",
            "a: !<tag:x> 1",
            "a: !!str []",
        ] {
            render_error(text);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let flow = |n| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(json(&flow(128)).is_array());
        let message = "expected at most 128 levels of nesting";
        for text in [
            flow(129),
            flow(100_000),
            "- ".repeat(129) + "1",
            "- ".repeat(100_000) + "1",
            "? ".repeat(10_000),
            (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
            format!(
                "a: &a {}\nb: {}*a{}",
                flow(100),
                "[".repeat(50),
                "]".repeat(50)
            ),
        ] {
            let error = render_error(&text);
            assert!(
                error.message() == message || error.message().contains("as key"),
                "{error}"
            );
        }
    }

    #[test]
    fn aliases_expand_to_a_bounded_size() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for n in 1..30 {
            let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
            text += &format!("a{n}: &a{n} [{aliases}]\n");
        }
        let error = render_error(&text);
        assert!(
            error.message().contains("document expands to more than"),
            "{error}"
        );

        // Keys and merges count as well, and large texts by their length.
        let long = "x".repeat(1_000_000);
        for use_of in ["*a : 1", "b: *a"] {
            let members = (0..140)
                .map(|n| format!("{n}: {{{use_of}}}\n"))
                .collect::<String>();
            let error = render_error(&format!("a: &a {long}\n{members}"));
            assert!(
                error.message().contains("document expands to more than"),
                "{error}"
            );
        }
    }

    #[test]
    fn syntax_errors_have_their_place() {
        for (text, line) in [
            ("a: 1\n\tb: 2\n", 2),
            ("a: [1, 2\nb: 3\n", 2),
            ("a: 'x\n", 2),
            ("a: \"\\q\"", 1),
            ("a: 1\n b: 2\n", 2),
            ("a: b: c", 1),
            ("{", 1),
            ("]", 1),
            ("a: @x", 1),
        ] {
            let error = render_error(text);
            let at = error.position().unwrap();
            assert!(at.line.abs_diff(line) <= 1, "{text:?}: {error}");
        }
        let error = render_error("a:\n  b: ${A}\n  c: [}\n");
        assert!(error.to_string().starts_with("opa.yaml:3:7: "), "{error}");
    }

    #[test]
    fn positions_follow_the_file() {
        let text = "# ü\r\na: ${A}\r\nb: [x, {c: {{ .bundlename }}, c: 1}]\r\n";
        assert!(
            render_error(text)
                .to_string()
                .starts_with("opa.yaml:3:31: b.1: ")
        );
    }

    /// The parser's own assertions must hold for whatever a file contains.
    #[test]
    fn damaged_documents_never_panic() {
        const SEEDS: [&str; 3] = [
            "a:\n  b: {c: \"{{ .bundlename }}\"}\nx: &x [1, 'q', \"\\x41\"]\ny: *x\nz: |\n  a\n\
             w: >-\n  k\n<<: {u: ${A}}\n? k\n: v\n# c\n",
            "{\"a\": [1, {\"b\": null}], \"c\": \"{{ .bundlename }}\"}",
            "%YAML 1.2\n---\n!!map {a: !!str b}\n...\n",
        ];
        const ALPHABET: &str = "{}[],:?-&*!|>'\"%@` \n\t\r#ab0~<.$é\\=";
        let alphabet: Vec<char> = ALPHABET.chars().collect();
        // Marsaglia's xorshift: the same texts in every run.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let mut accepted = 0;
        for round in 0..6_000 {
            let mut text: Vec<char> = SEEDS[round % 3].chars().collect();
            for _ in 0..1 + random(8) {
                let (at, char) = (random(text.len()), alphabet[random(alphabet.len())]);
                match random(3) {
                    0 => text[at] = char,
                    1 => text.insert(at, char),
                    _ => drop(text.drain(at..(at + random(4)).min(text.len()))),
                }
            }
            accepted += usize::from(render(&String::from_iter(text)).is_ok());
        }
        assert!((100..5_900).contains(&accepted), "{accepted}");
    }
}
