//! A disk that is full or read-only.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use opa_plugins::decision_logs::spool::{AppendError, RecordId, Spool, SpoolConfig};

use super::{LONG, read, record, stream};

/// A file system of its own, until it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, said loudly, where the test may not mount.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(self.0.path());
        assert!(command.status().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn open(path: &Path) -> Spool {
    let mut config = SpoolConfig::new(path);
    config.max_bytes = 4 << 20;
    Spool::open(config).unwrap()
}

async fn append(spool: &Spool, number: u64) -> Result<RecordId, AppendError> {
    spool.append(record("shop", number))?.await
}

/// Appends until the disk refuses.
async fn fill(spool: &Spool, number: &mut u64, ids: &mut Vec<RecordId>) {
    loop {
        match append(spool, *number).await {
            Ok(id) => ids.push(id),
            Err(AppendError::Disk(error)) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                return;
            }
            Err(error) => panic!("{error}"),
        }
        *number += 1;
    }
}

async fn until_it_takes_more(spool: &Spool, number: u64) -> RecordId {
    let wait = async {
        loop {
            match append(spool, number).await {
                Ok(id) => return id,
                Err(AppendError::Disk(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("never")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_takes_more_when_there_is_room() {
    let Some(mount) = Mount::new("size=1m,mode=700") else {
        return;
    };
    let spool = open(mount.path());
    let (mut number, mut ids) = (0, Vec::new());
    fill(&spool, &mut number, &mut ids).await;
    assert!(ids.len() > 200, "{}", ids.len());
    let at_once = spool.append(record("shop", number));
    assert!(matches!(at_once, Err(AppendError::Disk(_))), "{at_once:?}");
    let records = read(&spool, &ids).await;
    assert!((0..number).map(|number| record("shop", number)).eq(records));

    // What is delivered makes room, although nothing can be written.
    let delivered: Vec<_> = ids.drain(..ids.len() / 2).collect();
    assert_eq!(spool.remove(&delivered), delivered.len());
    ids.push(until_it_takes_more(&spool, number).await);
    number += 1;
    fill(&spool, &mut number, &mut ids).await;

    mount.remount("remount,size=2m");
    ids.push(until_it_takes_more(&spool, number).await);
    spool.close().await;

    let spool = open(mount.path());
    let stats = spool.stats();
    assert_eq!((stats.damaged, stats.torn_bytes), (0, 0));
    let (name, found) = spool.recovered().remove(0);
    assert_eq!(name, stream("shop"));
    assert_eq!(found, ids);
    let last = read(&spool, &ids[ids.len() - 1..]).await;
    assert_eq!(last, [record("shop", number)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_start_can_be_drained() {
    let Some(mount) = Mount::new("size=1m,mode=700") else {
        return;
    };
    let spool = open(mount.path());
    let (mut number, mut ids) = (0, Vec::new());
    fill(&spool, &mut number, &mut ids).await;
    spool.close().await;
    // Not even an empty file has room.
    let filler = std::fs::File::create(mount.path().join("filler")).unwrap();
    let mut filler = &filler;
    while std::io::Write::write(&mut filler, &[1; 4096]).is_ok() {}

    let spool = open(mount.path());
    assert_eq!(spool.recovered(), [(stream("shop"), ids.clone())]);
    assert!(matches!(
        append(&spool, number).await,
        Err(AppendError::Disk(_))
    ));
    assert_eq!(read(&spool, &ids).await.len(), ids.len());
    spool.remove(&ids);
    let id = until_it_takes_more(&spool, number).await;
    spool.close().await;
    assert_eq!(open(mount.path()).recovered(), [(stream("shop"), vec![id])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_can_be_read_and_is_used_when_it_is_writable_again() {
    let Some(mount) = Mount::new("size=1m,mode=700") else {
        return;
    };
    let spool = open(mount.path());
    let first = append(&spool, 0).await.unwrap();
    spool.close().await;
    mount.remount("remount,ro");

    let spool = open(mount.path());
    assert_eq!(read(&spool, &[first]).await, [record("shop", 0)]);
    let Err(AppendError::Disk(error)) = append(&spool, 1).await else {
        panic!("it was taken");
    };
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(spool.remove(&[first]), 1);
    mount.remount("remount,rw");
    let second = until_it_takes_more(&spool, 2).await;
    spool.close().await;
    assert_eq!(
        open(mount.path()).recovered(),
        [(stream("shop"), vec![second])]
    );
}
