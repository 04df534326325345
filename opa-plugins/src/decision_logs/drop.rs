//! The drop policy's answer.

use opa_core::Value;

/// Whether the drop policy's answer drops the event: only `true` does, as in OPA. `None` is
/// undefined.
///
/// ```
/// use opa_core::Value;
/// use opa_plugins::decision_logs::is_dropped;
///
/// assert!(is_dropped(Some(&Value::from(true))));
/// assert!(!is_dropped(Some(&Value::from("true"))));
/// assert!(!is_dropped(None));
/// ```
#[must_use]
pub fn is_dropped(answer: Option<&Value>) -> bool {
    answer.and_then(Value::as_bool) == Some(true)
}
