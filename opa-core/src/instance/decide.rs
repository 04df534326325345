use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::{App, Concluded, Decision, Evaluation, LogEntry};
use crate::engine::EntrypointPath;
use crate::plugin::EventInput;
use crate::{Reason, Value};

impl App {
    /// Asks the policy for the document at `path`, such as `orders/visible`.
    ///
    /// The future is ready with a [`Decision`] whatever happens: its
    /// [`reason`](Decision::reason) is [`Decided`](Reason::Decided) when the policy answered, and
    /// tells what failed else. The evaluation starts at once. Where a sink lets the decision wait for
    /// its log, so does the future, see [`Concluded`].
    ///
    /// # Panics
    /// Must be called, and the future polled, inside of a Tokio runtime with its timer on.
    pub fn decide(&self, path: &str, input: impl Into<Value>) -> Decide {
        let question = self.ask();
        let path = match EntrypointPath::parse(path) {
            Ok(path) => path,
            Err(error) => {
                let message = error.to_string();
                let entry = LogEntry::default();
                return Decide::ends(question.refuse(Reason::InvalidEntrypoint, &message, entry));
            }
        };
        match question.prepare(Some(&path)) {
            Ok(prepared) => {
                let input = input.into();
                let stage = Stage::Evaluation {
                    evaluation: prepared.evaluate(input.clone()),
                    input,
                };
                Decide { stage }
            }
            Err(concluded) => Decide::ends(concluded),
        }
    }
}

pin_project! {
    /// The future of [`App::decide`]. Dropping it counts the decision as cancelled.
    #[must_use = "futures do nothing unless polled"]
    pub struct Decide {
        #[pin]
        stage: Stage,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage {
        Concluded {
            #[pin]
            concluded: Concluded,
        },
        Evaluation {
            #[pin]
            evaluation: Evaluation,
            input: Value,
        },
    }
}

impl Decide {
    fn ends(concluded: Concluded) -> Self {
        Self {
            stage: Stage::Concluded { concluded },
        }
    }
}

impl Future for Decide {
    type Output = Decision;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Decision> {
        let mut stage = self.project().stage;
        loop {
            let concluded = match stage.as_mut().project() {
                StageProj::Concluded { concluded } => return concluded.poll(cx),
                StageProj::Evaluation { evaluation, input } => {
                    let evaluated = ready!(evaluation.poll(cx));
                    let input = EventInput::Built(std::mem::take(input));
                    let entry = LogEntry {
                        input,
                        ..LogEntry::default()
                    };
                    evaluated.conclude(Reason::Decided, None, entry)
                }
            };
            stage.set(Stage::Concluded { concluded });
        }
    }
}
