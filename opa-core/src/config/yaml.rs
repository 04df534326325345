//! Parses YAML 1.2 (and so JSON) into a template tree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::error::Position;
use super::node::{Entry, Node, Value};
use super::placeholder::{Part, Placeholders, Tokenised};
use super::position::Cursor;
use super::tree::{
    Defect, Key, KeyText, ObjectTree, Piece, Scalar, ScalarKind, Tree, Typing, key_text, object,
};

/// Arrays and objects may be nested this deep. It bounds every recursion over a configuration.
pub(crate) const MAX_DEPTH: usize = 128;

/// How many bytes of text and nodes a document may expand to by its aliases: more than any file
/// within its size limit has without them.
pub(crate) const MAX_EXPANDED: usize = 32 << 20;

/// The parsed text, and the placeholders that ended up in a scalar or key.
pub(crate) struct Parsed {
    pub(crate) root: Arc<Tree>,
    pub(crate) used: HashSet<usize>,
}

/// Parses the text's only document.
pub(crate) fn parse(tokenised: &Tokenised) -> Result<Parsed, (Defect, String)> {
    let mut builder = Builder::new(tokenised);
    match builder.run() {
        Ok(()) => {
            let root = builder.root.take().map(|built| built.tree);
            let root = root
                .unwrap_or_else(|| Arc::new(Tree::Const(null(Position { line: 1, column: 1 }))));
            Ok(Parsed {
                root,
                used: builder.used,
            })
        }
        Err(defect) => Err((defect, builder.path())),
    }
}

/// A finished node, with what it costs to expand it and how deep it is.
#[derive(Clone)]
struct Built {
    tree: Arc<Tree>,
    weight: usize,
    depth: usize,
}

/// An array or object that is being read.
struct Frame {
    position: Position,
    anchor: usize,
    weight: usize,
    depth: usize,
    content: Content,
}

enum Content {
    Array(Vec<Arc<Tree>>),
    Object {
        object: ObjectTree,
        key: Option<PendingKey>,
    },
}

/// A key whose value comes next.
enum PendingKey {
    Merge,
    Key(Key),
}

struct Builder<'t> {
    tokenised: &'t Tokenised,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Built>,
    used: HashSet<usize>,
    root: Option<Built>,
    documents: usize,
}

impl<'t> Builder<'t> {
    fn new(tokenised: &'t Tokenised) -> Self {
        Self {
            tokenised,
            frames: Vec::new(),
            anchors: HashMap::new(),
            used: HashSet::new(),
            root: None,
            documents: 0,
        }
    }

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
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(built) => self.node(built, 0, position),
                None => Err(Defect::new(
                    position,
                    "an anchor can't contain an alias to itself",
                )),
            },
            Event::SequenceStart(anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "seq", position)?;
                self.open(Content::Array(Vec::new()), anchor, position)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "map", position)?;
                let object = ObjectTree {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    position,
                };
                self.open(Content::Object { object, key: None }, anchor, position)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(position),
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
        let typing = self.typing(style, tag, position)?;
        if self.wants_key() && text == "<<" && typing == Typing::Plain {
            self.set_key(PendingKey::Merge);
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
            })
        };
        let weight = text.len().saturating_add(1);
        self.node(
            Built {
                tree: Arc::new(tree),
                weight,
                depth: 0,
            },
            anchor,
            position,
        )
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

    /// Takes a finished node: as key, member, item or document.
    fn node(&mut self, built: Built, anchor: usize, position: Position) -> Result<(), Defect> {
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        if self.frames.len().saturating_add(built.depth) > MAX_DEPTH {
            return Err(too_deep(position));
        }
        if self.wants_key() {
            let key = Key {
                text: key_of(&built.tree, position)?,
                position,
            };
            self.add_weight(built.weight, position)?;
            self.set_key(PendingKey::Key(key));
            return Ok(());
        }
        self.add_weight(built.weight, position)?;
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built);
            return Ok(());
        };
        frame.depth = frame.depth.max(built.depth.saturating_add(1));
        match &mut frame.content {
            Content::Array(items) => items.push(built.tree),
            Content::Object { object, key } => match key.take() {
                Some(PendingKey::Key(key)) => object.entries.push((key, built.tree)),
                // A key is pending, else this node would have been taken as one.
                Some(PendingKey::Merge) | None => object.merges.push(built.tree),
            },
        }
        Ok(())
    }

    fn open(&mut self, content: Content, anchor: usize, position: Position) -> Result<(), Defect> {
        if self.wants_key() {
            let found = match content {
                Content::Array(_) => "an array",
                Content::Object { .. } => "an object",
            };
            return Err(Defect::new(
                position,
                format!("expected a string as key, found {found}"),
            ));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.frames.push(Frame {
            position,
            anchor,
            weight: 1,
            depth: 0,
            content,
        });
        Ok(())
    }

    fn close(&mut self, position: Position) -> Result<(), Defect> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let tree = match frame.content {
            Content::Array(items) => finish_array(items, frame.position),
            Content::Object { object, .. } => finish_object(object)?,
        };
        let depth = frame.depth.max(1);
        let built = Built {
            tree: Arc::new(tree),
            weight: frame.weight,
            depth,
        };
        self.node(built, frame.anchor, position)
    }

    fn wants_key(&self) -> bool {
        let content = self.frames.last().map(|frame| &frame.content);
        matches!(content, Some(Content::Object { key: None, .. }))
    }

    fn set_key(&mut self, pending: PendingKey) {
        if let Some(Frame {
            content: Content::Object { key, .. },
            ..
        }) = self.frames.last_mut()
        {
            *key = Some(pending);
        }
    }

    fn add_weight(&mut self, weight: usize, position: Position) -> Result<(), Defect> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(weight);
        if frame.weight > MAX_EXPANDED {
            let message =
                format!("the document's aliases expand to more than {MAX_EXPANDED} bytes");
            return Err(Defect::new(position, message));
        }
        Ok(())
    }

    fn typing(
        &self,
        style: ScalarStyle,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<Typing, Defect> {
        let Some(tag) = tag else {
            return Ok(if style == ScalarStyle::Plain {
                Typing::Plain
            } else {
                Typing::String
            });
        };
        match core_tag(tag) {
            Some("str" | "!") => Ok(Typing::String),
            Some("null") => Ok(Typing::Tagged(ScalarKind::Null)),
            Some("bool") => Ok(Typing::Tagged(ScalarKind::Bool)),
            Some("int") => Ok(Typing::Tagged(ScalarKind::Integer)),
            Some("float") => Ok(Typing::Tagged(ScalarKind::Float)),
            _ => Err(self.unknown_tag(tag, position)),
        }
    }

    fn check_collection_tag(
        &self,
        tag: Option<&Tag>,
        expected: &str,
        position: Position,
    ) -> Result<(), Defect> {
        match tag {
            Some(tag) if core_tag(tag).is_none_or(|tag| tag != expected && tag != "!") => {
                Err(self.unknown_tag(tag, position))
            }
            _ => Ok(()),
        }
    }

    fn unknown_tag(&self, tag: &Tag, position: Position) -> Defect {
        let tag = self
            .tokenised
            .placeholders
            .restore(&format!("{}{}", tag.handle, tag.suffix));
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

    /// The dotted path of what is being read.
    fn path(&self) -> String {
        let segments: Vec<String> = self
            .frames
            .iter()
            .filter_map(|frame| match &frame.content {
                Content::Array(items) => Some(items.len().to_string()),
                Content::Object {
                    key: Some(PendingKey::Key(key)),
                    ..
                } => Some(key_path(key, &self.tokenised.placeholders)),
                Content::Object { .. } => None,
            })
            .collect();
        segments.join(".")
    }
}

/// The tag's name if it is one of the core schema, or `!`, which says "not resolved".
fn core_tag(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        return Some(&tag.suffix);
    }
    (tag.handle.is_empty() && tag.suffix == "!").then_some("!")
}

fn key_of(tree: &Tree, position: Position) -> Result<KeyText, Defect> {
    match tree {
        Tree::Const(node) => key_text(&node.value)
            .map(KeyText::Const)
            .map_err(|message| Defect::new(position, message)),
        Tree::Scalar(scalar) => Ok(KeyText::Filled(scalar.clone())),
        Tree::Array { .. } => Err(Defect::new(
            position,
            "expected a string as key, found an array",
        )),
        Tree::Object(_) => Err(Defect::new(
            position,
            "expected a string as key, found an object",
        )),
    }
}

/// The key as it was written.
fn key_path(key: &Key, placeholders: &Placeholders) -> String {
    match &key.text {
        KeyText::Const(text) => text.to_string(),
        KeyText::Filled(scalar) => scalar
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Placeholder(index) => placeholders.get(*index).map_or("", |p| &*p.source),
            })
            .collect(),
    }
}

fn finish_array(items: Vec<Arc<Tree>>, position: Position) -> Tree {
    let constant: Option<Arc<[Node]>> = items.iter().map(|item| constant(item)).collect();
    match constant {
        Some(items) => Tree::Const(Node {
            value: Value::Array(items),
            position: Some(position),
            per_app: false,
        }),
        None => Tree::Array { items, position },
    }
}

/// Puts an object together now if it holds no placeholder.
fn finish_object(tree: ObjectTree) -> Result<Tree, Defect> {
    let entries: Option<Vec<Entry>> = tree
        .entries
        .iter()
        .map(|(key, value)| {
            let KeyText::Const(text) = &key.text else {
                return None;
            };
            let key_position = Some(key.position);
            Some(Entry {
                key: text.clone(),
                key_position,
                node: constant(value)?,
            })
        })
        .collect();
    let merges: Option<Vec<Node>> = tree.merges.iter().map(|merge| constant(merge)).collect();
    match (entries, merges) {
        (Some(entries), Some(merges)) => object(entries, &merges, tree.position).map(Tree::Const),
        _ => Ok(Tree::Object(tree)),
    }
}

fn constant(tree: &Tree) -> Option<Node> {
    match tree {
        Tree::Const(node) => Some(node.clone()),
        _ => None,
    }
}

fn null(position: Position) -> Node {
    Node {
        value: Value::Null,
        position: Some(position),
        per_app: false,
    }
}

fn too_deep(position: Position) -> Defect {
    Defect::new(
        position,
        format!("expected at most {MAX_DEPTH} levels of nesting"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{json, render_error};
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
            error.message().contains("aliases expand to more than"),
            "{error}"
        );

        // Keys and merges count as well, and large texts by their length.
        let long = "x".repeat(1_000_000);
        for use_of in ["*a : 1", "b: *a"] {
            let members = (0..40)
                .map(|n| format!("{n}: {{{use_of}}}\n"))
                .collect::<String>();
            let error = render_error(&format!("a: &a {long}\n{members}"));
            assert!(
                error.message().contains("aliases expand to more than"),
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
}
#[cfg(test)]
mod fuzz_tmp {
    use super::super::testing::*;
    use super::super::*;
    #[test]
    fn fuzz() {
        let seeds = ["services:\n  acme:\n    url: https://x/${A}\n    credentials: {bearer: {token: \"{{ .Env.A }}\"}}\nbundles: {a: {service: acme}}\n# c\nx: &a [1, 'q', \"\\x41\"]\ny: *a\nz: |\n  a\n  b\nw: >-\n  k\n<<: {u: 1}\n? k\n: v\n", "{\"a\": [1, {\"b\": null}], \"c\": \"{{ .bundlename }}\"}", "%YAML 1.2\n---\n!!map {a: !!str b}\n...\n"];
        let alphabet: Vec<char> = "{}[],:?-&*!|>'\"%@` \n\t\r#abQ0~<.$\u{feff}\u{85}é\\=+\0".chars().collect();
        let mut state: u64 = 0x9E3779B97F4A7C15;
        let mut rnd = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state as usize };
        let (mut ok, mut bad, mut panics) = (0, 0, 0);
        let start = std::time::Instant::now();
        let mut out = std::io::BufWriter::new(std::fs::File::create("/tmp/config-w/cases.jsonl").unwrap());
        for (name, text) in [("br", "[".repeat(1_000_000)), ("brc", "[".repeat(1_000_000)), ("colon", "a: ".repeat(300_000)), ("lines", "a:
".repeat(300_000)), ("amp", "&a ".repeat(300_000)), ("bang", "!a ".repeat(300_000)), ("q", "? ".repeat(300_000)), ("dash", "- ".repeat(300_000)), ("sp", format!("a: |
{}", " ".repeat(1_000_000))), ("plain", "a b
".repeat(300_000)), ("seq", "- a
".repeat(500_000)), ("map", (0..300_000).map(|n| format!("k{n}: {n}
")).collect()), ("flow", format!("[{}]", "a, ".repeat(300_000))), ("flow2", format!("[{}]", "{a: 1}, ".repeat(100_000))), ("quote", ["\"", &"\\n".repeat(1_000_000), "\""].concat()), ("comment", "#".repeat(1_000_000)), ("nl", "
".repeat(1_000_000)), ("ph", format!("[{}]", "${A}, ".repeat(10_000))), ("fold", format!("a: >
{}", "  x

".repeat(200_000))), ("alias", format!("- &a 1
{}", "- *a
".repeat(200_000))), ("anch", (0..200_000).map(|n| format!("- &a{n} 1
")).collect()), ("flowplain", format!("[{}]", "a
 ".repeat(300_000)))] {
            let t = std::time::Instant::now();
            let r = Template::parse("f", &text).and_then(|t| t.render("app", &env()));
            println!("{name} {} ms {:?} {}", t.elapsed().as_millis(), text.len(), r.err().map(|e| e.to_string().chars().take(90).collect::<String>()).unwrap_or_default());
        }
        while start.elapsed().as_secs() < 60 {
            let mut text: Vec<char> = if rnd() % 3 == 0 { Vec::new() } else { seeds[rnd() % 3].chars().collect() };
            for _ in 0..1 + rnd() % 12 {
                let c = alphabet[rnd() % alphabet.len()];
                let at = rnd() % (text.len() + 1);
                match rnd() % 4 {
                    0 if at < text.len() => { text.remove(at); }
                    1 if at < text.len() => text[at] = c,
                    2 => { let end = (at + rnd() % 8).min(text.len()); let part: Vec<char> = text[at..end].to_vec(); let to = rnd() % (text.len() + 1); text.splice(to..to, part); }
                    _ => text.insert(at, c),
                }
            }
            let text: String = text.into_iter().collect();
            let t2 = text.clone();
            let result = std::panic::catch_unwind(move || {
                Template::parse("f", &t2).and_then(|t| t.render("app", &env())).map(|d| { let _ = Config::from_document(&d); d.to_json() })
            });
            if let Ok(Ok(j)) = &result { if !text.contains("${") && !text.contains("{{") && rnd() % 20 == 0 { use std::io::Write; writeln!(out, "{}", serde_json::json!([text, j])).unwrap(); } }
            if let Ok(Err(e)) = &result { if !text.contains("${") && !text.contains("{{") && rnd() % 100 == 0 { use std::io::Write; writeln!(out, "{}", serde_json::json!([text, null, e.to_string()])).unwrap(); } }
            match result { Ok(Ok(_)) => ok += 1, Ok(Err(e)) => { let m = e.to_string(); if m.contains("Q") && m.len() > 200 { println!("{m}"); } bad += 1 }, Err(_) => { panics += 1; if panics < 10 { println!("PANIC {text:?}"); } } }
        }
        println!("ok {ok} bad {bad} panics {panics}");
    }
}
