//! The way from a request's head to what becomes of it, the same for every mode of the layer.

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use opa_core::instance::{Concluded, Evaluated, Evaluation, LogEntry, Prepared};
use opa_core::plugin::{EventInput, RequestHeader};
use opa_core::{App, AppId, AppSet, Reason};

use crate::app::Rejection;
use crate::input::{self, Input, Request};
use crate::response::{Allowance, Refusal, Verdict};
use crate::ruling::{Effect, Ruling, Sentence};
use crate::settings::Settings;

/// What becomes of a request, or what must be waited for to know it.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack until it is in the future"
)]
pub(crate) enum Step {
    Ruled(Ruling),
    Evaluates {
        evaluation: Evaluation,
        case: Case,
    },
    Concludes {
        concluded: Concluded,
        sentence: Sentence,
    },
}

/// A request whose evaluation is under way.
pub(crate) struct Case {
    parts: Parts,
    settings: Arc<Settings>,
    entry: LogEntry,
}

/// Asks the app of `set` that the request names.
pub(crate) fn judge_named(
    settings: &Arc<Settings>,
    set: &AppSet,
    named: Result<AppId, Rejection>,
    parts: Parts,
    has_body: bool,
) -> Step {
    let rejection = match named {
        Ok(id) => match set.get(id.as_str()) {
            Some(app) => return judge(settings, app, parts, has_body),
            None => Rejection::not_found(),
        },
        Err(rejection) => rejection,
    };
    tracing::event!(
        target: "opa::decision",
        tracing::Level::DEBUG,
        opa.decision.reason = Reason::UnknownApp.as_str(),
        http.response.status_code = rejection.status().as_u16(),
    );
    Step::Ruled(Ruling::refuse(
        settings,
        &parts,
        Refusal::rejection(rejection),
    ))
}

/// Asks `app`.
pub(crate) fn judge(settings: &Arc<Settings>, app: &App, parts: Parts, has_body: bool) -> Step {
    let question = app.ask();
    let path = match &settings.entrypoint {
        Some(Err(invalid)) => {
            let reason = Reason::InvalidEntrypoint;
            let concluded = question.refuse(reason, &invalid.to_string(), LogEntry::default());
            return Step::concluded(settings, parts, concluded, Effect::Fault);
        }
        Some(Ok(path)) => Some(path),
        None => None,
    };
    match question.prepare(path) {
        Ok(prepared) => evaluate(settings, prepared, parts, has_body),
        Err(concluded) => Step::concluded(settings, parts, concluded, Effect::Fault),
    }
}

/// Shows the request to the policy, unless it can't be shown whole.
fn evaluate(settings: &Arc<Settings>, prepared: Prepared, parts: Parts, has_body: bool) -> Step {
    let request = Request::of(&parts, settings, &prepared);
    let requested_by = request.peer().map(|peer| peer.to_string().into());
    let request_headers = logged_headers(&prepared, &parts.headers);
    let target = match request.read() {
        Ok(target) => target,
        Err(unreadable) => {
            let entry = LogEntry {
                input: EventInput::None,
                requested_by,
                request_headers,
            };
            let (reason, message) = (unreadable.reason(), unreadable.to_string());
            return refuse(settings, prepared, parts, reason, &message, entry);
        }
    };
    if has_body && !settings.body_unseen {
        let entry = LogEntry {
            input: input::logged(&request, settings, &prepared),
            requested_by,
            request_headers,
        };
        let reason = Reason::BodyUnseen;
        let message = "the request has a body that the policy is not shown";
        return refuse(settings, prepared, parts, reason, message, entry);
    }
    let Input { given, logged } = Input::build(&request, &target, settings, &parts, &prepared);
    let entry = LogEntry {
        input: logged,
        requested_by,
        request_headers,
    };
    match prepared.evaluate(given).now() {
        Ok(evaluated) => rule(settings, evaluated, parts, entry),
        Err(evaluation) => Step::Evaluates {
            evaluation,
            case: Case {
                parts,
                settings: Arc::clone(settings),
                entry,
            },
        },
    }
}

/// The headers that the log shows, as far as the request has them.
fn logged_headers(prepared: &Prepared, headers: &HeaderMap) -> Vec<RequestHeader> {
    let values = |name: &str| {
        let values = headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect()
    };
    let names = prepared.logged_headers().iter();
    names
        .filter(|name| headers.contains_key(&***name))
        .map(|name| RequestHeader {
            name: Arc::clone(name),
            values: values(name),
        })
        .collect()
}

impl Case {
    pub(crate) fn rule(self, evaluated: Evaluated) -> Step {
        rule(&self.settings, evaluated, self.parts, self.entry)
    }
}

/// Ends the question before the policy is asked. In dry-run the request passes nevertheless.
fn refuse(
    settings: &Arc<Settings>,
    prepared: Prepared,
    parts: Parts,
    reason: Reason,
    message: &str,
    entry: LogEntry,
) -> Step {
    let (concluded, effect) = if prepared.is_dry_run() {
        let concluded = prepared.pass_in_dry_run(reason, message, entry);
        (concluded, Effect::Pass(Allowance::default()))
    } else {
        (prepared.refuse(reason, message, entry), Effect::Fault)
    };
    Step::concluded(settings, parts, concluded, effect)
}

/// Reads the policy's answer, and makes the decision.
fn rule(settings: &Arc<Settings>, evaluated: Evaluated, parts: Parts, entry: LogEntry) -> Step {
    let verdict = match (evaluated.fault(), evaluated.result()) {
        (None, Some(answer)) => Verdict::read(answer),
        // The fault stands above whatever reason the decision is concluded with.
        _ => Err(String::new()),
    };
    let (reason, effect, problem) = match verdict {
        Ok(Verdict::Allow(allowance)) => (Reason::Allowed, Effect::Pass(allowance), None),
        Ok(Verdict::Deny(denial)) => (Reason::Denied, Effect::Deny(denial), None),
        Err(problem) => (Reason::InvalidDecision, Effect::Fault, Some(problem)),
    };
    let (reason, effect) = match effect {
        Effect::Deny(_) | Effect::Fault if evaluated.is_dry_run() => {
            (Reason::DryRun, Effect::Pass(Allowance::default()))
        }
        effect => (reason, effect),
    };
    let concluded = evaluated.conclude(reason, problem.as_deref(), entry);
    Step::concluded(settings, parts, concluded, effect)
}

impl Step {
    fn concluded(
        settings: &Arc<Settings>,
        parts: Parts,
        concluded: Concluded,
        effect: Effect,
    ) -> Self {
        match concluded.now() {
            Ok(decision) => Self::Ruled(effect.rule(settings, parts, decision)),
            Err(concluded) => Self::Concludes {
                concluded,
                sentence: Sentence::new(effect, settings, parts),
            },
        }
    }
}
