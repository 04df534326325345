//! The product's own `serve` example as a process: the black box of the comparisons.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs, io};

use serde_json::Value;

use crate::http_client;
use crate::peers::{Events, Process, StartError};

/// A running `serve`, ended when dropped.
#[derive(Debug)]
pub struct Serve {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    events: Events,
}

impl Serve {
    /// Starts it on free ports of loopback, with an OPA configuration and further arguments; it
    /// listens then, its bundles needn't be active.
    ///
    /// # Panics
    ///
    /// When it isn't built, is older than its sources, or doesn't start.
    pub async fn start(configuration: &str, arguments: &[&str]) -> Serve {
        Self::start_in(&[], configuration, arguments).await
    }

    /// As [`start`](Serve::start), with further environment variables.
    ///
    /// # Panics
    ///
    /// As [`start`](Serve::start).
    pub async fn start_in(
        environment: &[(&str, &str)],
        configuration: &str,
        arguments: &[&str],
    ) -> Serve {
        Self::attempt(environment, configuration, arguments)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Serve::start), for a configuration that may be refused.
    ///
    /// # Errors
    ///
    /// When it ends before it listens; the error shows what it wrote.
    ///
    /// # Panics
    ///
    /// When it isn't built, or is older than its sources.
    pub async fn try_start(configuration: &str, arguments: &[&str]) -> Result<Serve, StartError> {
        Self::attempt(&[], configuration, arguments).await
    }

    /// As [`start_in`](Serve::start_in), for an environment that may be refused.
    ///
    /// # Errors
    ///
    /// As [`try_start`](Serve::try_start).
    ///
    /// # Panics
    ///
    /// As [`try_start`](Serve::try_start).
    pub async fn try_start_in(
        environment: &[(&str, &str)],
        configuration: &str,
    ) -> Result<Serve, StartError> {
        Self::attempt(environment, configuration, &[]).await
    }

    async fn attempt(
        environment: &[(&str, &str)],
        configuration: &str,
        arguments: &[&str],
    ) -> Result<Serve, StartError> {
        let program = program().unwrap_or_else(|error| panic!("{error}"));
        let mut process = Process::spawn("serve", |folder| {
            let file = folder.join("opa.yaml");
            fs::write(&file, configuration)?;
            let mut command = Command::new(program);
            command.current_dir(folder).arg("--config-file").arg(file);
            command
                .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
                .args(arguments)
                .envs(environment.iter().copied());
            Ok(command)
        })?;
        let stdout = process.stdout_file();
        let probe = async || addresses(&fs::read_to_string(&stdout).ok()?);
        let (address, admin) = process.until("listening", probe).await?;
        let events = Events::of(process.stderr_file());
        Ok(Serve {
            process,
            address,
            admin,
            events,
        })
    }

    /// What it prints about its options.
    ///
    /// # Panics
    ///
    /// When it isn't built, or is older than its sources.
    pub fn help() -> String {
        let program = program().unwrap_or_else(|error| panic!("{error}"));
        let output = Command::new(program).arg("--help").output();
        let output = output.unwrap_or_else(|error| panic!("{error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where the protected service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `GET /-/apps` is answered.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until all apps that it was asked for are ready.
    ///
    /// # Panics
    ///
    /// When one isn't within a minute; with all that it wrote.
    pub async fn ready(&mut self) {
        let admin = self.admin;
        let probe = async || {
            let response = http_client::get(admin, "/-/apps").await.ok()?;
            let apps: Value = serde_json::from_slice(response.body()).ok()?;
            let apps = apps.as_array()?;
            let ready = |app: &Value| app.get("state").and_then(Value::as_str) == Some("ready");
            (!apps.is_empty() && apps.iter().all(ready)).then_some(())
        };
        self.process
            .until("ready", probe)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits for events of its decision log beyond those already taken.
    ///
    /// # Errors
    ///
    /// When it ends before, or logs none for a minute.
    pub async fn next_events(&mut self) -> Result<Vec<Value>, StartError> {
        self.events.next(&mut self.process).await
    }

    /// The process, for its output and end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The two addresses, once both lines are whole.
fn addresses(stdout: &str) -> Option<(SocketAddr, SocketAddr)> {
    let after = |prefix: &str| {
        let line = stdout
            .split_inclusive('\n')
            .find(|line| line.starts_with(prefix))?;
        line.strip_prefix(prefix)?
            .strip_suffix('\n')?
            .trim_end()
            .parse()
            .ok()
    };
    Some((after("listening on http://")?, after("admin on http://")?))
}

/// The binary that Cargo built beside this test: `target/<profile>/serve`.
fn program() -> Result<PathBuf, String> {
    let test = env::current_exe().map_err(|error| error.to_string())?;
    let folder = test.parent().ok_or("a program lies in a folder")?;
    // A test lies in `deps`, a program beside that.
    let profile = match folder.ends_with("deps") {
        true => folder.parent().ok_or("`deps` lies in a folder")?,
        false => folder,
    };
    let program = profile.join(format!("serve{}", env::consts::EXE_SUFFIX));
    let hint = "`cargo test --workspace` builds it, as does `cargo build --bin serve`";
    if !program.is_file() {
        return Err(format!("{} isn't there: {hint}", program.display()));
    }
    // Testing only this crate doesn't build it again: an old one would be tested unnoticed.
    match newer_source(&program, &profile.join("serve.d")) {
        Ok(None) => Ok(program),
        Ok(Some(source)) => Err(format!(
            "{} is newer than `serve`: {hint}",
            source.display()
        )),
        Err(error) => Err(format!("can't tell whether `serve` is up to date: {error}")),
    }
}

/// A source that changed after the program was built, by the list that Cargo keeps. Only
/// `cargo build` writes one: without it `cargo test --workspace` has built the program, just now.
fn newer_source(program: &Path, list: &Path) -> io::Result<Option<PathBuf>> {
    if !list.exists() {
        return Ok(None);
    }
    let built = fs::metadata(program)?.modified()?;
    // `cargo test` has built it since: what is gone by now was gone then.
    let is_older = fs::metadata(list)?.modified()? < built;
    let changed = |source: &PathBuf| modified(source).map_or(!is_older, |time| time > built);
    Ok(sources(&fs::read_to_string(list)?)
        .into_iter()
        .find(changed))
}

fn modified(source: &Path) -> Option<SystemTime> {
    fs::metadata(source)
        .and_then(|metadata| metadata.modified())
        .ok()
}

/// The prerequisites of the one rule `program: source source…`; `\ ` is a space within a name.
fn sources(list: &str) -> Vec<PathBuf> {
    let (_, names) = list.split_once(": ").unwrap_or_default();
    let names = names.trim_end().replace("\\ ", "\0");
    names
        .split(' ')
        .map(|name| PathBuf::from(name.replace('\0', " ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_read_from_whole_lines() {
        let text = "x\nlistening on http://127.0.0.1:81\nadmin on http://127.0.0.1:82\n";
        let expected = (
            "127.0.0.1:81".parse().unwrap(),
            "127.0.0.1:82".parse().unwrap(),
        );
        assert_eq!(addresses(text), Some(expected));
        assert_eq!(addresses(&text[..text.len() - 1]), None);
    }

    #[test]
    fn a_source_that_is_newer_or_gone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let list = path("serve.d");
        assert_eq!(newer_source(&path("serve"), &list).unwrap(), None);
        let source = path("a b.rs");
        let escaped = source.display().to_string().replace(' ', "\\ ");
        fs::write(&list, format!("{}: {escaped}\n", path("serve").display())).unwrap();
        fs::write(&source, "").unwrap();
        fs::write(path("serve"), "").unwrap();
        assert_eq!(newer_source(&path("serve"), &list).unwrap(), None);

        let set_modified = |path: &Path, seconds| {
            let time = SystemTime::now() + std::time::Duration::from_secs(seconds);
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(time).unwrap();
        };
        set_modified(&source, 10);
        assert_eq!(
            newer_source(&path("serve"), &list).unwrap(),
            Some(source.clone())
        );
        fs::remove_file(&source).unwrap();
        set_modified(&path("serve"), 20);
        assert_eq!(newer_source(&path("serve"), &list).unwrap(), None);
        set_modified(&list, 30);
        assert_eq!(newer_source(&path("serve"), &list).unwrap(), Some(source));
    }
}
