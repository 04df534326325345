use opa_core::instance::InstanceReport;
use opa_core::{FailureClass, Reason};

use super::family::Family;
use super::{AppEvents, LastUpload};
use crate::status::{DecisionLogsStatus, PluginState};

/// OPA's code of whatever fails with a bundle.
const BUNDLE_ERROR: &str = "bundle_error";

/// How many bytes of a revision are told.
const MAX_REVISION: usize = 256;

/// One series of an app: small, since there may be a hundred thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) family: Family,
    pub(super) labels: Labels,
    pub(super) value: f64,
}

/// Its labels beside `app`. Bundles and outputs are numbered as in the report.
#[derive(Clone, Copy, Debug)]
pub(super) enum Labels {
    None,
    State,
    Plugin(&'static str, PluginState),
    Bundle(usize),
    Revision(usize),
    Failure(usize, FailureClass),
    Decision(Reason),
    Use { shared: bool },
    Events(usize),
    Dropped(usize, &'static str),
    Upload(usize),
}

impl Labels {
    /// The labels of a series, with their names.
    pub(super) fn of<'a>(
        self,
        report: &'a InstanceReport,
        events: &'a [AppEvents],
    ) -> Vec<(&'static str, &'a str)> {
        let mut labels = vec![("app", report.status.app.as_str())];
        let bundle = |at: usize| report.status.bundles.get(at);
        let name = |at| bundle(at).map_or("", |bundle| &*bundle.name);
        let output = |at: usize| Some(("output", events.get(at)?.output.as_deref()?));
        match self {
            Self::None => {}
            Self::State => labels.push(("state", report.status.state.as_str())),
            Self::Plugin(name, state) => {
                labels.extend([("name", name), ("status", state.as_str())]);
            }
            Self::Bundle(at) => labels.push(("name", name(at))),
            Self::Revision(at) => {
                let revision = bundle(at).and_then(|bundle| bundle.active_revision.as_deref());
                labels.extend([
                    ("name", name(at)),
                    ("active_revision", bounded(revision.unwrap_or_default())),
                ]);
            }
            Self::Failure(at, class) => labels.extend([
                ("name", name(at)),
                ("code", BUNDLE_ERROR),
                ("message", class.as_str()),
            ]),
            Self::Decision(reason) => {
                labels.extend([("outcome", outcome(reason)), ("reason", reason.as_str())])
            }
            Self::Use { shared: true } => labels.push(("use", "shared")),
            Self::Use { shared: false } => labels.push(("use", "own")),
            Self::Events(at) => labels.extend(output(at)),
            Self::Dropped(at, reason) => {
                labels.extend(output(at));
                labels.push(("reason", reason));
            }
            Self::Upload(at) => {
                labels.extend(output(at));
                let last = events.get(at).and_then(|it| it.last_upload.as_ref());
                let (code, http_code) = match last {
                    Some(LastUpload::Failure(code)) => (DecisionLogsStatus::CODE, code.as_ref()),
                    Some(LastUpload::Success) | None => ("", None),
                };
                let http_code = http_code.map_or("", |code| code.as_str());
                labels.extend([("code", code), ("http_code", http_code)]);
            }
        }
        labels
    }
}

/// The beginning of a text that whoever makes bundles chooses.
fn bounded(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_REVISION);
    text.get(..end).unwrap_or_default()
}

/// What a decision came to.
pub(super) fn outcome(reason: Reason) -> &'static str {
    match reason {
        Reason::Allowed | Reason::DryRun => "allowed",
        Reason::Denied | Reason::Undefined => "denied",
        Reason::Decided => "decided",
        Reason::Cancelled => "cancelled",
        _ => "error",
    }
}
