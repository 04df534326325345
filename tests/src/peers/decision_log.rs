//! Decision-log events read back from the console of a process.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::process::{Process, StartError};

/// The "Decision Log" lines of a log in OPA's JSON format. A line that isn't whole yet is none.
pub fn decision_logs(log: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| entry.get("msg").and_then(Value::as_str) == Some("Decision Log"))
        .collect()
}

/// Takes the events of a process one by one.
#[derive(Debug)]
pub struct Events {
    log: PathBuf,
    taken: usize,
}

impl Events {
    /// All events that stand in a log file of the process, from its start.
    pub(crate) fn of(log: PathBuf) -> Events {
        Events { log, taken: 0 }
    }

    /// Waits for events beyond those already taken; all that there are then.
    ///
    /// # Errors
    ///
    /// When the process ends before, or logs none for a minute.
    pub(crate) async fn next(&mut self, process: &mut Process) -> Result<Vec<Value>, StartError> {
        let (log, taken) = (&self.log, self.taken);
        let probe = async || {
            let events = decision_logs(&fs::read_to_string(log).ok()?);
            (events.len() > taken).then_some(events)
        };
        let mut events = process.until("logging a decision", probe).await?;
        self.taken = events.len();
        Ok(events.split_off(taken))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_the_whole_lines_with_that_message() {
        let log = concat!(
            "{\"msg\":\"Received request.\"}\n",
            "{\"msg\":\"Decision Log\",\"path\":\"a\"}\n",
            "text\n",
            "{\"msg\":\"Decision Log\",\"pa",
        );
        assert_eq!(
            decision_logs(log),
            [json!({"msg": "Decision Log", "path": "a"})]
        );
    }

    #[tokio::test]
    async fn events_are_taken_once() {
        let script = r#"for n in 1 2; do
            echo "{\"msg\":\"Decision Log\",\"n\":$n}" >&2
            while ! [ -e "go$n" ]; do sleep 0.01; done
        done"#;
        let mut process = Process::spawn("script", |folder| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(folder);
            Ok(command)
        })
        .unwrap();
        let mut events = Events::of(process.stderr_file());
        for n in 1..=2 {
            let taken = events.next(&mut process).await.unwrap();
            assert_eq!(taken, [json!({"msg": "Decision Log", "n": n})]);
            fs::write(process.folder().join(format!("go{n}")), "").unwrap();
        }
        let error = events.next(&mut process).await.unwrap_err().to_string();
        assert!(error.contains("ended"), "{error}");
    }
}
