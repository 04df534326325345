//! A configuration file before it is filled for an app.

mod builder;
mod over;
mod overrides;
mod placeholder;
mod position;
mod render;
mod scalar;
mod scan;
mod strvals;
mod tags;
mod tree;
mod yaml;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::document::Document;
use super::env::EnvPolicy;
use super::error::{ConfigError, ConfigErrorKind, Location, Position};
use super::load::Config;
pub use overrides::Overrides;
use placeholder::{Placeholder, Placeholders, Tokenised, tokenise};
use position::Cursor;
use render::render;
use scan::Kind;
use tree::Tree;

/// A configuration file, parsed once and filled for each app.
///
/// Its placeholders are `${NAME}` (OPA's) and `{{ .bundlename }}` and `{{ .Env.NAME }}`
/// (Skipper's). See the [module docs](super) for their rules.
pub struct Template {
    file: Arc<str>,
    /// `None` for an empty file.
    root: Option<Arc<Tree>>,
    placeholders: Placeholders,
    overrides: Overrides,
}

/// A larger file is refused.
const MAX_BYTES: usize = 10_000_000;

impl Template {
    /// Parses a configuration.
    ///
    /// `name` is what errors call the file.
    ///
    /// # Errors
    /// The text isn't one well-formed YAML document, is larger than 10 MB, nests deeper than 128
    /// levels, defines a key twice, or holds a `{{ … }}` action other than the placeholders.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let file: Arc<str> = name.into();
        if text.len() > MAX_BYTES {
            return Err(too_large(file));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        check_printable(&file, text)?;
        let tokenised = tokenise(text).map_err(|too_many| {
            let message = format!("expected at most {} placeholders", too_many.limit);
            error(
                ConfigErrorKind::Placeholder,
                &file,
                Some(too_many.position),
                "",
                message,
            )
        })?;
        let root = parse_tree(&file, &tokenised)?;
        Ok(Self {
            file,
            root,
            placeholders: tokenised.placeholders,
            overrides: Overrides::default(),
        })
    }

    /// Parses a configuration that may turn out not to be UTF-8.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and for bytes that aren't UTF-8.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(name, text),
            Err(invalid) => {
                let mut cursor = Cursor::START;
                for chunk in bytes
                    .get(..invalid.valid_up_to())
                    .unwrap_or_default()
                    .utf8_chunks()
                {
                    cursor.advance(chunk.valid());
                }
                let file = name.into();
                let message = "expected UTF-8";
                Err(error(
                    ConfigErrorKind::Syntax,
                    &file,
                    Some(cursor.into()),
                    "",
                    message,
                ))
            }
        }
    }

    /// Reads and parses a configuration file.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), and if the file can't be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = read_bounded(path).map_err(|problem| {
            let message = format!("the file can't be read: {problem}");
            error(
                ConfigErrorKind::Io,
                &name.as_str().into(),
                None,
                "",
                message,
            )
        })?;
        if bytes.len() > MAX_BYTES {
            return Err(too_large(name.into()));
        }
        Self::from_bytes(&name, &bytes)
    }

    /// Puts `overrides` over the file, in place of those that it had.
    #[must_use]
    pub fn with_overrides(self, overrides: Overrides) -> Self {
        Self { overrides, ..self }
    }

    /// Fills the placeholders for one app.
    ///
    /// This is cheap: what holds no placeholder is shared by all apps.
    ///
    /// # Errors
    /// A variable within `services`, `keys` or any `credentials` is unset or forbidden, or the
    /// filled document has a key twice.
    pub fn render(&self, app: &str, env: &EnvPolicy) -> Result<Document, ConfigError> {
        let (root, mut warnings) = render(
            self.root.as_deref(),
            &self.placeholders,
            &self.file,
            app,
            env,
        )?;
        let root = self.overrides.apply(root, app, env, &mut warnings)?;
        Ok(Document::new(self.file.clone(), app, root, warnings))
    }

    /// Fills the placeholders for one app and reads the configuration.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Config::from_document`].
    pub fn config(&self, app: &str, env: &EnvPolicy) -> Result<Config, ConfigError> {
        Config::from_document(&self.render(app, env)?)
    }

    /// The name of the file, as it was given to [`parse`](Self::parse).
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Refuses characters that YAML 1.2 doesn't call printable (§5.1), and those that OPA's parser
/// takes for a line break (as YAML 1.1 did) and YAML 1.2 for a letter, so that one text can't mean
/// two things.
fn check_printable(file: &Arc<str>, text: &str) -> Result<(), ConfigError> {
    let refused = |c: char| {
        (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
            || matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            )
    };
    let Some((at, c)) = text.char_indices().find(|(_, c)| refused(*c)) else {
        return Ok(());
    };
    let mut cursor = Cursor::START;
    cursor.advance(text.get(..at).unwrap_or_default());
    let message = format!(
        "expected a printable character, found U+{:04X}",
        u32::from(c)
    );
    Err(error(
        ConfigErrorKind::Syntax,
        file,
        Some(cursor.into()),
        "",
        message,
    ))
}

fn parse_tree(file: &Arc<str>, tokenised: &Tokenised) -> Result<Option<Arc<Tree>>, ConfigError> {
    let unknown = || {
        tokenised
            .placeholders
            .iter()
            .find(|p| p.kind == Kind::Unknown)
    };
    match yaml::parse(tokenised) {
        Ok(parsed) => {
            let used = |index: &usize| parsed.used.contains(index);
            let all = || tokenised.placeholders.iter().enumerate();
            if let Some((_, unknown)) =
                all().find(|(index, p)| p.kind == Kind::Unknown && used(index))
            {
                return Err(unknown_action(file, unknown));
            }
            Ok(parsed.root)
        }
        // An action that Go's templates know, such as a loop around some lines, is what broke
        // the YAML.
        Err((defect, path)) => Err(match unknown() {
            Some(unknown) => unknown_action(file, unknown),
            None => error(
                ConfigErrorKind::Syntax,
                file,
                defect.position,
                &path,
                defect.message,
            ),
        }),
    }
}

fn unknown_action(file: &Arc<str>, action: &Placeholder) -> ConfigError {
    let source: String = action.source.chars().take(60).collect();
    let message =
        format!("expected `{{{{ .bundlename }}}}` or `{{{{ .Env.NAME }}}}`, found `{source}`");
    error(
        ConfigErrorKind::Placeholder,
        file,
        Some(action.position),
        "",
        message,
    )
}

fn too_large(file: Arc<str>) -> ConfigError {
    let message = format!("expected at most {MAX_BYTES} bytes");
    error(ConfigErrorKind::Syntax, &file, None, "", message)
}

fn error(
    kind: ConfigErrorKind,
    file: &Arc<str>,
    position: Option<Position>,
    path: &str,
    message: impl Into<String>,
) -> ConfigError {
    let location = Location {
        file: Some(file.clone()),
        position,
        path: path.to_owned(),
    };
    ConfigError::at(kind, location, message)
}

/// Reads at most one byte more than is accepted.
/// Reads a file up to the bound, and one byte more if it is larger.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{env, env_with, json, render, render_error};
    use serde_json::{Value as Json, json};

    /// `text` with the app `app` and `A` set to `value`.
    fn fill(text: &str, app: &str, value: &str) -> Json {
        let template = Template::parse("opa.yaml", text).unwrap();
        template.render(app, &env_with(value)).unwrap().to_json()
    }

    #[test]
    fn placeholders_are_filled_wherever_a_scalar_or_key_stands() {
        assert_eq!(json("a: {{ .bundlename }}"), json!({"a": "orders"}));
        assert_eq!(json("a: \"{{ .bundlename }}\""), json!({"a": "orders"}));
        assert_eq!(
            json("a: '{{.bundlename}}.tar.gz'"),
            json!({"a": "orders.tar.gz"})
        );
        assert_eq!(
            json("{a: {{ .bundlename }}, b: [{{ .bundlename }}]}"),
            json!({"a": "orders", "b": ["orders"]})
        );
        assert_eq!(
            json("a: bundles/{{ .bundlename }}/${A}"),
            json!({"a": "bundles/orders/1"})
        );
        assert_eq!(json("{{ .bundlename }}: 1"), json!({"orders": 1}));
        assert_eq!(json("{\"{{ .bundlename }}-x\": 1}"), json!({"orders-x": 1}));
        assert_eq!(
            json("a: |\n  x {{ .bundlename }}\n  y\n"),
            json!({"a": "x orders\ny\n"})
        );
        assert_eq!(
            json("a: >-\n  x\n  {{ .bundlename }}\n"),
            json!({"a": "x orders"})
        );
        assert_eq!(json("a: {{ .Env.A }}"), json!({"a": 1}));
        assert_eq!(
            json("a: x {{- .bundlename -}}\n  y"),
            json!({"a": "xordersy"})
        );
        assert_eq!(json("- {{ .bundlename }}\n- ${A}"), json!(["orders", 1]));
        assert_eq!(
            json("a: \"\\t{{ .bundlename }}\\u0041\""),
            json!({"a": "\tordersA"})
        );
    }

    #[test]
    fn plain_scalars_are_typed_after_filling() {
        for (value, expected) in [
            ("8080", json!(8080)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("~", json!(null)),
            ("", json!(null)),
            (" 8080\n", json!(8080)),
            ("yes", json!("yes")),
            ("80 80", json!("80 80")),
        ] {
            assert_eq!(
                fill("a: ${A}", "orders", value),
                json!({"a": expected}),
                "{value:?}"
            );
        }
        assert_eq!(fill("a: -${A}0", "orders", "5"), json!({"a": -50}));
        assert_eq!(fill("${A}: x", "orders", "5"), json!({"5": "x"}));
    }

    #[test]
    fn quoted_scalars_stay_strings() {
        for text in [
            "a: \"${A}\"",
            "a: '${A}'",
            "a: |-\n  ${A}",
            "a: !!str ${A}",
            "a: ! ${A}",
        ] {
            for value in ["8080", "true", "null", "", " x\n"] {
                assert_eq!(
                    fill(text, "orders", value),
                    json!({"a": value}),
                    "{text} {value:?}"
                );
            }
        }
    }

    #[test]
    fn values_never_become_structure() {
        for value in [
            "x: y",
            "{}",
            "{a: b}",
            "[]",
            "[1]",
            "- x",
            "a\nb: c",
            "\n- x",
            "\"",
            "'",
            "\"x\"",
            "# x",
            "x # y",
            "*a",
            "&a x",
            "!!int 5",
            "!x",
            "<<",
            "? x",
            "|",
            ">",
            "---",
            "...",
            "%YAML 1.2",
            "@",
            "`",
            ",",
            "a, b",
            "}",
            "]",
            "${A}",
            "${B}",
            "{{ .bundlename }}",
            "{{",
            "\\",
            "\\n",
            "\t",
            "\0",
            "\u{feff}",
            "Q",
            "é",
        ] {
            let trimmed = value.trim_matches([' ', '\t', '\n']);
            let expected = if trimmed.is_empty() {
                json!(null)
            } else {
                json!(trimmed)
            };
            for text in ["a: ${A}", "{a: ${A}}"] {
                assert_eq!(
                    fill(text, "orders", value),
                    json!({"a": expected}),
                    "{value:?}"
                );
            }
            assert_eq!(fill("a: \"${A}\"", "orders", value), json!({"a": value}));
            assert_eq!(fill("a: {{ .bundlename }}", value, "")["a"], expected);
            assert_eq!(fill("\"${A}\": 1", "orders", value), json!({value: 1}));
        }
    }

    #[test]
    fn placeholders_in_comments_are_never_looked_at() {
        let text = "# ${FORBIDDEN} {{ if .x }}\nservices: 1 # {{ .Env.FORBIDDEN }} {{\n";
        let document = render(text).unwrap();
        assert_eq!(document.to_json(), json!({"services": 1}));
        assert_eq!(document.warnings(), []);
    }

    #[test]
    fn other_actions_are_refused_with_their_place() {
        let error = render_error("a: 1\nb: x {{ .foo }}\n");
        assert_eq!(error.kind(), ConfigErrorKind::Placeholder);
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:6: expected `{{ .bundlename }}` or `{{ .Env.NAME }}`, found `{{ .foo }}`"
        );
        // Also where the action broke the YAML around it.
        let error = render_error("a: 1\n{{ if .x }}\nb: 1\n{{ end }}\n");
        assert_eq!(
            (
                error.position().unwrap().line,
                error.position().unwrap().column
            ),
            (2, 1)
        );
        let error = render_error("a: {{ .x");
        assert_eq!(error.kind(), ConfigErrorKind::Placeholder);
        let error = render_error(&format!("a: {{{{ {} }}}}", "x".repeat(1000)));
        assert!(error.message().len() < 200, "{error}");
    }

    #[test]
    fn placeholders_cannot_be_aliases_tags_or_escapes() {
        for text in [
            "a: &x 1\nb: *${A}",
            "a: !${A} 1",
            "a: !!${A} 1",
            "a: \"\\${A}\"",
            "a: \"\\x4${A}\"",
            "a: |${A}\n  x",
            "a: \"x\"${A}",
        ] {
            let error = render_error(text);
            assert_eq!(error.kind(), ConfigErrorKind::Syntax, "{text}: {error}");
            assert!(!error.message().contains('Q'), "{text}: {error}");
        }
        // The name of an anchor and an unknown directive have no meaning of their own.
        assert_eq!(json("a: &${A} 1"), json!({"a": 1}));
        assert_eq!(json("%${A}\n---\na: 1"), json!({"a": 1}));
    }

    #[test]
    fn escapes_cannot_forge_a_token() {
        // `Q` by escape, before and after real tokens.
        assert_eq!(json("a: \"\\x51${A}\\u0051\""), json!({"a": "Q1Q"}));
    }

    #[test]
    fn empty_variables_are_empty_and_unset_ones_stay() {
        let document = render("a: \"${EMPTY}\"\nb:\n  - x${UNSET}\n  - ${FORBIDDEN}").unwrap();
        assert_eq!(
            document.to_json(),
            json!({"a": "", "b": ["x${UNSET}", "${FORBIDDEN}"]})
        );
        let texts: Vec<_> = document
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "opa.yaml:3:6: b.0: environment variable `UNSET` is not set; `${UNSET}` stays as \
                 it is",
                "opa.yaml:4:5: b.1: environment variable `FORBIDDEN` is not on the list of \
                 variables that may be read; `${FORBIDDEN}` stays as it is",
            ]
        );
        assert_eq!(
            json("a: {{ .Env.UNSET }}"),
            json!({"a": "{{ .Env.UNSET }}"})
        );
    }

    #[test]
    fn unset_variables_are_errors_where_trust_is_configured() {
        for (text, path) in [
            ("services: {a: {url: '${UNSET}'}}", "services.a.url"),
            ("services: [{url: '{{ .Env.UNSET }}'}]", "services.0.url"),
            ("services: {'${UNSET}': {}}", "services"),
            ("services: ${UNSET}", "services"),
            ("keys: {k: {key: '${UNSET}'}}", "keys.k.key"),
            (
                "x: [{credentials: {y: ['${UNSET}']}}]",
                "x.0.credentials.y.0",
            ),
            (
                "x: &a {url: z}\nservices: {a: {<<: *a, b: '${UNSET}'}}",
                "services.a.b",
            ),
            ("services: {a: {<<: {url: '${UNSET}'}}}", "services.a.url"),
            ("services: {a: {<<: [{url: '${UNSET}'}]}}", "services.a.url"),
            ("x: &a {services: {y: '${UNSET}'}}\n<<: *a", "services.y"),
        ] {
            let error = render_error(text);
            assert_eq!(error.kind(), ConfigErrorKind::Variable, "{text}: {error}");
            assert_eq!(error.path(), path, "{text}");
            assert_eq!(
                error.message(),
                "environment variable `UNSET` is not set",
                "{text}"
            );
        }
        let error = render_error("services:\n  a:\n    url: http://${FORBIDDEN}");
        assert_eq!(
            error.to_string(),
            "opa.yaml:3:17: services.a.url: environment variable `FORBIDDEN` is not on the list \
             of variables that may be read"
        );
        // Not below the top.
        assert_eq!(
            json("x: {services: '${UNSET}'}"),
            json!({"x": {"services": "${UNSET}"}})
        );
    }

    #[test]
    fn aliases_are_judged_where_they_are_used() {
        let text = "x: &a {url: '${UNSET}'}\nservices: {y: *a}";
        assert_eq!(render_error(text).path(), "services.y.url");
    }

    #[cfg(unix)]
    #[test]
    fn values_that_are_not_utf8_are_not_used() {
        use std::os::unix::ffi::OsStringExt;
        let policy =
            EnvPolicy::allow(["A"]).with_lookup(|_| Some(std::ffi::OsString::from_vec(vec![0xff])));
        let template = Template::parse("opa.yaml", "services: ${A}").unwrap();
        let error = template.render("orders", &policy).unwrap_err();
        assert_eq!(
            error.message(),
            "environment variable `A` is not valid UTF-8"
        );
    }

    #[test]
    fn a_variable_is_looked_up_once() {
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = calls.clone();
        let policy = EnvPolicy::allow(["A"]).with_lookup(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Some("x".into())
        });
        let template = Template::parse("opa.yaml", "a: &a ${A}\nb: [*a, *a]").unwrap();
        let document = template.render("orders", &policy).unwrap();
        assert_eq!(document.to_json(), json!({"a": "x", "b": ["x", "x"]}));
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn apps_share_what_holds_no_placeholder() {
        use crate::config::node::Value;
        let template = Template::parse("opa.yaml", "a: {b: 1}\nc: {{ .bundlename }}\n").unwrap();
        let shared = |app| match &template.render(app, &env()).unwrap().field().node().value {
            Value::Object(entries) => match &entries[0].node.value {
                Value::Object(inner) => inner.clone(),
                _ => panic!("expected an object"),
            },
            _ => panic!("expected an object"),
        };
        assert!(Arc::ptr_eq(&shared("orders"), &shared("users")));
    }

    #[test]
    fn filled_keys_must_stay_distinct() {
        let error = render_error("a: {orders: 1, '{{ .bundlename }}': 2}");
        assert_eq!(
            error.to_string(),
            "opa.yaml:1:16: a: key `orders` is defined twice, first on line 1"
        );
        let error = render_error("${EMPTY}: 1");
        assert_eq!(error.message(), "expected a string as key, found null");
    }

    #[test]
    fn filled_values_are_bounded() {
        let text = format!("a: &a '${{A}}'\nb: [{}]", "*a, ".repeat(1000));
        let template = Template::parse("opa.yaml", &text).unwrap();
        let error = template
            .render("orders", &env_with(&"x".repeat(100_000)))
            .unwrap_err();
        assert!(
            error
                .message()
                .starts_with("the filled placeholders add up"),
            "{error}"
        );
    }

    #[test]
    fn bytes_are_checked() {
        let parse = |bytes: &[u8]| Template::from_bytes("opa.yaml", bytes);
        let error = parse(b"a: 1\nb: \xff").unwrap_err();
        assert_eq!(error.to_string(), "opa.yaml:2:4: expected UTF-8");
        assert!(parse(b"\xff\xfea\x00").is_err());
        let with_mark = parse(b"\xef\xbb\xbfa: ${A}\r\nb: 2\r\n").unwrap();
        let document = with_mark.render("orders", &env()).unwrap();
        assert_eq!(document.to_json(), json!({"a": 1, "b": 2}));
    }

    #[test]
    fn characters_that_parsers_disagree_about_are_refused() {
        let error = render_error("a: 1\nb: x\u{85}services: y");
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:5: expected a printable character, found U+0085"
        );
        for c in ['\0', '\u{1b}', '\u{7f}', '\u{2028}', '\u{2029}', '\u{feff}'] {
            assert_eq!(
                render_error(&format!("a: 'x{c}'")).kind(),
                ConfigErrorKind::Syntax
            );
        }
        assert_eq!(json("a: \"\\u2028\\0\""), json!({"a": "\u{2028}\0"}));
    }

    #[test]
    fn size_is_bounded() {
        let text = format!("a: {}", "x".repeat(MAX_BYTES));
        let error = Template::parse("opa.yaml", &text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "opa.yaml: expected at most 10000000 bytes"
        );
        assert!(Template::parse("opa.yaml", text.get(..MAX_BYTES).unwrap()).is_ok());
    }

    #[test]
    fn files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opa.yaml");
        std::fs::write(&path, "a: 1").unwrap();
        let template = Template::read(&path).unwrap();
        assert_eq!(template.file(), path.to_str().unwrap());

        std::fs::write(&path, vec![b'#'; MAX_BYTES + 1]).unwrap();
        assert!(
            Template::read(&path)
                .unwrap_err()
                .message()
                .starts_with("expected at most")
        );
        let error = Template::read(folder.path().join("none.yaml")).unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::Io);
        assert!(
            error
                .to_string()
                .contains("none.yaml: the file can't be read: "),
            "{error}"
        );
    }

    #[test]
    fn debug_shows_no_values() {
        let template = Template::parse("opa.yaml", "a: secret").unwrap();
        let document = template.render("orders", &env()).unwrap();
        let text = format!("{template:?} {document:?} {:?}", document.field());
        assert!(!text.contains("secret"), "{text}");
    }
}
