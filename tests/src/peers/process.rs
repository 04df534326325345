//! A started program: its output, its end, and the retries when its port was taken.

use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{error, fmt, io};

use tempfile::TempDir;
use tokio::time::sleep;

use super::watchdog::{Watchdog, end};

/// Far more than a peer needs on a busy machine; a start that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// How often a start is tried again because somebody took its port.
const ATTEMPTS: usize = 5;

/// A running program in a directory of its own, ended when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    watchdog: Watchdog,
    folder: TempDir,
}

impl Process {
    /// Starts the program that `command` describes for the given empty directory.
    ///
    /// Its output goes to files there, so that it can never block on a full pipe.
    ///
    /// # Errors
    ///
    /// When the directory can't be made or the program can't be run.
    pub fn spawn(
        name: &str,
        command: impl FnOnce(&Path) -> io::Result<Command>,
    ) -> Result<Process, StartError> {
        let failed = |error: io::Error| StartError::new(name, format!("can't be run: {error}"));
        let folder = TempDir::with_prefix("peer-").map_err(failed)?;
        let stdout = File::create(folder.path().join(STDOUT)).map_err(failed)?;
        let stderr = File::create(folder.path().join(STDERR)).map_err(failed)?;
        let mut child = command(folder.path())
            .map_err(failed)?
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        let watchdog = Watchdog::over(&child)
            .inspect_err(|_| end(&mut child))
            .map_err(failed)?;
        Ok(Process {
            name: name.to_owned(),
            child,
            watchdog,
            folder,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The directory of this one process, removed with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the program wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.read(STDOUT)
    }

    /// What the program wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.read(STDERR)
    }

    /// Where standard output goes.
    pub fn stdout_file(&self) -> PathBuf {
        self.folder.path().join(STDOUT)
    }

    /// Where standard error goes.
    pub fn stderr_file(&self) -> PathBuf {
        self.folder.path().join(STDERR)
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.folder.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks `probe` again and again until it has an answer.
    ///
    /// # Errors
    ///
    /// When the program has ended, or after a minute; with all that it wrote.
    pub async fn until<T, P, F>(&mut self, what: &str, mut probe: P) -> Result<T, StartError>
    where
        P: FnMut() -> F,
        F: Future<Output = Option<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = probe().await;
            // Looked at after the probe: an answer from a stranger on the port of a program that
            // couldn't bind it doesn't count.
            if let Some(status) = self.ended() {
                return Err(self.failure(format!("ended with {status} before {what}")));
            }
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                return Err(self.failure(format!("isn't {what} after {PATIENCE:?}")));
            }
            sleep(POLL).await;
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the program to end.
    ///
    /// # Errors
    ///
    /// When it runs on for a minute.
    pub async fn interrupt(&mut self) -> Result<ExitStatus, StartError> {
        let sent = Command::new("kill")
            .args(["-s", "INT", &self.child.id().to_string()])
            .status();
        if !sent.is_ok_and(|status| status.success()) && self.ended().is_none() {
            return Err(self.failure("can't be interrupted".to_owned()));
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(POLL).await;
        }
        Err(self.failure(format!("runs on {PATIENCE:?} after an interrupt")))
    }

    /// An error that shows all that the program wrote.
    pub fn failure(&self, what: String) -> StartError {
        let output = format!("{}{}", self.stdout(), self.stderr());
        StartError {
            name: self.name.clone(),
            what,
            output,
        }
    }
}

const STDOUT: &str = "stdout.log";
const STDERR: &str = "stderr.log";

impl Drop for Process {
    fn drop(&mut self) {
        self.watchdog.dismiss();
        end(&mut self.child);
    }
}

/// Why a program didn't start.
#[derive(Debug)]
pub struct StartError {
    name: String,
    what: String,
    output: String,
}

impl StartError {
    fn new(name: &str, what: String) -> StartError {
        StartError {
            name: name.to_owned(),
            what,
            output: String::new(),
        }
    }

    /// All programs that we start use the system's own words.
    fn is_address_in_use(&self) -> bool {
        self.output
            .to_lowercase()
            .contains("address already in use")
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.what)?;
        if self.output.is_empty() {
            return Ok(());
        }
        write!(f, ", its output:\n{}", self.output)
    }
}

impl error::Error for StartError {}

/// Starts something until no port of it was taken by somebody else.
pub(super) async fn start<T, S, F>(mut attempt: S) -> Result<T, StartError>
where
    S: FnMut() -> F,
    F: Future<Output = Result<T, StartError>>,
{
    let mut left = ATTEMPTS;
    loop {
        match attempt().await {
            Err(error) if error.is_address_in_use() && left > 1 => left -= 1,
            outcome => return outcome,
        }
    }
}

/// Writes a configuration file for a process that is about to start.
pub(super) fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> io::Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::spawn("script", |_| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(command)
        })
        .unwrap()
    }

    fn runs(pid: &str) -> bool {
        // A zombie has ended too.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            !stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .starts_with(" Z")
        })
    }

    #[tokio::test]
    async fn an_early_end_is_an_error_with_all_output() {
        let mut process = shell("echo out; echo err >&2; exit 7");
        let error = process
            .until("ready", async || None::<()>)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`script` ended with exit status: 7 before ready"),
            "{error}"
        );
        assert!(
            error.contains("out\n") && error.contains("err\n"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_answer_on_the_port_of_an_ended_program_does_not_count() {
        let mut process = shell("exit 1");
        process.child.wait().unwrap();
        assert!(process.until("ready", async || Some(())).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_tried_again_and_other_failures_are_not() {
        for (says, expected) in [
            ("bind: Address already in use", ATTEMPTS),
            ("bad config", 1),
        ] {
            let mut tries = 0;
            let outcome = start(|| {
                tries += 1;
                async {
                    let mut process = shell(&format!("echo '{says}' >&2; exit 1"));
                    process.until("ready", async || None::<()>).await
                }
            })
            .await;
            assert!(outcome.is_err());
            assert_eq!(tries, expected, "{says}");
        }
    }

    #[test]
    fn a_dropped_guard_ends_its_program_and_watchdog() {
        let process = shell("exec sleep 600");
        let pids = [
            process.child.id().to_string(),
            process.watchdog.id().to_string(),
        ];
        assert!(pids.iter().all(|pid| runs(pid)));
        drop(process);
        assert!(!pids.iter().any(|pid| runs(pid)));
    }

    /// Not a test of its own: the process that the next test kills.
    #[test]
    #[ignore = "waits to be killed by `a_killed_test_process_takes_its_programs_along`"]
    fn waits_to_be_killed() {
        let Ok(file) = std::env::var("PEERS_TELL_PID") else {
            return;
        };
        let process = shell("exec sleep 600");
        let partial = format!("{file}.partial");
        fs::write(&partial, process.child.id().to_string()).unwrap();
        fs::rename(partial, file).unwrap();
        std::thread::sleep(PATIENCE);
    }

    #[tokio::test]
    async fn a_killed_test_process_takes_its_programs_along() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut test = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "peers::process::tests::waits_to_be_killed",
            ])
            .env("PEERS_TELL_PID", &file)
            // Nobody removes what a killed process leaves, but this.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = eventually(|| fs::read_to_string(&file).ok()).await;
        assert!(runs(&pid));
        end(&mut test);
        eventually(|| (!runs(&pid)).then_some(())).await;
    }

    async fn eventually<T>(probe: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = probe() {
                return answer;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
            sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn an_interrupt_lets_the_program_end_itself() {
        // A shell can't trap what is ignored at its start, as in the background of another shell.
        let script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done";
        let mut process = shell(&format!("exec env --default-signal=INT sh -c \"{script}\""));
        let stdout = process.folder().join(STDOUT);
        process
            .until("ready", async || {
                fs::read_to_string(&stdout)
                    .ok()?
                    .contains("ready")
                    .then_some(())
            })
            .await
            .unwrap();
        assert_eq!(process.interrupt().await.unwrap().code(), Some(5));
    }
}
