//! What becomes of a request when its decision is final.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response};
use opa_core::{Decision, Reason};

use crate::response::{Allowance, Denial, Refusal};
use crate::settings::Settings;

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

/// What a request is to become, if the decision says so when it is final.
pub(crate) enum Effect {
    Pass(Allowance),
    Deny(Denial),
    Fault,
}

/// A request whose decision is made and waits for its log.
pub(crate) struct Sentence {
    effect: Effect,
    parts: Parts,
    settings: Arc<Settings>,
}

impl Sentence {
    pub(crate) fn new(effect: Effect, settings: &Arc<Settings>, parts: Parts) -> Self {
        Self {
            effect,
            parts,
            settings: Arc::clone(settings),
        }
    }

    /// Whether the inner service may still be called.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.effect, Effect::Pass(_))
    }

    pub(crate) fn rule(self, decision: Decision) -> Ruling {
        self.effect.rule(&self.settings, self.parts, decision)
    }
}

impl Effect {
    /// A decision that couldn't be logged has become a fault, whatever the policy said.
    pub(crate) fn rule(self, settings: &Settings, parts: Parts, decision: Decision) -> Ruling {
        let refusal = match self {
            Self::Pass(allowance) if decision.is_allowed() => {
                return Ruling::pass(parts, decision, allowance);
            }
            Self::Deny(denial) if decision.reason() == Reason::Denied => {
                Refusal::denial(denial, decision)
            }
            _ => Refusal::fault(decision.reason(), Some(decision)),
        };
        Ruling::refuse(settings, &parts, refusal)
    }
}

impl Ruling {
    fn pass(mut parts: Parts, decision: Decision, allowance: Allowance) -> Self {
        allowance.apply(&mut parts.headers);
        parts.extensions.insert(decision.app().clone());
        parts.extensions.insert(decision.clone());
        Self::Pass {
            parts,
            passed: Passed {
                decision,
                add_to_response: allowance.add_to_response,
            },
        }
    }

    pub(crate) fn refuse(settings: &Settings, parts: &Parts, refusal: Refusal) -> Self {
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
