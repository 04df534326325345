//! What `--set` and `--set-file` put over the file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::over::Over;
use super::placeholder::{Part, Placeholders, Tokenised, tokenise};
use super::render::{Place, Renderer};
use super::scan::Kind;
use super::strvals::{self, Assigned, Step, Word};
use super::tree::{Defect, Key, KeyText, Piece, Scalar, Typing};
use super::{MAX_BYTES, read_bounded, unknown_action};
use crate::config::env::EnvPolicy;
use crate::config::error::{ConfigError, ConfigErrorKind, Location, Position, Warning};
use crate::config::node::Node;

/// How much of a flag without a `=` is shown.
const MAX_SHOWN: usize = 60;

/// Options given outside of the file, in the grammar of OPA's `--set` and `--set-file`.
///
/// They are put over the file by [`Template::with_overrides`](super::Template::with_overrides):
///
/// - `services.acme.url=https://opa.test,labels.region=eu`: several, each with its dotted path.
///   Objects are merged, and an override wins; an array is replaced as a whole.
/// - `services[0].name=acme`: an array by index. What has no value is null.
/// - `labels.note=a\,b`: a backslash takes the `.`, `,`, `=`, `[`, `{` or backslash behind it as
///   it is.
/// - `x={a,b}` is an array; `x=null` an empty object, as in OPA; `true`, `false` and whole numbers
///   without a leading zero are what they look like, everything else is a string.
/// - A value of a file override is a path, whose content, without white space at both ends, is the
///   string. Later overrides win over earlier ones, and those from files over all others.
///
/// Placeholders stand for values, as in the file: in OPA a `,` in a variable of `--set` would begin
/// the next option, here it never does. Values from files are not searched for placeholders.
///
/// What has no effect in OPA or ends it with a panic is an error here: a path without a value, an
/// empty key, a member of what was set to a scalar. Arrays in arrays are read as they are written.
///
/// ```
/// use opa_core::config::{EnvPolicy, Overrides, Template};
///
/// let overrides = Overrides::new(["labels.region=eu,bundles.authz.resource={{ .bundlename }}"], [""; 0])?;
/// let template = Template::parse("opa.yaml", "labels: {region: us, team: a}")?;
/// let document = template.with_overrides(overrides).render("orders", &EnvPolicy::default())?;
/// assert_eq!(
///     document.to_json(),
///     serde_json::json!({
///         "labels": {"region": "eu", "team": "a"},
///         "bundles": {"authz": {"resource": "orders"}},
///     }),
/// );
/// # Ok::<(), opa_core::config::ConfigError>(())
/// ```
#[derive(Default)]
pub struct Overrides {
    flags: Vec<Flag>,
}

/// The assignments of one flag.
struct Flag {
    placeholders: Placeholders,
    assignments: Vec<Assignment>,
}

struct Assignment {
    /// What errors call it: the flag and the path.
    name: Arc<str>,
    path: Vec<StepTree>,
    value: Assigned<Scalar>,
    position: Position,
}

enum StepTree {
    Key(Key),
    Index(usize),
}

/// How the values of a flag are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Set,
    File,
}

impl Overrides {
    /// Reads overrides: `set` as of `--set`, `files` as of `--set-file`, whose files are read now.
    ///
    /// # Errors
    /// A flag doesn't follow the grammar, or a file can't be read, is larger than 10 MB or isn't
    /// UTF-8. Values are never part of an error, since they may be secrets.
    pub fn new<S, F>(set: S, files: F) -> Result<Self, ConfigError>
    where
        S: IntoIterator<Item: AsRef<str>>,
        F: IntoIterator<Item: AsRef<str>>,
    {
        let mut overrides = Self::default();
        for text in set {
            overrides.add(text.as_ref(), Mode::Set)?;
        }
        for text in files {
            overrides.add(text.as_ref(), Mode::File)?;
        }
        Ok(overrides)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// The values without placeholders: those of files are.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &str> {
        let assignments = self.flags.iter().flat_map(|flag| &flag.assignments);
        let scalars = assignments.flat_map(|assignment| match &assignment.value {
            Assigned::One(scalar) => std::slice::from_ref(scalar),
            Assigned::List(scalars) => scalars,
        });
        let pieces = scalars.flat_map(|scalar| &scalar.pieces);
        pieces.filter_map(|piece| match piece {
            Piece::Text(text) => Some(&**text),
            Piece::Placeholder(_) => None,
        })
    }

    fn add(&mut self, text: &str, mode: Mode) -> Result<(), ConfigError> {
        let source = Source::new(text, mode)?;
        let assignments = strvals::parse(&source.tokenised.text).map_err(|problem| {
            let name = source.name(problem.start);
            let at = source.tokenised.positions.original(problem.at);
            let message = source.tokenised.placeholders.restore(&problem.message);
            source.error(ConfigErrorKind::Syntax, name, at, message)
        })?;
        let assignments = assignments
            .into_iter()
            .map(|assignment| Self::assignment(&source, assignment))
            .collect::<Result<_, _>>()?;
        let placeholders = source.tokenised.placeholders;
        self.flags.push(Flag {
            placeholders,
            assignments,
        });
        Ok(())
    }

    fn assignment(
        source: &Source<'_>,
        assignment: strvals::Assignment,
    ) -> Result<Assignment, ConfigError> {
        let name = source.name(assignment.start);
        let path = assignment.path.into_iter().map(|step| match step {
            Step::Index(index) => StepTree::Index(index),
            Step::Key(word) => {
                let scalar = source.scalar(&word, Typing::String);
                StepTree::Key(Key {
                    position: scalar.position,
                    text: KeyText::Filled(scalar),
                })
            }
        });
        let path = path.collect();
        let value = |word: Word| match source.mode {
            Mode::Set => Ok(source.scalar(&word, Typing::Override)),
            Mode::File => content(source, &name, &word),
        };
        let value = match assignment.value {
            Assigned::One(word) => Assigned::One(value(word)?),
            Assigned::List(words) => {
                Assigned::List(words.into_iter().map(value).collect::<Result<_, _>>()?)
            }
        };
        let position = source.tokenised.positions.original(assignment.start);
        Ok(Assignment {
            name,
            path,
            value,
            position,
        })
    }

    /// Puts the overrides over `root`, with their placeholders filled for `app`.
    pub(super) fn apply(
        &self,
        root: Node,
        app: &str,
        env: &EnvPolicy,
        warnings: &mut Vec<Warning>,
    ) -> Result<Node, ConfigError> {
        let mut over = Over::default();
        for flag in &self.flags {
            for assignment in &flag.assignments {
                let name = &assignment.name;
                let mut renderer = Renderer::new(&flag.placeholders, name, app, env);
                assign(&mut renderer, &mut over, assignment)?;
                warnings.append(&mut renderer.warnings);
            }
        }
        Ok(over.over(root))
    }
}

fn assign(
    renderer: &mut Renderer<'_>,
    over: &mut Over,
    assignment: &Assignment,
) -> Result<(), ConfigError> {
    let Assignment { name, .. } = assignment;
    let mut place = Place::root();
    let mut over = over;
    for step in &assignment.path {
        match step {
            StepTree::Key(key) => {
                let text = renderer.key(key, &place)?;
                place = place.member(&text);
                let member = over.member(&text, (name, key.position));
                over = member.ok_or_else(|| {
                    let message = "an earlier override sets what this is a part of";
                    renderer.invalid(Defect::new(key.position, message), &place)
                })?;
            }
            StepTree::Index(index) => {
                place = place.item(*index);
                over = over
                    .item(*index, (name, assignment.position))
                    .ok_or_else(|| {
                        let message = "an earlier override sets what this is an item of";
                        renderer.invalid(Defect::new(assignment.position, message), &place)
                    })?;
            }
        }
    }
    let mut value = |scalar, place: &Place| {
        let node = renderer.scalar(scalar, place)?;
        let flag = Some(Arc::clone(name));
        Ok(Node { flag, ..node })
    };
    *over = match &assignment.value {
        Assigned::One(scalar) => Over::Node(value(scalar, &place)?),
        Assigned::List(items) => {
            let items = items.iter().enumerate();
            let items =
                items.map(|(index, item)| Ok(Some(Over::Node(value(item, &place.item(index))?))));
            Over::array(
                items.collect::<Result<_, ConfigError>>()?,
                (name, assignment.position),
            )
        }
    };
    Ok(())
}

/// The content of the file that `word` names; nothing if it names none, as in OPA.
fn content(source: &Source<'_>, name: &Arc<str>, word: &Word) -> Result<Scalar, ConfigError> {
    let position = source.tokenised.positions.original(word.at);
    let mut pieces = Vec::new();
    if !word.text.is_empty() {
        let path = Path::new(&word.text);
        let failed = |problem: String| {
            let message = format!("`{}`: {problem}", word.text);
            source.error(ConfigErrorKind::Io, name.clone(), position, message)
        };
        let bytes = read_bounded(path).map_err(|error| failed(error.to_string()))?;
        if bytes.len() > MAX_BYTES {
            return Err(failed(format!("expected at most {MAX_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed("expected UTF-8".to_owned()))?;
        pieces.push(Piece::Text(text.trim().into()));
    }
    Ok(Scalar {
        pieces,
        typing: Typing::String,
        position,
    })
}

impl fmt::Debug for Overrides {
    /// Shows the names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assignments = self.flags.iter().flat_map(|flag| &flag.assignments);
        f.debug_list()
            .entries(assignments.map(|it| &it.name))
            .finish()
    }
}

/// A flag while it is read.
struct Source<'t> {
    text: &'t str,
    mode: Mode,
    tokenised: Tokenised,
}

impl<'t> Source<'t> {
    fn new(text: &'t str, mode: Mode) -> Result<Self, ConfigError> {
        let tokenised = match mode {
            Mode::Set => tokenise(text),
            // OPA fills nothing in here.
            Mode::File => Ok(Tokenised::plain(text)),
        };
        let tokenised = tokenised.map_err(|too_many| {
            let message = format!("expected at most {} placeholders", too_many.limit);
            let location = Location {
                file: Some(mode.flag().into()),
                position: Some(too_many.position),
                path: String::new(),
            };
            ConfigError::at(ConfigErrorKind::Placeholder, location, message)
        })?;
        let source = Self {
            text,
            mode,
            tokenised,
        };
        let mut placeholders = source.tokenised.placeholders.iter();
        let unknown = placeholders.find(|placeholder| placeholder.kind == Kind::Unknown);
        let refused = unknown.map(|unknown| unknown_action(&mode.flag().into(), unknown));
        drop(placeholders);
        refused.map_or(Ok(source), Err)
    }

    /// `--set a.b=…`: no value, since it may be a secret.
    fn name(&self, start: super::position::Cursor) -> Arc<str> {
        let at = self.tokenised.positions.original(start);
        let skipped = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
        let rest: String = self.text.chars().skip(skipped).collect();
        let flag = self.mode.flag();
        match rest.split_once('=') {
            Some((path, _)) => format!("{flag} {path}=…").into(),
            None => format!(
                "{flag} {}",
                rest.chars().take(MAX_SHOWN).collect::<String>()
            )
            .into(),
        }
    }

    fn scalar(&self, word: &Word, typing: Typing) -> Scalar {
        let parts = self.tokenised.placeholders.split(&word.text).into_iter();
        let pieces = parts.map(|part| match part {
            Part::Text(text) => Piece::Text(text.into()),
            Part::Placeholder(index) => Piece::Placeholder(index),
        });
        Scalar {
            pieces: pieces.collect(),
            typing,
            position: self.tokenised.positions.original(word.at),
        }
    }

    fn error(
        &self,
        kind: ConfigErrorKind,
        name: Arc<str>,
        position: Position,
        message: String,
    ) -> ConfigError {
        let location = Location {
            file: Some(name),
            position: Some(position),
            path: String::new(),
        };
        ConfigError::at(kind, location, message)
    }
}

impl Mode {
    fn flag(self) -> &'static str {
        match self {
            Self::Set => "--set",
            Self::File => "--set-file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Template;
    use super::*;
    use crate::config::testing::env;
    use serde_json::json;

    const BASE: &str = "x: {a: {b: 1, c: [10, 20]}, s: str}\nlabels: {app: one}";

    fn render(set: &[&str], files: &[&str]) -> Result<serde_json::Value, ConfigError> {
        let template = Template::parse("opa.yaml", BASE).unwrap();
        let overrides = Overrides::new(set, files)?;
        let document = template
            .with_overrides(overrides)
            .render("orders", &env())?;
        Ok(document.to_json())
    }

    fn x(set: &[&str]) -> serde_json::Value {
        render(set, &[]).unwrap()["x"].clone()
    }

    #[test]
    fn objects_are_merged_and_arrays_replaced() {
        assert_eq!(
            x(&["x.a.b=2"]),
            json!({"a": {"b": 2, "c": [10, 20]}, "s": "str"})
        );
        assert_eq!(
            x(&["x.a.c[1]=5"]),
            json!({"a": {"b": 1, "c": [null, 5]}, "s": "str"})
        );
        assert_eq!(x(&["x.a=null"]), json!({"a": {}, "s": "str"}));
        assert_eq!(x(&["x.s.t=1"])["s"], json!({"t": 1}));
        assert_eq!(x(&["x.a.c.d=1"])["a"]["c"], json!({"d": 1}));
        assert_eq!(
            x(&["x.l[0].d=1,x.l[0].e=f", "x.l[2]=g"])["l"],
            json!([{"d": 1, "e": "f"}, null, "g"])
        );
        assert_eq!(x(&["x.l={1,b,null}"])["l"], json!([1, "b", {}]));
        assert_eq!(
            x(&["x.a.b=1", "x.a=2", "x.n[0][1]=3"]),
            json!({"a": 2, "s": "str", "n": [[null, 3]]})
        );
    }

    #[test]
    fn placeholders_are_values_and_never_structure() {
        let env = env().with_lookup(|_| Some("a,b=1".into()));
        let overrides =
            Overrides::new(["x.v=${A},x.w={{ .bundlename }},x.${A}=1"], [""; 0]).unwrap();
        let template = Template::parse("opa.yaml", "x: {}").unwrap();
        let document = template
            .with_overrides(overrides)
            .render("orders", &env)
            .unwrap();
        assert_eq!(
            document.to_json(),
            json!({"x": {"v": "a,b=1", "w": "orders", "a,b=1": 1}})
        );
        assert_eq!(
            x(&["x.v=${A}0"])["v"],
            json!(10),
            "it is typed when it is filled"
        );
        assert_eq!(
            x(&["x.v=\\${A}"])["v"],
            json!(1),
            "the backslash is the first letter's"
        );
        assert_eq!(x(&["x.v=${UNSET}"])["v"], json!("${UNSET}"));
        let error = render(&["services.a.url=http://${UNSET}"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--set services.a.url=…:1:23: services.a.url: environment variable `UNSET` is not set"
        );
        assert_eq!(error.kind(), ConfigErrorKind::Variable);
    }

    #[test]
    fn files_are_trimmed_strings_and_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " ${A} 1\n\n").unwrap();
        let flag = format!("x.v={}", path.display());
        let json = render(&["x.v=2"], &[&flag]).unwrap();
        assert_eq!(json["x"]["v"], json!("${A} 1"));
        std::fs::write(&path, "5\n").unwrap();
        assert_eq!(render(&[], &[&flag]).unwrap()["x"]["v"], json!("5"));
        assert_eq!(render(&[], &["x.v="]).unwrap()["x"]["v"], json!(""));

        std::fs::write(&path, [0xff]).unwrap();
        let error = render(&[], &[&flag]).unwrap_err();
        assert!(error.to_string().ends_with("expected UTF-8"), "{error}");
        assert!(
            error.to_string().starts_with("--set-file x.v=…:1:5: `/"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            render(&[], &[&flag]).unwrap_err().kind(),
            ConfigErrorKind::Io
        );
    }

    #[test]
    fn errors_name_the_flag_and_hide_the_value() {
        for (set, expected) in [
            (
                &["x=secret,y"] as &[&str],
                "--set y:1:10: key `y` has no value",
            ),
            (
                &["x={secret"],
                "--set x=…:1:3: the list has no `}` at its end",
            ),
            (&["x.${A}.b"], "--set x.${A}.b:1:8: key `b` has no value"),
            (
                &["x={{ .other }}"],
                "--set:1:3: expected `{{ .bundlename }}` or `{{ .Env.NAME }}`, found `{{ .other }}`",
            ),
            (
                &["x.a=1", "x.a.b=2"],
                "--set x.a.b=…:1:5: x.a.b: an earlier override sets what this is a part of",
            ),
            (
                &["x.l=1,x.l[0]=2"],
                "--set x.l[0]=…:1:7: x.l.0: an earlier override sets what this is an item of",
            ),
            (
                &["x.a[0]=1", "x.a.b=2"],
                "--set x.a.b=…:1:5: x.a.b: an earlier override sets what this is a part of",
            ),
        ] {
            assert_eq!(render(set, &[]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_is_read_from_an_override_is_placed_there() {
        let text = "services: {a: {url: 'http://a.test'}}";
        let config = |set: &[&str]| {
            let template = Template::parse("opa.yaml", text).unwrap();
            let overrides = Overrides::new(set, &[""; 0]).unwrap();
            template.with_overrides(overrides).config("orders", &env())
        };
        assert_eq!(
            config(&["services.a.url=http://b.test"]).unwrap().services[0].url,
            "http://b.test"
        );
        assert_eq!(
            config(&["labels.a=b,services.a.url=5"])
                .unwrap_err()
                .to_string(),
            "--set services.a.url=…:1:27: services.a.url: expected a string, found a number"
        );
        assert_eq!(
            config(&["services.a.colour=red"]).unwrap().warnings[0].to_string(),
            "--set services.a.colour=…:1:12: services.a.colour: unknown configuration option \"services.a.colour\" encountered"
        );
    }

    #[test]
    fn a_file_that_is_no_object_stays_wrong() {
        let template = Template::parse("opa.yaml", "[a]").unwrap();
        let overrides = Overrides::new(["labels.a=b"], [""; 0]).unwrap();
        assert!(
            template
                .with_overrides(overrides)
                .config("orders", &env())
                .is_err()
        );
        let template = Template::parse("opa.yaml", "").unwrap();
        let overrides = Overrides::new(["labels.a=b"], [""; 0]).unwrap();
        let config = template
            .with_overrides(overrides)
            .config("orders", &env())
            .unwrap();
        assert_eq!(config.labels["a"], "b");
    }
}
