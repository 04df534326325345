//! Finds placeholders, as OPA's expression and Go's text/template do.

/// What Go's text/template trims around an action with `-`.
pub(crate) const GO_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `{{ .bundlename }}`: the app.
    App,
    /// `${NAME}` or `{{ .Env.NAME }}`: an environment variable.
    Env(Box<str>),
    /// Anything else in `{{ }}`. An error unless it stands in a comment.
    Unknown,
}

/// A placeholder at a byte range.
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// White space before the placeholder goes with it.
    pub(crate) trims_left: bool,
    /// White space after the placeholder goes with it.
    pub(crate) trims_right: bool,
}

/// Walks once over the text.
pub(crate) struct Finder<'t> {
    text: &'t str,
    at: usize,
    /// No `}` ends a `${` before this offset. It keeps the search linear.
    unclosed_until: usize,
}

impl<'t> Finder<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            unclosed_until: 0,
        }
    }
}

impl Iterator for Finder<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let found = self.find()?;
        self.at = found.end;
        Some(found)
    }
}

impl Finder<'_> {
    fn find(&mut self) -> Option<Found> {
        let from = self.at;
        loop {
            let brace = self.at + self.text.get(self.at..)?.find('{')?;
            let after = self.text.get(brace + 1..)?;
            if after.starts_with('{') {
                // Also after a `$`: Skipper's template is rendered first.
                return Some(action(self.text, brace));
            }
            let dollar = brace.checked_sub(1).filter(|dollar| *dollar >= from);
            let before = dollar.and_then(|dollar| self.text.get(dollar..brace));
            if let Some(found) = dollar
                .filter(|_| before == Some("$"))
                .and_then(|d| self.env(d))
            {
                return Some(found);
            }
            self.at = brace + 1;
        }
    }

    /// `${NAME}`: OPA's expression `(?U:\${.*})`, up to the first `}` of the same line.
    fn env(&mut self, start: usize) -> Option<Found> {
        let name_start = start + 2;
        if name_start < self.unclosed_until {
            return None;
        }
        let rest = self.text.get(name_start..)?;
        let stop = rest.find(['}', '\n']).unwrap_or(rest.len());
        let name = rest.get(..stop)?;
        if rest.get(stop..)?.starts_with('}') {
            let kind = if name.contains("{{") {
                Kind::Unknown
            } else {
                Kind::Env(name.into())
            };
            let end = name_start + stop + 1;
            return Some(Found {
                kind,
                start,
                end,
                trims_left: false,
                trims_right: false,
            });
        }
        self.unclosed_until = name_start + stop;
        None
    }
}

/// Reads the action that starts with `{{` at `start`.
fn action(text: &str, start: usize) -> Found {
    let body = text.get(start + 2..).unwrap_or_default();
    if let Some((kind, length, trims_left, trims_right)) = known_action(body) {
        return Found {
            kind,
            start,
            end: start + 2 + length,
            trims_left,
            trims_right,
        };
    }
    let line = body.split('\n').next().unwrap_or_default();
    let length = line
        .find("}}")
        .map_or(line.trim_end_matches('\r').len(), |at| at + 2);
    let end = start + 2 + length;
    Found {
        kind: Kind::Unknown,
        start,
        end,
        trims_left: false,
        trims_right: false,
    }
}

/// Reads `.bundlename }}` or `.Env.NAME }}` as Go's text/template does: kind, length, and
/// whether white space before and after is trimmed.
fn known_action(body: &str) -> Option<(Kind, usize, bool, bool)> {
    let trims_left = body
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(GO_SPACE));
    let rest = if trims_left { body.get(1..)? } else { body };
    let rest = rest.trim_start_matches(GO_SPACE).strip_prefix('.')?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    let (name, rest) = rest.split_at_checked(length)?;
    let kind = match name.strip_prefix("Env.") {
        Some(variable) if is_go_field(variable) => Kind::Env(variable.into()),
        None if name == "bundlename" => Kind::App,
        _ => return None,
    };
    let trimmed = rest.trim_start_matches(GO_SPACE);
    let trims_right = trimmed.starts_with("-}}") && trimmed.len() < rest.len();
    let rest = trimmed.strip_prefix(if trims_right { "-}}" } else { "}}" })?;
    Some((kind, body.len() - rest.len(), trims_left, trims_right))
}

fn is_go_field(name: &str) -> bool {
    !name.contains('.') && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
