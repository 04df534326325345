//! The policies on logs, asked off the way of requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opa_core::Value;
use opa_core::engine::{Budget, EntrypointPath};
use opa_core::plugin::{Event, EventInput, LogAnswer, LogPolicy};

use super::super::mask::{MaskError, MaskRules};
use super::super::outputs::Policies;
use super::super::{is_dropped, to_value};
use super::intake::Group;

/// How long a policy on logs may take for an event, waiting for a thread included. Its other
/// bounds are those of decisions.
const TIME: Duration = Duration::from_secs(1);

/// An event that is to be logged, and what is left to be masked of it.
pub(super) struct Kept {
    event: Event,
    mask: Option<Value>,
}

impl Kept {
    /// The event as it may be shown. Takes its time.
    pub(super) fn masked(self) -> Event {
        let Self { mut event, mask } = self;
        build_input(&mut event);
        if let Some(answer) = mask {
            let masked: Result<(), MaskError> =
                MaskRules::from_answer(Some(&answer)).and_then(|rules| rules.apply(&mut event));
            if let Err(error) = masked {
                event.withhold(&error.to_string());
            }
            // The text of an error can carry what was masked; OPA shows it.
            let is_masked = !event.erased.is_empty() || !event.masked.is_empty();
            if let Some(error) = event.error.as_mut().filter(|_| is_masked) {
                error.message = "withheld".into();
            }
        }
        event
    }
}

/// Asks the event's own policy for each group whether the event is to be dropped and what is to be
/// masked: `None` when it is dropped. What can't be told is withheld.
pub(super) async fn ask(mut event: Event, groups: &[Group]) -> Vec<Option<Kept>> {
    let keep = |event| {
        let events = std::iter::repeat_n(event, groups.len());
        events
            .map(|event| Some(Kept { event, mask: None }))
            .collect()
    };
    if matches!(event.input, EventInput::Withheld) {
        return keep(event);
    }
    let Some(policy) = event.policy.take() else {
        build_input(&mut event);
        if !matches!(event.input, EventInput::None) || event.result.is_some() {
            event.withhold("there is no policy that could say what a log may show");
        }
        return keep(event);
    };
    let is_asked = |group: &Group| {
        let Policies {
            drop_decision,
            mask_decision,
        } = &group.policies;
        policy.defines(drop_decision) || policy.defines(mask_decision)
    };
    if !groups.iter().any(is_asked) {
        // The input is built when the event is encoded.
        return keep(event);
    }
    build_input(&mut event);
    let Some(document) = to_value(&event) else {
        event.withhold("the event is too large for the policy on logs");
        return keep(event);
    };
    let mut questions = Questions {
        policy,
        document,
        answered: Vec::new(),
    };
    let mut kept = Vec::with_capacity(groups.len());
    for group in groups {
        kept.push(questions.ask(event.clone(), &group.policies).await);
    }
    kept
}

/// What is asked about one event, each once.
struct Questions<'a> {
    policy: LogPolicy,
    document: Value,
    answered: Vec<(&'a EntrypointPath, LogAnswer)>,
}

impl<'a> Questions<'a> {
    async fn ask(&mut self, mut event: Event, policies: &'a Policies) -> Option<Kept> {
        let mut mask = None;
        match self.answer(&policies.drop_decision).await {
            LogAnswer::Value(answer) if is_dropped(Some(&answer)) => return None,
            LogAnswer::Value(_) | LogAnswer::Undefined => {}
            answer => {
                event.withhold(&failed("drop", &answer));
                return Some(Kept { event, mask });
            }
        }
        match self.answer(&policies.mask_decision).await {
            LogAnswer::Value(answer) => mask = Some(answer),
            LogAnswer::Undefined => {}
            answer => event.withhold(&failed("mask", &answer)),
        }
        Some(Kept { event, mask })
    }

    async fn answer(&mut self, path: &'a EntrypointPath) -> LogAnswer {
        if let Some((_, answer)) = self.answered.iter().find(|(asked, _)| *asked == path) {
            return answer.clone();
        }
        let answer = match self.policy.defines(path) {
            true => {
                let budget = Budget::default().time(TIME);
                let asked = self.policy.evaluate(path, self.document.clone(), budget);
                asked.await
            }
            false => LogAnswer::Undefined,
        };
        self.answered.push((path, answer.clone()));
        answer
    }
}

/// A deferred input is a layer's code, which may panic.
fn build_input(event: &mut Event) {
    if let EventInput::Deferred(input) = &event.input {
        match catch_unwind(AssertUnwindSafe(|| input.build())) {
            Ok(built) => event.input = EventInput::Built(built),
            Err(_) => event.withhold("a panic ended the building of the input"),
        }
    }
}

fn failed(which: &str, answer: &LogAnswer) -> String {
    match answer {
        LogAnswer::Failed(reason) => format!("the {which} policy failed: {}", reason.as_str()),
        _ => format!("the {which} policy gave no answer"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opa_core::plugin::{EventError, Labels};
    use opa_core::{AppId, Reason};

    use super::*;

    #[test]
    fn the_text_of_an_error_does_not_tell_what_was_masked() {
        for (rule, message) in [
            ("/input/password", "withheld"),
            ("/input/other", "not a number: `s3cret`"),
        ] {
            let app = AppId::new("shop").unwrap();
            let labels = Labels::new([]);
            let now = SystemTime::UNIX_EPOCH;
            let mut event = Event::new(app, labels, "1".into(), Reason::EvalError, now);
            let password = (Value::from("password"), Value::from("s3cret"));
            event.input = EventInput::Built(Value::object([password]));
            event.error = Some(EventError {
                code: "eval_error".into(),
                message: "not a number: `s3cret`".into(),
            });
            let mask = Some(Value::array([Value::from(rule)]));
            let masked = Kept { event, mask }.masked();
            assert_eq!(&*masked.error.unwrap().message, message, "{rule}");
        }
    }
}
