//! A process that is killed while it writes: whatever is on disk then is a bundle.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use opa_core::bundle::{self, BundleWriter};
use opa_core::{Manager, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;

use super::{LONG, archive_of, until, version};

const APPS: usize = 12;

/// The longest time that a process may write before it is killed.
const MAX_LIFE: Duration = Duration::from_millis(250);

fn bundle(revision: u64) -> Vec<u8> {
    let data = Value::object([
        ("version".into(), revision.to_string().into()),
        // So that an archive is more than one write.
        ("padding".into(), padding(revision).into()),
    ]);
    let writer = BundleWriter::new().revision(revision.to_string());
    writer.data("", &data).unwrap().to_vec().unwrap()
}

fn padding(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    (0..20_000)
        .map(|_| char::from(random.random_range(b'!'..=b'Z')))
        .collect()
}

fn name(app: usize) -> String {
    format!("app-{app}")
}

struct Persisting(Child);

impl Persisting {
    fn start(url: &str, directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_persisting"));
        command.arg(url).arg(directory).arg(APPS.to_string());
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Persisting {
    /// SIGKILL: nothing of the process runs any more.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_a_bundle_that_loads() {
    let kills = if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        200
    } else {
        20
    };
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let server = BundleServer::start().await;
    let mut revision = 0;
    let mut last = [0; APPS];
    let mut in_the_middle = 0;
    for _ in 0..kills {
        let before = server.request_count();
        let known: Vec<_> = (0..APPS)
            .map(|app| etag_for(directory.path(), app))
            .collect();
        publish(&server, &mut revision);
        let started = std::time::Instant::now();
        let child = Persisting::start(&server.url(), directory.path());
        // Those that long poll may have asked several times before the last one asks at all.
        let asked = |app| {
            let last = server.last_request_for(&format!("/{}", name(app)));
            last.is_some_and(|last| last.at >= started)
        };
        until("all are asked for", || (0..APPS).all(asked)).await;
        until("all are kept", || {
            (0..APPS).all(|app| archive_of(directory.path(), &name(app)).exists())
        })
        .await;
        let end = tokio::time::Instant::now() + MAX_LIFE.mul_f64(random.random());
        while tokio::time::Instant::now() < end {
            publish(&server, &mut revision);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(child);
        first_questions_fit(&server, before, &known);
        for (app, last) in last.iter_mut().enumerate() {
            let file = archive_of(directory.path(), &name(app));
            let found = bundle::read(&*fs::read(&file).unwrap(), &bundle::Limits::default());
            let found = found.expect("a whole archive");
            let found: u64 = found.manifest().revision().parse().unwrap();
            assert_eq!(fs::read(&file).unwrap(), bundle(found));
            assert!(
                *last <= found && found <= revision,
                "{last} {found} {revision}"
            );
            *last = found;
            in_the_middle += usize::from(leftovers(file.parent().unwrap()));
        }
        is_served(directory.path(), &last).await;
    }
    println!("{in_the_middle} writers were killed in the middle");
}

fn publish(server: &BundleServer, revision: &mut u64) {
    *revision += 1;
    let archive = bundle(*revision);
    for app in 0..APPS {
        server.answer(
            &format!("/{}", name(app)),
            Answer::LongPoll(archive.clone()),
        );
    }
}

fn leftovers(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).unwrap();
    entries.any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".tmp")
    })
}

/// The etag of what is on disk.
fn etag_for(directory: &Path, app: usize) -> Option<String> {
    let archive = fs::read(archive_of(directory, &name(app))).ok()?;
    Some(bundle::etag(&archive))
}

/// An app asks first with the etag of the bytes on disk, or with none.
fn first_questions_fit(server: &BundleServer, before: usize, known: &[Option<String>]) {
    let requests = server.requests().split_off(before);
    for (app, known) in known.iter().enumerate() {
        let path = format!("/{}", name(app));
        let first = requests
            .iter()
            .find(|request| request.path == path)
            .unwrap();
        let sent = first.header("if-none-match");
        assert!(
            sent.is_none() || sent == known.as_deref(),
            "{sent:?} for {known:?}"
        );
    }
}

/// Another process would serve it without a control plane.
async fn is_served(directory: &Path, revisions: &[u64]) {
    let config = format!(
        "services: {{control: {{url: 'http://127.0.0.1:1'}}}}\n\
         persistence_directory: '{}'\nbundles: {{b: {{persist: true}}}}",
        directory.display(),
    );
    let manager = Manager::builder().config_yaml(&config);
    let manager = manager.engine(Scripted::data()).build().unwrap();
    for (app, revision) in revisions.iter().enumerate() {
        let app = manager.app(name(app)).unwrap();
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await, Some(revision.to_string()));
    }
    manager.shutdown(LONG).await;
}
