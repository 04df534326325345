//! What is known of a download, and who still wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Answer, Kept, Mark, Part, State};
use crate::bundle::source::Fetch;

impl State {
    /// The answer to `request`, as far as it is known and fresh.
    pub(super) fn known(
        &self,
        request: &Fetch,
        now: Instant,
        fresh: Duration,
    ) -> Option<Arc<Answer>> {
        let known = self.known.as_ref()?;
        if now >= known.at + fresh {
            return None;
        }
        let has_it = request.etag.is_some() && request.etag == known.etag;
        if has_it {
            // Who waits for news does not want to know that there was none.
            return request.wait.is_none().then(|| {
                Arc::new(Answer {
                    part: Part::NotModified,
                    etag: known.etag.clone(),
                    long_polling: known.long_polling,
                    waiting: known.waiting,
                    answered: known.answered,
                    generation: AtomicU64::new(self.generation),
                })
            });
        }
        let kept = self.kept.as_ref().filter(|kept| now < kept.until)?;
        let fits = kept.fits(request);
        (fits && kept.answer.etag == known.etag).then(|| Arc::clone(&kept.answer))
    }

    /// Whether `answer` is another bundle than the last one. For the time that an answer counts,
    /// one without a bundle is none: a server could name another etag each time.
    pub(super) fn note_mark(&mut self, answer: &Answer, now: Instant, fresh: Duration) -> bool {
        let known = self.known.as_ref();
        let is_known = known.is_some_and(|known| now < known.at + fresh);
        if is_known && matches!(answer.part, Part::NotModified) {
            return false;
        }
        let mark = match (&answer.etag, &answer.part) {
            (Some(etag), _) => Mark::Etag(Arc::clone(etag)),
            (None, Part::Snapshot(bytes) | Part::Delta(bytes)) => {
                let mut digest = Sha256::new();
                bytes.pieces().for_each(|piece| digest.update(piece));
                Mark::Digest(digest.finalize().into())
            }
            (None, Part::NotModified | Part::Once(_)) => return false,
        };
        let has_news = self.mark.as_ref() != Some(&mark);
        self.generation += u64::from(has_news);
        self.mark = Some(mark);
        has_news
    }

    pub(super) fn note_taken(&mut self, generation: u64, common: bool) {
        if let Some(kept) = &mut self.kept
            && kept.answer.generation.load(Ordering::Relaxed) == generation
        {
            kept.taken += 1;
        }
        self.drop_taken(common);
    }

    /// Frees what all members have. What more apps are expected to want stays for its time.
    pub(super) fn drop_taken(&mut self, common: bool) {
        let members = self.members;
        if self.kept.as_ref().is_some_and(|kept| kept.taken >= members) && !common {
            self.kept = None;
        }
    }
}

impl Kept {
    /// A change is only for those who take one and have what it changes. Over HTTP nothing tells it
    /// from a whole bundle before it is read.
    fn fits(&self, request: &Fetch) -> bool {
        let may_be_delta = match self.answer.part {
            Part::Snapshot(_) => self.asked.deltas && self.asked.etag.is_some(),
            Part::Delta(_) => true,
            Part::NotModified | Part::Once(_) => return false,
        };
        !may_be_delta || (request.deltas && request.etag == self.asked.etag)
    }
}
