//! What became of each decision: by the counters of `serve`, and at the sink.

use std::collections::BTreeMap;
use std::fmt;

use crate::sink::Seen;

/// The answers that the generator got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    /// With status 200.
    pub(super) ok: u64,
    /// With another one.
    pub(super) others: u64,
    /// Requests without an answer, which may have been decided or not.
    pub(super) failed: u64,
}

impl Answers {
    pub(super) fn all(self) -> u64 {
        self.ok + self.others
    }
}

/// What `serve` tells in its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    decided: u64,
    delivered: u64,
    dropped: BTreeMap<String, u64>,
    buffered: u64,
    spooled: u64,
}

impl Account {
    pub(super) fn read(metrics: &str) -> Result<Self, String> {
        let mut account = Self::default();
        // An app has so many series at most; this one is left out before those of events.
        let mut is_whole = false;
        for (family, labels, value) in metrics.lines().filter_map(sample) {
            let number = || value.parse().map_err(|_| format!("{family} is {value}"));
            match family {
                "opa_decisions_total" => account.decided += number()?,
                "opa_decision_log_events_delivered_total" => account.delivered += number()?,
                "opa_decision_log_events_buffered" => account.buffered += number()?,
                "opa_decision_log_events_spooled" => account.spooled += number()?,
                "opa_decision_log_events_dropped_total" => {
                    let reason = label(labels, "reason").unwrap_or(labels);
                    account.dropped.insert(reason.to_owned(), number()?);
                }
                "plugin_status_gauge" => is_whole = true,
                _ => {}
            }
        }
        match is_whole {
            true => Ok(account),
            false => Err("series of events may be left out of the metrics".to_owned()),
        }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.buffered + self.spooled
    }

    pub(super) fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether each decision that was answered is where the counters say, and, `lossless`, none
    /// is lost.
    pub(super) fn check(&self, answers: Answers, seen: Seen, lossless: bool) -> Result<(), String> {
        let told = format!("{self}; {answers:?}; {seen:?}");
        let must = |holds: bool, what: &str| holds.then_some(()).ok_or(format!("{what}: {told}"));
        let answered = answers.all()..=answers.all() + answers.failed;
        must(
            answered.contains(&self.decided),
            "not as many decisions as answers",
        )?;
        let accounted = self.delivered + self.lost() + self.waiting();
        must(
            self.decided == accounted,
            "the counters of events don't add up to the decisions",
        )?;
        must(self.waiting() == 0, "events wait though the sink is well")?;
        must(
            seen.unique == self.delivered,
            "not as many events came as were delivered",
        )?;
        must(!lossless || self.lost() == 0, "events were lost")
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} decided = {} delivered", self.decided, self.delivered)?;
        for (reason, count) in self.dropped.iter().filter(|(_, count)| **count > 0) {
            write!(f, " + {count} dropped ({reason})")?;
        }
        match self.waiting() {
            0 => Ok(()),
            _ => write!(
                f,
                " + {} buffered + {} spooled",
                self.buffered, self.spooled
            ),
        }
    }
}

/// Name, labels and value of a line of Prometheus' text format.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (family, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((family, labels.trim_end_matches('}'), value))
}

/// A label that has no quotes in its value.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(label, _)| *label == name);
    Some(values.next()?.1.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# TYPE opa_decisions_total counter
opa_decisions_total{app="bench",outcome="decided",reason="decided"} 9
opa_decisions_total{app="bench",outcome="error",reason="overloaded"} 1
opa_decision_log_events_dropped_total{app="bench",reason="buffer_full"} 2
opa_decision_log_events_delivered_total{app="bench"} 8
opa_decision_log_events_buffered{app="bench"} 0
opa_decision_log_events_spooled{app="bench"} 0
plugin_status_gauge{app="bench",name="bundle",status="OK"} 1
"#;

    fn check(metrics: &str, unique: u64, lossless: bool) -> Result<(), String> {
        let answers = Answers {
            ok: 9,
            others: 1,
            failed: 0,
        };
        let seen = Seen {
            unique,
            events: unique + 5,
            bytes: 1,
        };
        Account::read(metrics)?.check(answers, seen, lossless)
    }

    #[test]
    fn exactly_the_counted_drops_are_missing() {
        check(METRICS, 8, false).unwrap();
        let account = Account::read(METRICS).unwrap();
        assert_eq!(
            account.to_string(),
            "10 decided = 8 delivered + 2 dropped (buffer_full)"
        );
    }

    #[test]
    fn whatever_does_not_add_up_is_told() {
        let wrong = |metrics: &str, unique, lossless| check(metrics, unique, lossless).unwrap_err();
        assert!(wrong(METRICS, 8, true).starts_with("events were lost"));
        assert!(wrong(METRICS, 7, false).starts_with("not as many events came"));
        let other = METRICS.replace("buffered{app=\"bench\"} 0", "buffered{app=\"bench\"} 1");
        assert!(wrong(&other, 8, false).starts_with("the counters"));
        let other = METRICS.replace("reason=\"decided\"} 9", "reason=\"decided\"} 10");
        assert!(wrong(&other, 8, false).starts_with("not as many decisions"));
        let other = METRICS.replace("plugin_status_gauge", "other");
        assert!(wrong(&other, 8, false).contains("left out"));
    }
}
