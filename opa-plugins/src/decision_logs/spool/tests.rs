use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use opa_core::AppId;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(60);

fn stream(app: &str) -> StreamName {
    StreamName::new(AppId::new(app).unwrap(), "default")
}

fn record(app: &str, number: usize, bytes: usize) -> Record {
    let json = format!(r#"{{"n": {number}, "x": "{}"}}"#, "x".repeat(bytes));
    let timestamp = SystemTime::UNIX_EPOCH + Duration::from_millis(number as u64);
    Record::new(
        stream(app),
        number.to_string().into(),
        timestamp,
        json.into(),
    )
}

fn open(path: &Path) -> Spool {
    Spool::open(SpoolConfig::new(path)).unwrap()
}

fn open_small(path: &Path) -> Spool {
    let mut config = SpoolConfig::new(path);
    config.max_bytes = 1 << 20;
    Spool::open(config).unwrap()
}

async fn append(spool: &Spool, record: Record) -> RecordId {
    spool.append(record).unwrap().await.unwrap()
}

/// A spool with `count` records, closed; where it is, and their ids.
async fn filled(count: usize) -> (tempfile::TempDir, Vec<RecordId>) {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(append(&spool, record("a", number, 100)).await);
    }
    spool.close().await;
    (directory, ids)
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, wait).await.is_ok(),
        "never: {what}"
    );
}

async fn numbers(spool: &Spool, ids: &[RecordId]) -> Vec<usize> {
    let read = spool.read(ids.to_vec(), usize::MAX).await.unwrap();
    assert_eq!(read.looked_at, ids.len());
    let numbers = read.records.iter().map(|(_, found)| {
        let number: usize = found.decision_id.parse().unwrap();
        let bytes = found.json.len() - record("a", number, 0).json.len();
        assert_eq!(*found, record(found.stream.app.as_str(), number, bytes));
        number
    });
    numbers.collect()
}

#[tokio::test]
async fn records_are_there_until_they_are_removed() {
    let (directory, ids) = filled(3).await;
    let spool = open(directory.path());
    assert_eq!(spool.recovered(), [(stream("a"), ids.clone())]);
    assert_eq!(numbers(&spool, &ids).await, [0, 1, 2]);
    assert_eq!(spool.remove(&[ids[1], ids[1]]), 1);
    assert_eq!(numbers(&spool, &ids).await, [0, 2]);
    let later = append(&spool, record("a", 3, 100)).await;
    assert!(later > ids[2]);
    assert_eq!(spool.recovered(), [(stream("a"), vec![ids[0], ids[2]])]);
    spool.close().await;
    assert_eq!(
        spool.append(record("a", 4, 0)).unwrap_err(),
        AppendError::Closed
    );

    let spool = open(directory.path());
    let left = vec![ids[0], ids[2], later];
    assert_eq!(numbers(&spool, &left).await, [0, 2, 3]);
    assert_eq!(spool.recovered(), [(stream("a"), left)]);
    assert_eq!(spool.stats().damaged + spool.stats().torn_bytes, 0);
}

#[tokio::test]
async fn a_read_has_bounded_bytes_and_at_least_one_record() {
    let (directory, ids) = filled(3).await;
    let spool = open(directory.path());
    let read = spool.read(ids.clone(), 1).await.unwrap();
    assert_eq!((read.records.len(), read.looked_at), (1, 1));
    let read = spool.read(ids.clone(), 400).await.unwrap();
    assert_eq!((read.records.len(), read.looked_at), (2, 2));
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_too() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    drop(spool.append(record("a", 0, 100)).unwrap());
    until("it is durable", async || spool.stats().pending_bytes == 0).await;
}

#[tokio::test]
async fn what_is_not_written_yet_can_be_read_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = SpoolConfig::new(directory.path());
    config.max_delay = HOUR;
    let spool = Spool::open(config).unwrap();
    let appending = [0, 1, 2].map(|n| spool.append(record("a", n, 100)).unwrap());
    let ids = appending.each_ref().map(Appending::id);
    assert_eq!(numbers(&spool, &ids).await, [0, 1, 2]);
    assert!(spool.stats().pending_bytes > 0);
    assert_eq!(spool.remove(&ids[..1]), 1);
    assert_eq!(numbers(&spool, &ids).await, [1, 2]);
    // Whoever waits has all written.
    for appending in appending {
        appending.await.unwrap();
    }
    assert_eq!(spool.stats().pending_bytes, 0);
    spool.append(record("a", 3, 100)).map(drop).unwrap();
    // The last handle has it written, too.
    drop(spool);
    let spool = loop {
        match Spool::open(SpoolConfig::new(directory.path())) {
            Ok(spool) => break spool,
            Err(SpoolError::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let (_, ids) = spool.recovered().remove(0);
    assert_eq!(numbers(&spool, &ids).await, [1, 2, 3]);
}

#[tokio::test]
async fn removals_reach_the_disk_without_a_record() {
    let (directory, ids) = filled(3).await;
    let spool = open(directory.path());
    assert_eq!(spool.remove(&ids[..2]), 2);
    let files = || segments(directory.path());
    until("the last is alone", async || {
        let copy = tempfile::tempdir().unwrap();
        for file in files() {
            fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        open(copy.path()).recovered() == [(stream("a"), vec![ids[2]])]
    })
    .await;
    spool.remove(&ids);
    until("the first file is gone", async || files().len() == 1).await;
}

#[tokio::test]
async fn it_is_bounded_and_the_caller_chooses() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_small(directory.path());
    let mut count = 0;
    let full = loop {
        let app = if count % 3 == 0 { "a" } else { "b" };
        match spool.append(record(app, count, 10_000)) {
            Ok(appending) => appending.await.unwrap(),
            Err(error) => break error,
        };
        count += 1;
    };
    assert_eq!(full, AppendError::Full);
    assert!(spool.stats().bytes <= 1 << 20 && count > 100, "{count}");
    let b = spool.drop_oldest(&stream("b")).unwrap();
    assert!(numbers(&spool, &[b]).await.is_empty());
    append(&spool, record("a", count, 10_000)).await;
    assert!(spool.drop_oldest(&stream("c")).is_none());
    let dropped = spool.make_room(50_000);
    assert_eq!(dropped.values().sum::<u64>(), 5);
    assert_eq!(dropped[&stream("a")], 2);
    let large = record("a", 0, 1 << 20);
    assert_eq!(spool.append(large).unwrap_err(), AppendError::TooLarge);
}

#[test]
fn what_waits_is_bounded() {
    let mut config = SpoolConfig::new("unused");
    config.max_pending_bytes = 1000;
    let mut state = State::default();
    state
        .append(record("a", 0, 2000), Keeping::No, &config)
        .unwrap();
    let refused = state
        .append(record("a", 0, 1), Keeping::No, &config)
        .unwrap_err();
    assert_eq!(refused, AppendError::Overloaded);
}

#[tokio::test]
async fn after_a_failed_sync_it_goes_on_in_another_file() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let first = append(&spool, record("a", 0, 100)).await;
    let failing_syncs = Arc::clone(&spool.0.shared.directory.failing_syncs);
    failing_syncs.store(1_000_000, Ordering::SeqCst);
    let failed = spool.append(record("a", 1, 100)).unwrap();
    let AppendError::Disk(error) = failed.await.unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(error.to_string(), "Input/output error (os error 5)");
    let at_once = spool.append(record("a", 2, 100)).unwrap_err();
    assert_eq!(at_once, AppendError::Disk(error.clone()));
    assert_eq!(spool.stats().disk, Some(error));
    assert_eq!(numbers(&spool, &[first]).await, [0]);
    until("it was tried again", async || {
        failing_syncs.load(Ordering::SeqCst) < 999_998
    })
    .await;
    assert!(segments(directory.path()).len() <= 2);
    failing_syncs.store(0, Ordering::SeqCst);
    until("it can be written to", async || {
        spool.stats().disk.is_none()
    })
    .await;
    let last = append(&spool, record("a", 3, 100)).await;
    spool.close().await;

    let spool = open(directory.path());
    assert_eq!(spool.recovered(), [(stream("a"), vec![first, last])]);
    assert_eq!(numbers(&spool, &[first, last]).await, [0, 3]);
    assert_eq!(spool.stats().damaged, 0);
}

#[tokio::test]
async fn files_stay_bounded_while_one_stream_is_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_small(directory.path());
    let mut stuck = Vec::new();
    let mut most = 0;
    for number in 0..1500 {
        if number % 100 == 0 {
            stuck.push(append(&spool, record("a", number, 1000)).await);
        }
        let id = append(&spool, record("b", number, 10_000)).await;
        assert_eq!(spool.remove(&[id]), 1);
        most = most.max(spool.stats().file_bytes);
    }
    let bound = 6 * (64 << 10) + 2 * 15_000;
    assert!(most <= bound, "{most} of 15 MB");
    let expected: Vec<usize> = (0..1500).step_by(100).collect();
    assert_eq!(numbers(&spool, &stuck).await, expected);
    spool.close().await;
    let on_disk = segments(directory.path()).into_iter();
    let on_disk: u64 = on_disk.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(on_disk, spool.stats().file_bytes);
    let spool = open_small(directory.path());
    assert_eq!(spool.recovered(), [(stream("a"), stuck.clone())]);
    assert_eq!(numbers(&spool, &stuck).await, expected);
}

#[tokio::test]
async fn many_short_processes_leave_few_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for number in 0..40 {
        let spool = open(directory.path());
        ids.push(append(&spool, record("a", number, 100)).await);
        spool.close().await;
    }
    let spool = open(directory.path());
    let files = async || segments(directory.path()).len() <= 17;
    until("there are few", files).await;
    assert_eq!(numbers(&spool, &ids).await, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_record_is_counted_and_never_delivered() {
    let (directory, ids) = filled(3).await;
    let spool = open(directory.path());
    let file = segments(directory.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let read = spool.read(ids.clone(), usize::MAX).await.unwrap();
    assert_eq!(read.damaged, [ids[1]]);
    assert_eq!(read.looked_at, 3);
    assert_eq!(numbers(&spool, &ids).await, [0, 2]);
    assert_eq!(spool.stats().damaged, 1);
    spool.close().await;
    let spool = open(directory.path());
    assert_eq!(spool.recovered(), [(stream("a"), vec![ids[0], ids[2]])]);
    assert_eq!(spool.stats().damaged, 1);
}

#[tokio::test]
async fn of_a_garbled_file_all_is_kept_that_is_whole() {
    const COUNT: usize = 200;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let mut below = |end: usize| rand::RngExt::random_range(&mut random, 0..end);
    let (directory, _) = filled(COUNT).await;
    let file = segments(directory.path()).remove(0);
    let good = fs::read(&file).unwrap();
    let frames = frames_of(&good);
    assert_eq!(frames.len(), COUNT);
    for round in 0..60 {
        let mut bytes = good.clone();
        if round % 3 == 0 {
            bytes.truncate(below(good.len()));
        } else {
            for _ in 0..=below(8) {
                let (at, len) = (below(good.len()), below(600));
                let end = bytes.len().min(at + len);
                bytes[at..end].fill_with(|| below(256) as u8);
            }
        }
        fs::write(&file, &bytes).unwrap();
        let spool = open(directory.path());
        let ids = spool.recovered().pop();
        let found = numbers(&spool, &ids.map_or_else(Vec::new, |(_, ids)| ids)).await;
        let is_whole =
            |frame: &&Range<usize>| bytes.get((*frame).clone()) == good.get((*frame).clone());
        let whole = frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| is_whole(frame));
        assert_eq!(found, whole.map(|(number, _)| number).collect::<Vec<_>>());
        let stats = spool.stats();
        let start = if bytes.get(..36) == good.get(..36) {
            36
        } else {
            0
        };
        let lost = bytes.len() - start - stats.bytes as usize;
        assert_eq!(stats.damaged_bytes + stats.torn_bytes, lost as u64);
        spool.close().await;
    }
}

/// Where the frames of a file are.
fn frames_of(file: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = frame::HEADER_BYTES;
    while at < file.len() {
        let (_, len) = frame::read(&file[at..]).unwrap();
        frames.push(at..at + len);
        at += len;
    }
    frames
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let (directory, _) = filled(1).await;
    let file = segments(directory.path()).remove(0);
    let header = frame::Header {
        version: 2,
        number: 1,
        next_id: 9,
    };
    fs::write(&file, header.to_bytes()).unwrap();
    let error = Spool::open(SpoolConfig::new(directory.path())).unwrap_err();
    let expected = format!(
        "`{}` has version 2 of the spool's format, which is newer than this program's",
        file.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(fs::read(&file).unwrap(), header.to_bytes());
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_is_refused() {
    let (directory, _) = filled(1).await;
    let file = segments(directory.path()).remove(0);
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::rename(&file, elsewhere.path()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &file).unwrap();
    let error = Spool::open(SpoolConfig::new(directory.path())).unwrap_err();
    assert!(error.to_string().ends_with("a symbolic link"), "{error}");
}

#[tokio::test]
async fn ids_are_never_used_again() {
    let (directory, ids) = filled(3).await;
    let spool = open(directory.path());
    spool.remove(&ids);
    spool.close().await;
    for _ in 0..2 {
        let spool = open(directory.path());
        assert!(spool.recovered().is_empty());
        spool.close().await;
    }
    let spool = open(directory.path());
    assert!(append(&spool, record("a", 0, 0)).await > ids[2]);
}

#[test]
fn what_was_decided_is_not_shown() {
    let record = record("a", 1, 20);
    let shown = format!("{record:?}");
    assert!(!shown.contains("xxx") && shown.contains("bytes"), "{shown}");
    let error = DiskError::from(&io::Error::from(io::ErrorKind::StorageFull));
    assert_eq!(
        AppendError::Disk(error).to_string(),
        "the spool's disk: no storage space"
    );
}

#[tokio::test]
async fn what_is_written_to_a_file_that_was_removed_is_not_durable() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("spool");
    let spool = open(&path);
    append(&spool, record("a", 0, 100)).await;
    fs::remove_file(&segments(&path)[0]).unwrap();
    // There is another file for it.
    let record_1 = spool.append(record("a", 1, 100)).unwrap();
    let answer = record_1.await;
    let id = append_until_durable(&spool).await;
    let files = segments(&path);
    assert!(!files.is_empty(), "{answer:?}");
    assert_eq!(
        spool.read(vec![id], 1 << 20).await.unwrap().records.len(),
        1
    );
    assert!(answer.is_err(), "nobody will find it");

    fs::remove_dir_all(&path).unwrap();
    for number in 3..6 {
        let appending = spool.append(record("a", number, 100));
        let is_durable = match appending {
            Ok(appending) => appending.await.is_ok(),
            Err(_) => false,
        };
        assert!(!is_durable, "{number}");
    }
    assert!(spool.stats().disk.is_some());
}

async fn append_until_durable(spool: &Spool) -> RecordId {
    let appending = async {
        loop {
            if let Ok(appending) = spool.append(record("a", 2, 100))
                && let Ok(id) = appending.await
            {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, appending).await.unwrap()
}
