use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::watched::{Look, Watched, Watches};
use super::{Fetch, Source, SourceAnswer, SourceError, SourceFuture};
use crate::bundle::Limits;

/// How long it must be quiet before a change is read.
const QUIET: Duration = Duration::from_millis(100);

/// A change is read after this time although it isn't quiet.
const LOUD: Duration = Duration::from_secs(2);

/// When what was changed a moment ago is looked at again: another change may have left no trace.
const UNSETTLED: Duration = Duration::from_secs(2);

/// How often it is looked at where the operating system doesn't tell of changes.
const UNWATCHED: Duration = Duration::from_secs(1);

/// A local directory or tarball, watched: a change reaches the apps within about a second.
///
/// It is read again when the operating system tells of a change, or its names, sizes and times show
/// one at the end of a wait; where the operating system tells nothing, they are looked at every
/// second. It counts as new when its content has changed. What changes while it is read is read
/// again, but nobody can tell a directory that is copied half from a whole one: to be sure, put
/// another directory or link in its place (`rename`).
///
/// Clones are the same source.
#[derive(Clone, Debug)]
pub struct File {
    watched: Arc<Watched>,
    limits: Limits,
}

impl File {
    /// A source of what is at `path`: a directory, or an archive.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::watched_by(&Watches::default(), &path.into(), Limits::default())
    }

    /// Sources of the same path share a watch. More than `limits` allow is not read.
    pub(crate) fn watched_by(watches: &Watches, path: &Path, limits: Limits) -> Self {
        Self {
            watched: watches.watched(path),
            limits,
        }
    }
}

impl Source for File {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        Box::pin(async move {
            let end = request.wait.map(|wait| Instant::now() + wait);
            let mut changes = self.watched.changes();
            loop {
                changes.borrow_and_update();
                let look = self.look(request.etag.clone()).await?;
                let recheck = match look {
                    Look::News(archive, etag) => {
                        let body = Bytes::from_owner(Shared(archive)).into();
                        return Ok(SourceAnswer::snapshot(body, Some(etag)).long_polling(true));
                    }
                    Look::Unsettled => Some(UNSETTLED),
                    Look::Same { is_watched: false } => Some(UNWATCHED),
                    Look::Same { is_watched: true } => None,
                };
                let none = || Ok(SourceAnswer::not_modified().long_polling(true));
                let Some(end) = end.filter(|end| Instant::now() < *end) else {
                    return none();
                };
                let until = recheck.map_or(end, |recheck| end.min(Instant::now() + recheck));
                if tokio::time::timeout_at(until, changes.changed())
                    .await
                    .is_ok()
                {
                    // Until it is quiet: whoever copies a directory writes many files.
                    let loud = Instant::now() + LOUD;
                    let mut quiet = async || tokio::time::timeout(QUIET, changes.changed()).await;
                    while Instant::now() < loud && quiet().await.is_ok() {}
                } else if until == end {
                    return none();
                }
            }
        })
    }
}

impl File {
    async fn look(&self, etag: Option<Arc<str>>) -> Result<Look, SourceError> {
        let (watched, limits) = (Arc::clone(&self.watched), self.limits);
        let look = move || watched.look(&limits, etag.as_deref());
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|error| SourceError::new(error.to_string()))?
    }
}

/// An archive that the apps of one path share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;
    use crate::bundle::{self, Limits};
    use std::fs;

    const LONG: Duration = Duration::from_secs(60);

    async fn ask(source: &File, etag: Option<&Arc<str>>, wait: Duration) -> SourceAnswer {
        let (etag, wait) = (etag.cloned(), Some(wait));
        source
            .fetch(Fetch {
                etag,
                wait,
                ..Fetch::default()
            })
            .await
            .unwrap()
    }

    /// The text of the one module, and the etag.
    async fn news(source: &File, etag: Option<&Arc<str>>) -> (String, Arc<str>) {
        let answer = tokio::time::timeout(LONG, ask(source, etag, LONG * 2))
            .await
            .unwrap();
        let Content::Snapshot(body) = answer.content else {
            panic!("{:?}", answer.content)
        };
        let bytes = body.read(u64::MAX).await.unwrap();
        let bundle = bundle::read(bytes.reader(), &Limits::default()).unwrap();
        let source = bundle.modules()[0].source().to_string();
        (source, answer.etag.unwrap())
    }

    fn write(folder: &Path, text: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("a.rego"), text).unwrap();
    }

    #[tokio::test]
    async fn a_change_of_a_directory_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle");
        write(&path, "package a");
        let source = File::new(&path);
        let (text, etag) = news(&source, None).await;
        assert_eq!(text, "package a");
        let same = ask(&source, Some(&etag), Duration::ZERO).await;
        assert!(matches!(same.content, Content::NotModified));
        // In place, in a new folder below, replaced by another directory, and gone for a while.
        let waiting = source.clone();
        let known = Arc::clone(&etag);
        let waiting = tokio::spawn(async move { news(&waiting, Some(&known)).await });
        write(&path, "package b");
        let (text, etag) = waiting.await.unwrap();
        assert_eq!(text, "package b");
        fs::remove_file(path.join("a.rego")).unwrap();
        write(&path.join("sub/sub"), "package c");
        let (text, etag) = news(&source, Some(&etag)).await;
        assert_eq!(text, "package c");
        let other = folder.path().join("other");
        write(&other, "package d");
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::rename(&other, &path).unwrap();
        let (text, etag) = news(&source, Some(&etag)).await;
        assert_eq!(text, "package d");
        fs::remove_dir_all(&path).unwrap();
        let request = Fetch {
            etag: Some(Arc::clone(&etag)),
            ..Fetch::default()
        };
        let error = source.fetch(request).await.unwrap_err();
        assert!(error.to_string().contains("bundle`: "), "{error}");
        write(&path, "package e");
        let (text, etag) = news(&source, Some(&etag)).await;
        assert_eq!(text, "package e");
        write(&path, "package f");
        assert_eq!(news(&source, Some(&etag)).await.0, "package f");
    }

    /// By the operating system alone: nothing is looked at here.
    #[tokio::test]
    async fn changes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle");
        write(&path, "package a");
        let source = File::new(&path);
        let look = || source.watched.look(&Limits::default(), None);
        let mut changes = source.watched.changes();
        for round in 0..3 {
            let Look::News(archive, etag) = look().unwrap() else {
                panic!("it is new to who has nothing")
            };
            drop(archive);
            // Reading is no change.
            let same = source
                .watched
                .look(&Limits::default(), Some(&etag))
                .unwrap();
            assert!(!matches!(same, Look::News(..)));
            assert!(!changes.has_changed().unwrap(), "round {round}");
            match round {
                0 => write(&path, "package b"),
                1 => write(&path.join("sub"), "package c"),
                _ => {
                    fs::remove_dir_all(&path).unwrap();
                    write(&path, "package d");
                }
            }
            tokio::time::timeout(LONG, changes.changed())
                .await
                .unwrap()
                .unwrap();
            // What is told late is told before the next round.
            while tokio::time::timeout(QUIET, changes.changed()).await.is_ok() {}
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_that_is_swapped_ends_the_wait() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("..1/bundle"), "package one");
        write(&at("..2/bundle"), "package two");
        symlink("..1", at("..data")).unwrap();
        symlink("..data/bundle", at("bundle")).unwrap();
        let source = File::new(at("bundle"));
        let (text, etag) = news(&source, None).await;
        assert_eq!(text, "package one");
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        let (text, etag) = news(&source, Some(&etag)).await;
        assert_eq!(text, "package two");
        write(&at("..2/bundle"), "package three");
        assert_eq!(news(&source, Some(&etag)).await.0, "package three");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_may_never_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(at, &pipe, kind, rustix::fs::Mode::RWXU, 0).unwrap();
        for path in [&*pipe, Path::new("/dev/zero")] {
            let asking = File::new(path);
            let asking = asking.fetch(Fetch::default());
            let asked = tokio::time::timeout(LONG, asking).await.unwrap();
            let error = asked.unwrap_err().to_string();
            assert!(
                error.ends_with("neither a directory nor a regular file"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn an_archive_that_is_replaced_ends_the_wait_and_a_huge_one_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let archive = |text: &str| {
            let bundle = crate::bundle::BundleWriter::new()
                .module("a.rego", text)
                .unwrap();
            bundle.to_vec().unwrap()
        };
        fs::write(at("b.tar.gz"), archive("package one")).unwrap();
        let watches = Watches::default();
        let limits = Limits::default().with_total_bytes(1 << 20);
        let source = File::watched_by(&watches, &at("b.tar.gz"), limits);
        let again = File::watched_by(&watches, &at("b.tar.gz"), limits);
        assert!(
            Arc::ptr_eq(&source.watched, &again.watched),
            "one watch for one path"
        );
        let (_, etag) = news(&source, None).await;
        fs::write(at("new"), archive("package two")).unwrap();
        fs::rename(at("new"), at("b.tar.gz")).unwrap();
        let (text, etag) = news(&source, Some(&etag)).await;
        assert_eq!(text, "package two");
        assert_eq!(news(&again, None).await.1, etag);
        // A sparse file of a terabyte.
        let file = fs::File::create(at("b.tar.gz")).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = source
            .fetch(Fetch {
                etag: Some(etag),
                ..Fetch::default()
            })
            .await
            .unwrap_err();
        assert!(
            error.to_string().ends_with("larger than 1048576 bytes"),
            "{error}"
        );
    }
}
