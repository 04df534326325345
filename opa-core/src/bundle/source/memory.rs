use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Fetch, Source, SourceAnswer, SourceError, SourceFuture};

/// A bundle in memory, for tests and small services. A replaced bundle reaches the apps at once.
///
/// Clones are the same source.
#[derive(Clone, Debug)]
pub struct Memory(Arc<watch::Sender<(Bytes, Arc<str>)>>);

impl Memory {
    /// A source of the archive `bytes`, as
    /// [`BundleWriter`](crate::bundle::BundleWriter) writes it.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Arc::new(watch::Sender::new(with_etag(bytes.into()))))
    }

    /// Puts another archive in the place of the current one.
    pub fn replace(&self, bytes: impl Into<Bytes>) {
        self.0.send_replace(with_etag(bytes.into()));
    }
}

fn with_etag(bytes: Bytes) -> (Bytes, Arc<str>) {
    let digest = Sha256::digest(&bytes);
    let etag: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes, etag.into())
}

impl Source for Memory {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        let mut current = self.0.subscribe();
        Box::pin(async move {
            let news = current.wait_for(|(_, etag)| request.etag.as_ref() != Some(etag));
            let news = match request.wait {
                Some(wait) => tokio::time::timeout(wait, news).await.ok(),
                None => futures_util::FutureExt::now_or_never(news),
            };
            let answer = match news {
                None => SourceAnswer::not_modified(),
                Some(Ok(news)) => {
                    let (bytes, etag) = (news.0.clone(), Arc::clone(&news.1));
                    SourceAnswer::snapshot(bytes.into(), Some(etag))
                }
                Some(Err(_)) => return Err(SourceError::new("the source is gone")),
            };
            Ok(answer.long_polling(true))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;
    use std::time::Duration;

    async fn ask(source: &Memory, etag: Option<&Arc<str>>, wait: u64) -> SourceAnswer {
        let wait = Some(Duration::from_secs(wait));
        source
            .fetch(Fetch {
                etag: etag.cloned(),
                wait,
                deltas: false,
            })
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_at_once_waits_for_news_and_gives_up_waiting() {
        let source = Memory::new("one");
        let first = ask(&source, None, 10).await;
        let etag = first.etag.unwrap();
        let old = ask(&source, Some(&etag), 10).await;
        assert!(matches!(old.content, Content::NotModified));

        let waiting = source.clone();
        let known = Arc::clone(&etag);
        let waiting = tokio::spawn(async move { ask(&waiting, Some(&known), 1000).await });
        tokio::task::yield_now().await;
        source.replace("two");
        let news = waiting.await.unwrap();
        assert_ne!(news.etag, Some(etag));
        let Content::Snapshot(body) = news.content else {
            panic!("{:?}", news.content)
        };
        let read = body.read(100).await.unwrap();
        assert_eq!(read.pieces().collect::<Vec<_>>(), [b"two"]);
    }
}
