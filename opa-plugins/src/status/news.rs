//! What is new in a status.

use opa_core::plugin::{BundleStatus, InstanceStatus, State};

use super::DecisionLogsStatus;

/// What a status has that the one before had not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing, or a poll that has no outcome yet.
    Nothing,
    /// The outcome of a poll, which changed nothing but times.
    Poll,
    /// What a receiver wants to know now.
    Change,
}

/// What is new in `new`.
pub(super) fn of(old: &InstanceStatus, new: &InstanceStatus) -> News {
    let same_bundles =
        old.bundles.len() == new.bundles.len() && old.bundles.iter().zip(&new.bundles).all(is_same);
    let same = same_bundles
        && place(&old.state) == place(&new.state)
        && old.labels == new.labels
        && old.configuration_problem == new.configuration_problem;
    if !same {
        return News::Change;
    }
    match old.bundles.iter().zip(&new.bundles).any(is_on_the_way) {
        true => News::Nothing,
        false => News::Poll,
    }
}

/// Whether the last upload of decisions tells something new. The counters of the encoder and of
/// uploads change with every chunk, those of what was lost don't.
pub(super) fn is_news_of_logs(
    old: Option<&DecisionLogsStatus>,
    new: Option<&DecisionLogsStatus>,
) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return old.is_some() != new.is_some();
    };
    let losses = |status: &DecisionLogsStatus| {
        let counters = status.counters.clone().into_iter();
        let of_chunks = ["enc_", "decision_logs_chunks_"];
        let is_loss = |name: &str| !of_chunks.iter().any(|prefix| name.starts_with(prefix));
        let counters = counters.filter(|(name, count)| is_loss(name) && *count > 0);
        counters.collect::<Vec<_>>()
    };
    (&old.message, old.http_code) != (&new.message, new.http_code) || losses(old) != losses(new)
}

/// What a status tells of the state.
fn place(state: &State) -> u8 {
    match state {
        State::Ready => 1,
        State::Closed => 2,
        // The reason is that of a bundle, and the time of the next attempt isn't told.
        State::Starting | State::Failed { .. } => 0,
    }
}

/// Whether nothing but times of polls differs.
fn is_same((old, new): (&BundleStatus, &BundleStatus)) -> bool {
    old.name == new.name
        && old.active_revision == new.active_revision
        && old.last_successful_activation == new.last_successful_activation
        && old.bundle_type == new.bundle_type
        && old.size == new.size
        && old.code == new.code
        && old.message == new.message
        && old.errors == new.errors
        && old.http_code == new.http_code
}

/// Whether the bundle was asked for, or came, and what becomes of it isn't known yet.
fn is_on_the_way((old, new): (&BundleStatus, &BundleStatus)) -> bool {
    old.last_request != new.last_request
        || old.last_successful_download != new.last_successful_download
}

#[cfg(test)]
mod tests {
    use super::*;
    use opa_core::AppId;
    use std::time::{Duration, SystemTime};

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn status(state: State, edit: impl FnOnce(&mut BundleStatus)) -> InstanceStatus {
        let mut bundle = BundleStatus::default();
        bundle.name = "b".into();
        bundle.last_request = at(1);
        bundle.active_revision = Some("r1".into());
        edit(&mut bundle);
        InstanceStatus::new(AppId::new("shop").unwrap(), None, state, None, vec![bundle])
    }

    fn news(edit: impl FnOnce(&mut BundleStatus)) -> News {
        of(&status(State::Ready, |_| ()), &status(State::Ready, edit))
    }

    #[test]
    fn a_poll_is_told_of_when_its_outcome_is_known() {
        assert_eq!(news(|it| it.last_request = at(2)), News::Nothing);
        assert_eq!(news(|it| it.last_successful_request = at(2)), News::Poll);
        let came = |it: &mut BundleStatus| {
            it.last_successful_request = at(2);
            it.last_successful_download = at(2);
        };
        assert_eq!(news(came), News::Nothing);
        // The same failure again leaves no other trace.
        assert_eq!(news(|_| ()), News::Poll);
    }

    #[test]
    fn what_a_receiver_sees_is_news() {
        assert_eq!(
            news(|it| it.active_revision = Some("r2".into())),
            News::Change
        );
        assert_eq!(
            news(|it| it.last_successful_activation = at(2)),
            News::Change
        );
        assert_eq!(news(|it| it.code = Some("bundle_error")), News::Change);
        assert_eq!(news(|it| it.message = Some("m".into())), News::Change);
        assert_eq!(news(|it| it.http_code = Some(404)), News::Change);
        assert_eq!(news(|it| it.bundle_type = Some("delta")), News::Change);
        // Not in the JSON.
        assert_eq!(news(|it| it.stale = true), News::Poll);
    }

    #[test]
    fn of_the_state_only_what_is_told_is_news() {
        let failed = |seconds| State::Failed {
            reason: "r".into(),
            retry_at: at(seconds),
        };
        let between = |old, new| of(&status(old, |_| ()), &status(new, |_| ()));
        assert_eq!(between(State::Starting, failed(1)), News::Poll);
        assert_eq!(between(failed(1), failed(2)), News::Poll);
        assert_eq!(between(failed(1), State::Ready), News::Change);
        assert_eq!(between(State::Ready, State::Closed), News::Change);
        let mut problem = status(State::Ready, |_| ());
        problem.configuration_problem = Some("no".into());
        assert_eq!(of(&status(State::Ready, |_| ()), &problem), News::Change);
    }

    #[test]
    fn of_an_upload_failures_and_losses_are_news() {
        let logs = |message: Option<&str>, counters: &[(&'static str, u64)]| DecisionLogsStatus {
            message: message.map(str::to_owned),
            counters: counters.iter().copied().collect(),
            ..DecisionLogsStatus::default()
        };
        let fine = logs(None, &[("enc_log_exceeded", 1)]);
        let news = |new: Option<&DecisionLogsStatus>| is_news_of_logs(Some(&fine), new);
        assert!(news(None));
        assert!(news(Some(&logs(Some("m"), &[]))));
        assert!(news(Some(&logs(None, &[("decision_logs_dropped", 1)]))));
        assert!(!news(Some(&logs(
            None,
            &[
                ("enc_log_exceeded", 2),
                ("decision_logs_dropped", 0),
                ("decision_logs_chunks_uploaded", 3),
            ]
        ))));
        assert!(!is_news_of_logs(None, None));
    }
}
