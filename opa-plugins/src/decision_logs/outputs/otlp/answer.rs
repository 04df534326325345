//! What a collector answers.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;

use super::super::super::output::OutputError;

/// A request that was taken, but for some of its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) rejected: usize,
    pub(super) message: String,
}

/// A request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Now; another time it may be.
    Now(OutputError),
    /// Two smaller ones may be.
    TooLarge(String),
    /// Never.
    Invalid(String),
}

/// The longest text of a server that is shown.
const MAX_TEXT: usize = 512;

impl From<ExportLogsServiceResponse> for Accepted {
    fn from(response: ExportLogsServiceResponse) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        let accepted = Self {
            rejected: usize::try_from(partial.rejected_log_records).unwrap_or_default(),
            message: text(&partial.error_message),
        };
        if accepted.rejected == 0 && !accepted.message.is_empty() {
            let message = &accepted.message;
            tracing::warn!(target: "opa::decision_logs", "the collector warns: {message}");
        }
        accepted
    }
}

/// What may be shown of a server's text.
pub(super) fn text(text: &str) -> String {
    let shown = text.chars().take(MAX_TEXT);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An error with all of its causes.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
