//! The way from a request's head to what becomes of it, the same for every mode of the layer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response};
use opa_core::instance::{Evaluated, Evaluation, LogEntry, Prepared};
use opa_core::plugin::{EventInput, RequestHeader};
use opa_core::{App, AppId, AppSet, Decision, Reason};

use crate::app::Rejection;
use crate::input::{self, Input, Request};
use crate::response::{Refusal, Verdict};
use crate::settings::Settings;

/// What becomes of a request, or what must be waited for to know it.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack until it is in the future"
)]
pub(crate) enum Step {
    Ruled(Ruling),
    Waits { evaluation: Evaluation, case: Case },
}

/// What becomes of a request.
pub(crate) enum Ruling {
    Pass { parts: Parts, passed: Passed },
    Refuse(Response<Bytes>),
}

/// What is left to do when the inner service has answered.
pub(crate) struct Passed {
    pub(crate) decision: Decision,
    pub(crate) add_to_response: HeaderMap,
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
    Step::refuse(settings, &parts, Refusal::rejection(rejection))
}

/// Asks `app`.
pub(crate) fn judge(settings: &Arc<Settings>, app: &App, parts: Parts, has_body: bool) -> Step {
    let question = app.ask();
    let path = match &settings.entrypoint {
        Some(Err(invalid)) => {
            let reason = Reason::InvalidEntrypoint;
            let decision = question.refuse(reason, &invalid.to_string(), LogEntry::default());
            return Step::fault(settings, &parts, decision);
        }
        Some(Ok(path)) => Some(path),
        None => None,
    };
    match question.prepare(path) {
        Ok(prepared) => evaluate(settings, prepared, parts, has_body),
        Err(decision) => Step::fault(settings, &parts, decision),
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
        Ok(evaluated) => Step::Ruled(rule(settings, evaluated, parts, entry)),
        Err(evaluation) => Step::Waits {
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
    pub(crate) fn rule(self, evaluated: Evaluated) -> Ruling {
        rule(&self.settings, evaluated, self.parts, self.entry)
    }
}

/// Ends the question before the policy is asked. In dry-run the request passes nevertheless.
fn refuse(
    settings: &Settings,
    prepared: Prepared,
    parts: Parts,
    reason: Reason,
    message: &str,
    entry: LogEntry,
) -> Step {
    if prepared.is_dry_run() {
        let decision = prepared.pass_in_dry_run(reason, message, entry);
        return Step::Ruled(Ruling::pass(parts, decision, HeaderMap::new()));
    }
    let decision = prepared.refuse(reason, message, entry);
    Step::fault(settings, &parts, decision)
}

/// Reads the policy's answer, and makes the decision final.
fn rule(settings: &Settings, evaluated: Evaluated, mut parts: Parts, entry: LogEntry) -> Ruling {
    let verdict = match (evaluated.fault(), evaluated.result()) {
        (None, Some(answer)) => Verdict::read(answer),
        // The fault stands above whatever reason the decision is concluded with.
        _ => Err(String::new()),
    };
    if let Ok(Verdict::Allow(allowance)) = verdict {
        allowance.apply(&mut parts.headers);
        let decision = evaluated.conclude(Reason::Allowed, None, entry);
        return Ruling::pass(parts, decision, allowance.add_to_response);
    }
    let problem = verdict.as_ref().err().map(String::as_str);
    if evaluated.is_dry_run() {
        let decision = evaluated.conclude(Reason::DryRun, problem, entry);
        return Ruling::pass(parts, decision, HeaderMap::new());
    }
    let refusal = match verdict {
        Ok(Verdict::Deny(denial)) => {
            Refusal::denial(denial, evaluated.conclude(Reason::Denied, None, entry))
        }
        _ => {
            let decision = evaluated.conclude(Reason::InvalidDecision, problem, entry);
            Refusal::fault(decision.reason(), Some(decision))
        }
    };
    Ruling::refuse(settings, &parts, refusal)
}

impl Step {
    fn fault(settings: &Settings, parts: &Parts, decision: Decision) -> Self {
        Self::refuse(
            settings,
            parts,
            Refusal::fault(decision.reason(), Some(decision)),
        )
    }

    fn refuse(settings: &Settings, parts: &Parts, refusal: Refusal) -> Self {
        Self::Ruled(Ruling::refuse(settings, parts, refusal))
    }
}

impl Ruling {
    fn pass(mut parts: Parts, decision: Decision, add_to_response: HeaderMap) -> Self {
        parts.extensions.insert(decision.app().clone());
        parts.extensions.insert(decision.clone());
        Self::Pass {
            parts,
            passed: Passed {
                decision,
                add_to_response,
            },
        }
    }

    fn refuse(settings: &Settings, parts: &Parts, refusal: Refusal) -> Self {
        let decision = refusal.decision().cloned();
        let reason = refusal.reason();
        let mut response = settings.responder.respond(refusal, parts);
        match decision {
            Some(decision) => drop(response.extensions_mut().insert(decision)),
            None => drop(response.extensions_mut().insert(reason)),
        }
        Self::Refuse(response)
    }
}
