use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use opa_core::AppId;

use super::super::super::output::LoggedEvent;
use super::super::options::testing::open;
use super::*;

fn event(text: &str) -> LoggedEvent {
    let json = format!("{{\"decision_id\":\"{text}\"}}").into();
    LoggedEvent::new(text.into(), SystemTime::UNIX_EPOCH, json)
}

fn batch(app: &str, ids: &[&str]) -> Batch {
    let events = ids.iter().map(|id| event(id)).collect();
    Batch::new(AppId::new(app).unwrap(), None, events)
}

fn at(output_type: File, path: &Path, more: &str) -> Result<Arc<dyn Output>, ConfigError> {
    open(output_type, &format!("{{\"path\": {path:?}{more}}}"))
}

/// The decisions in a file, in their order; each line is a whole one.
fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let id = |line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["decision_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

#[tokio::test]
async fn the_file_and_its_folders_are_made_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/log");
    let output = at(File::default(), &path, ", \"sync\": true").unwrap();
    output.deliver(&batch("shop", &["1", "2"])).await.unwrap();
    assert_eq!(ids(&path), ["1", "2"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_share_a_file_and_each_line_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = File::default().log(path.clone(), Settings::default());
    let mut tasks = tokio::task::JoinSet::new();
    for app in 0..8 {
        let output = Appender(Arc::clone(&log));
        tasks.spawn(async move {
            for number in 0..50 {
                let id = format!("{app}-{number}-{}", "x".repeat(3_000));
                output.deliver(&batch("shop", &[&id, "y"])).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let all = ids(&path);
    assert_eq!(all.len(), 800);
    for app in 0..8 {
        let start = format!("{app}-");
        let own = all.iter().filter(|id| id.starts_with(&start));
        let numbers = own.map(|id| id.split('-').nth(1).unwrap().parse().unwrap());
        assert_eq!(numbers.collect::<Vec<u32>>(), (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn apps_with_the_same_path_share_a_log_and_the_last_settings_count() {
    let files = File::default();
    let settings = Settings {
        sync: true,
        rotation: None,
    };
    let first = files.log("/a/log".into(), Settings::default());
    let second = files.log("/a/log".into(), settings);
    assert!(Arc::ptr_eq(&first, &second));
    assert!(format!("{first:?}").contains("sync: true"));
    let other = files.log("/b/log".into(), Settings::default());
    assert!(!Arc::ptr_eq(&first, &other));
}

#[tokio::test]
async fn a_file_that_is_renamed_removed_or_truncated_goes_on_at_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let output = at(File::default(), &path, "").unwrap();
    output.deliver(&batch("shop", &["1"])).await.unwrap();
    let moved = folder.path().join("log.old");
    fs::rename(&path, &moved).unwrap();
    output.deliver(&batch("shop", &["2"])).await.unwrap();
    assert_eq!(
        (ids(&moved), ids(&path)),
        (vec!["1".into()], vec!["2".into()])
    );
    fs::remove_file(&path).unwrap();
    output.deliver(&batch("shop", &["3"])).await.unwrap();
    assert_eq!(ids(&path), ["3"]);
    fs::File::options()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    output.deliver(&batch("shop", &["4"])).await.unwrap();
    assert_eq!(ids(&path), ["4"]);
}

#[tokio::test]
async fn the_part_of_a_line_that_a_crash_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "{\"decision_id\":\"1\"}\n{\"decision_id\":").unwrap();
    let output = at(File::default(), &path, "").unwrap();
    output.deliver(&batch("shop", &["2"])).await.unwrap();
    assert_eq!(ids(&path), ["1", "2"]);
}

#[cfg(unix)]
#[tokio::test]
async fn links_pipes_and_files_of_others_are_errors_that_may_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("log"), folder.path().join("target"));
    fs::write(&target, "root:x:0").unwrap();
    let output = at(File::default(), &path, "").unwrap();
    let one = batch("shop", &["1"]);

    std::os::unix::fs::symlink(&target, &path).unwrap();
    let error = output.deliver(&one).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with(&format!("`{}`: ", path.display()))
    );
    assert!(!error.is_permanent);
    fs::remove_file(&path).unwrap();

    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    output.deliver(&one).await.unwrap_err();
    fs::remove_file(&path).unwrap();

    fs::rename(&target, &path).unwrap();
    output.deliver(&one).await.unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "root:x:0");
    fs::remove_file(&path).unwrap();

    output.deliver(&one).await.unwrap();
    assert_eq!(ids(&path), ["1"]);
}

#[tokio::test]
async fn nobody_else_writes_the_file_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let first = at(File::default(), &path, "").unwrap();
    let second = at(File::default(), &path, "").unwrap();
    first.deliver(&batch("shop", &["1"])).await.unwrap();
    let error = second.deliver(&batch("shop", &["2"])).await.unwrap_err();
    assert!(error.message.contains("somebody else writes it"), "{error}");
    drop(first);
    second.deliver(&batch("shop", &["2"])).await.unwrap();
    assert_eq!(ids(&path), ["1", "2"]);
}

/// The rotated files, oldest first, when no compressing is under way.
async fn rotated(log: &Log, path: &Path) -> Vec<PathBuf> {
    let _turn = log.tidying().await;
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|one| one != path);
    found.sort();
    found
}

fn rotating(max_bytes: u64, max_age: Option<u64>, compress: bool) -> Settings {
    Settings {
        sync: false,
        rotation: Some(Rotation {
            max_bytes,
            max_age: max_age.map(Duration::from_secs),
            max_files: 2,
            compress,
        }),
    }
}

#[tokio::test]
async fn a_file_is_rotated_before_it_is_too_large_and_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    // A line has 20 bytes.
    let log = File::default().log(path.clone(), rotating(40, None, true));
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        let lines = lines(&batch("shop", &[id]));
        Log::append(&log, lines).await.unwrap();
    }
    assert_eq!(ids(&path), ["7"]);
    let kept = loop {
        let kept = rotated(&log, &path).await;
        if kept.len() == 2
            && kept
                .iter()
                .all(|file| file.extension() == Some("gz".as_ref()))
        {
            break kept;
        }
        tokio::task::yield_now().await;
    };
    let mut text = String::new();
    for file in kept {
        let mut gzip = flate2::read::GzDecoder::new(fs::File::open(file).unwrap());
        gzip.read_to_string(&mut text).unwrap();
    }
    fs::write(&path, text).unwrap();
    assert_eq!(ids(&path), ["3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_file_is_rotated_when_it_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = File::default().log(path.clone(), rotating(1_000, Some(60), false));
    let now = SystemTime::now();
    for (seconds, id) in [(0, "1"), (30, "2"), (90, "3")] {
        let lines = lines(&batch("shop", &[id]));
        let now = now + Duration::from_secs(seconds);
        Log::append_at(&log, lines, now).await.unwrap();
    }
    assert_eq!(ids(&path), ["3"]);
    let rotated = rotated(&log, &path).await;
    assert_eq!(ids(rotated.first().unwrap()), ["1", "2"]);
}

#[tokio::test]
async fn a_batch_that_is_larger_than_the_file_may_be_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = File::default().log(path.clone(), rotating(10, None, false));
    for id in ["1", "2"] {
        let lines = lines(&batch("shop", &[id, id]));
        Log::append(&log, lines).await.unwrap();
    }
    assert_eq!(ids(&path), ["2", "2"]);
}

#[tokio::test]
async fn wrong_options_are_errors_with_their_place() {
    for (config, wanted) in [
        ("{}", "output.path"),
        (
            r#"{"path": "/"}"#,
            "output.path: expected the path of a file, found `/`",
        ),
        (r#"{"path": "/a/"}"#, "output.path"),
        (r#"{"path": "/a", "sync": 1}"#, "output.sync"),
        (r#"{"path": "/a", "rotation": true}"#, "output.rotation"),
        (
            r#"{"path": "/a", "rotation": {"max_bytes": 0}}"#,
            "output.rotation.max_bytes: expected 1 or more, found `0`",
        ),
        (
            r#"{"path": "/a", "rotation": {"compress": "no"}}"#,
            "output.rotation.compress",
        ),
    ] {
        let error = open(File::default(), config).unwrap_err();
        assert!(error.to_string().contains(wanted), "{config}: {error}");
    }
}

#[tokio::test]
async fn a_path_elsewhere_than_below_the_folder_is_an_error() {
    for (path, is_taken) in [
        ("/var/log/opa/shop/log", true),
        ("/var/log/opa/log", true),
        ("/var/log/opa/../log", false),
        ("/var/log/opa/a/../../../log", false),
        ("/var/log/opa2/log", false),
        ("/etc/log", false),
        ("log", false),
    ] {
        let files = File::default().below("/var/log/opa");
        let opened = at(files, Path::new(path), "");
        let text = opened.map(drop).map_err(|error| error.to_string());
        match is_taken {
            true => text.unwrap(),
            false => {
                let wanted = "output.path: expected a path below `/var/log/opa`, found";
                assert!(text.unwrap_err().contains(wanted), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn unknown_options_are_no_errors() {
    let config = r#"{"path": "/a", "colour": 1, "rotation": {"colour": 2}}"#;
    open(File::default(), config).unwrap();
}
