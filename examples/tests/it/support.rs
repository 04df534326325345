//! Runs the binaries of this package and speaks HTTP/1.1 with them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running program, killed when dropped.
pub(crate) struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Program {
    pub(crate) fn start<I>(path: &str, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Self::spawn(Command::new(path).args(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The next line of standard output.
    pub(crate) fn stdout(&self) -> String {
        next(&self.stdout).unwrap_or_else(|| panic!("standard output ended: {:?}", self.errors()))
    }

    /// The lines of standard output to its end.
    pub(crate) fn rest_of_stdout(&self) -> Vec<String> {
        std::iter::from_fn(|| next(&self.stdout)).collect()
    }

    /// The next line of standard error that `wanted` accepts.
    pub(crate) fn stderr(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut lines = std::iter::from_fn(|| next(&self.stderr));
        lines
            .find(|line| wanted(line))
            .expect("standard error ended")
    }

    /// The lines of standard error to its end.
    pub(crate) fn errors(&self) -> Vec<String> {
        std::iter::from_fn(|| next(&self.stderr)).collect()
    }

    /// The address in the next line of standard output, `<before>http://<address>`.
    pub(crate) fn address(&self, before: &str) -> SocketAddr {
        let line = self.stdout();
        let address = line
            .strip_prefix(before)
            .and_then(|url| url.strip_prefix("http://"));
        address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    /// Sends a signal, `INT` or `TERM`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Whether it hasn't ended yet.
    #[cfg(unix)]
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < give_up, "the program doesn't end"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, read as they come so that the program never waits for its reader.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).all(|sent| sent.is_ok())
    });
    receiver
}

fn next(lines: &Receiver<String>) -> Option<String> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("no line within {PATIENCE:?}"),
    }
}

/// A folder of its own for each test, gone with it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            folder.write(name, content);
        }
        folder
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends one request on a connection of its own.
pub(crate) fn send(address: SocketAddr, request: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for header in headers {
        head += &format!("{header}\r\n");
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(&[head.as_bytes(), b"\r\n", body].concat())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    read(&answer)
}

pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, &format!("GET {target}"), &[], &[])
}

/// Answers of our servers tell their length, and end with the connection.
fn read(answer: &[u8]) -> Answer {
    let end = answer
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: answer[end + 4..].to_vec(),
    }
}

/// Asks until the answer is `wanted`: for what takes effect in the background.
pub(crate) fn eventually(ask: impl Fn() -> Answer, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        let Answer { head, .. } = &answer;
        assert!(
            Instant::now() < give_up,
            "{head}\n{}",
            String::from_utf8_lossy(&answer.body)
        );
        thread::sleep(Duration::from_millis(10));
    }
}
