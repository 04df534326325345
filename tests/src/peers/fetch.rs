//! Fetches peers into `target/peers`, once for all test processes.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, thread};

use super::watchdog::{Watchdog, end};

/// How a program gets into its own folder below `target/peers`.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Installs into the given empty folder and answers the path of the program.
    pub(super) install: fn(&Path) -> Result<PathBuf, String>,
}

/// The program's path, fetched first where it isn't there in the wanted version.
pub(super) fn fetch(recipe: &Recipe) -> Option<PathBuf> {
    report(recipe.name, installed(recipe, &folder(), say), in_ci(), say)
}

/// A program that only the system can provide, from `PATH` or one of the given places.
pub(super) fn find(name: &str, places: &[&str], hint: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .chain(places.iter().map(PathBuf::from))
        .find(|program| program.is_file());
    let found = found.ok_or_else(|| format!("`{name}` isn't installed: {hint}"));
    report(name, found, in_ci(), say)
}

/// `target/peers` of the workspace, wherever the test itself was built.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

fn in_ci() -> bool {
    env::var("CI").as_deref() == Ok("true")
}

/// A missing peer skips a test on a developer's machine, and must not go unnoticed in CI.
fn report(
    name: &str,
    outcome: Result<PathBuf, String>,
    in_ci: bool,
    say: fn(&str),
) -> Option<PathBuf> {
    outcome
        .inspect_err(|why| {
            assert!(!in_ci, "the peer `{name}` is missing: {why}");
            let test = thread::current().name().unwrap_or("a test").to_owned();
            say(&format!(
                "SKIPPED `{test}`: the peer `{name}` is missing: {why}"
            ));
        })
        .ok()
}

/// Writes past libtest's capture, which would hide the line of a passing test.
fn say(line: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn installed(recipe: &Recipe, peers: &Path, say: fn(&str)) -> Result<PathBuf, String> {
    let failed = |what: &str, error: io::Error| format!("{what} in {}: {error}", peers.display());
    fs::create_dir_all(peers).map_err(|error| failed("can't make the folder", error))?;
    let _lock = lock(recipe.name, peers).map_err(|error| failed("can't lock", error))?;

    let stamp = peers.join(recipe.name).join("installed");
    if let Some(program) = stamped(&stamp, recipe.version) {
        return Ok(program);
    }
    say(&format!(
        "fetching the peer `{}` {}, which may take minutes, this first time only",
        recipe.name, recipe.version
    ));
    let folder = peers.join(recipe.name);
    // What an interrupted or older installation left behind.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("can't clean", error));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(|error| failed("can't make the folder", error))?;
    let program = (recipe.install)(&folder)?;
    if !program.is_file() {
        return Err(format!(
            "the installation left no program at {}",
            program.display()
        ));
    }
    let text = format!("{}\n{}\n", recipe.version, program.display());
    fs::write(&stamp, text).map_err(|error| failed("can't write the stamp", error))?;
    Ok(program)
}

/// The program of a finished installation. The stamp is written last, so it stands for a whole one.
fn stamped(stamp: &Path, version: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(stamp).ok()?;
    let mut lines = text.lines();
    let same = lines.next()? == version;
    let program = PathBuf::from(lines.next()?);
    (same && program.is_file()).then_some(program)
}

/// Held until dropped, also against other processes.
fn lock(name: &str, peers: &Path) -> io::Result<File> {
    let file = File::create(peers.join(format!("{name}.lock")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => file.lock().map(|()| file),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// One step of an installation, at low priority.
pub(super) fn step(program: &str) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10", program]);
    command
}

/// Runs a step; all that it wrote is the error when it fails.
pub(super) fn run(step: &mut Command) -> Result<String, String> {
    let output = supervised(step).map_err(|error| format!("can't run {step:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = tail(&String::from_utf8_lossy(&said));
    Err(format!("{step:?} failed, {}:\n{said}", output.status))
}

/// The lock goes with this process, so a step must not write on after it.
fn supervised(step: &mut Command) -> io::Result<Output> {
    let mut child = step
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut watchdog = Watchdog::over(&child).inspect_err(|_| end(&mut child))?;
    let output = child.wait_with_output();
    watchdog.dismiss();
    output
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(20))
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Installs a Python package and what it needs into a folder; the Python installation is left alone.
pub(super) fn pip(folder: &Path, package: &str) -> Result<(), String> {
    require("python3", "--version")?;
    let mut pip = step("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--only-binary", ":all:", "--target"]).arg(folder);
    run(pip.arg(package)).map(drop)
}

/// Says clearly that a toolchain is missing, before a step fails with something less clear.
pub(super) fn require(program: &str, argument: &str) -> Result<(), String> {
    match Command::new(program).arg(argument).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`{program} {argument}` failed, {}", output.status)),
        Err(error) => Err(format!("the toolchain `{program}` isn't there: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static INSTALLED: AtomicUsize = AtomicUsize::new(0);
    static TURN: Mutex<()> = Mutex::new(());

    fn recipe(version: &'static str) -> Recipe {
        fn install(folder: &Path) -> Result<PathBuf, String> {
            INSTALLED.fetch_add(1, Ordering::SeqCst);
            let program = folder.join("program");
            fs::write(&program, "").map_err(|error| error.to_string())?;
            Ok(program)
        }
        Recipe {
            name: "thing",
            version,
            install,
        }
    }

    #[test]
    fn installs_once_for_many_threads_and_again_for_another_version() {
        let _turn = TURN.lock().unwrap();
        let peers = tempfile::tempdir().unwrap();
        INSTALLED.store(0, Ordering::SeqCst);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| installed(&recipe("1"), peers.path(), |_| ()).unwrap());
            }
        });
        assert_eq!(INSTALLED.load(Ordering::SeqCst), 1);
        installed(&recipe("2"), peers.path(), |_| ()).unwrap();
        assert_eq!(INSTALLED.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn installs_again_after_an_interrupted_installation() {
        let _turn = TURN.lock().unwrap();
        let peers = tempfile::tempdir().unwrap();
        INSTALLED.store(0, Ordering::SeqCst);
        fs::create_dir_all(peers.path().join("thing")).unwrap();
        fs::write(peers.path().join("thing/rubbish"), "").unwrap();
        installed(&recipe("1"), peers.path(), |_| ()).unwrap();
        assert_eq!(INSTALLED.load(Ordering::SeqCst), 1);
        assert!(!peers.path().join("thing/rubbish").exists());
        fs::remove_file(peers.path().join("thing/program")).unwrap();
        installed(&recipe("1"), peers.path(), |_| ()).unwrap();
        assert_eq!(INSTALLED.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_failing_installation_leaves_no_stamp_and_tells_why() {
        let peers = tempfile::tempdir().unwrap();
        let failing = Recipe {
            name: "broken",
            version: "1",
            install: |_| {
                run(step("sh").args(["-c", "echo no network >&2; exit 3"])).map(PathBuf::from)
            },
        };
        let error = installed(&failing, peers.path(), |_| ()).unwrap_err();
        assert!(
            error.contains("no network") && error.contains("exit status: 3"),
            "{error}"
        );
        assert!(!peers.path().join("broken/installed").exists());
    }

    #[test]
    fn a_missing_peer_is_none_on_a_developers_machine() {
        assert_eq!(
            report("thing", Err("no network".to_owned()), false, |_| ()),
            None
        );
        assert_eq!(
            report("thing", Ok(PathBuf::from("p")), true, |_| ()),
            Some(PathBuf::from("p"))
        );
    }

    #[test]
    #[should_panic = "the peer `thing` is missing: no network"]
    fn a_missing_peer_panics_in_ci() {
        report("thing", Err("no network".to_owned()), true, |_| ());
    }

    #[test]
    fn a_missing_toolchain_is_named() {
        let error = require("no-such-toolchain", "version").unwrap_err();
        assert!(error.contains("`no-such-toolchain`"), "{error}");
    }
}
