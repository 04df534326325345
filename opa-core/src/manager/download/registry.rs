use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Download, Member, State};
use crate::bundle::source::Source;
use crate::config::{PollingConfig, ServiceConfig};
use crate::manager::slots::Slots;

/// The downloads of a manager.
#[derive(Default)]
pub(in crate::manager) struct Downloads {
    by_key: Mutex<HashMap<Key, Weak<Download>>>,
    services: Mutex<HashSet<Arc<ServiceConfig>>>,
    news: Arc<News>,
}

/// All that decides whether two downloads are one. The service stands for its URL, headers, TLS
/// settings and credentials; those of a plugin are known by its name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::manager) struct Key {
    pub(in crate::manager) service: Arc<ServiceConfig>,
    pub(in crate::manager) resource: String,
    pub(in crate::manager) polling: PollingConfig,
    /// The most bytes that the archive may have.
    pub(in crate::manager) limit: u64,
}

/// What the scheduler must know of downloads.
#[derive(Default)]
pub(super) struct News {
    /// The apps that were ever started.
    apps: AtomicUsize,
    /// Whose members must come at once.
    hurried: Mutex<HashSet<usize>>,
    /// When to free what is kept.
    kept: Mutex<BTreeMap<(Instant, usize), Weak<Download>>>,
    changed: Notify,
}

impl Downloads {
    /// A part in the download of `key`, from `source` if there is none yet. With `common`, other
    /// apps are expected to have the same.
    pub(in crate::manager) fn join(
        &self,
        key: Key,
        source: Arc<dyn Source>,
        slots: Slots,
        common: bool,
    ) -> Arc<Member> {
        let mut by_key = self.by_key.lock();
        if let Some(download) = by_key.get(&key).and_then(Weak::upgrade) {
            return Arc::new(Member::new(download));
        }
        if by_key.len() == by_key.capacity() {
            // It would grow: first what no app wants any more goes, since URLs can name apps.
            by_key.retain(|_, download| download.strong_count() > 0);
        }
        let download = Arc::new(Download {
            source,
            key: key.clone(),
            slots,
            common,
            news: Arc::clone(&self.news),
            state: Mutex::new(State::default()),
        });
        by_key.insert(key, Arc::downgrade(&download));
        Arc::new(Member::new(download))
    }

    /// The one copy of a service's configuration.
    pub(in crate::manager) fn interned(&self, service: &ServiceConfig) -> Arc<ServiceConfig> {
        let mut services = self.services.lock();
        if let Some(service) = services.get(service) {
            return Arc::clone(service);
        }
        if services.len() == services.capacity() {
            services.retain(|service| Arc::strong_count(service) > 1);
        }
        let service = Arc::new(service.clone());
        services.insert(Arc::clone(&service));
        service
    }

    /// How many have members.
    #[cfg(test)]
    pub(in crate::manager) fn wanted(&self) -> usize {
        let by_key = self.by_key.lock();
        by_key.values().filter(|it| it.strong_count() > 0).count()
    }

    /// One more app was started.
    pub(in crate::manager) fn note_app(&self) {
        self.news.apps.fetch_add(1, Ordering::Relaxed);
    }

    /// The downloads whose members must come at once.
    pub(in crate::manager) fn take_hurried(&self) -> HashSet<usize> {
        std::mem::take(&mut *self.news.hurried.lock())
    }

    /// Frees what was kept long enough.
    pub(in crate::manager) fn purge(&self, now: Instant) {
        loop {
            let kept = {
                let mut kept = self.news.kept.lock();
                let Some(first) = kept.first_entry().filter(|first| first.key().0 <= now) else {
                    return;
                };
                first.remove()
            };
            if let Some(download) = kept.upgrade() {
                download.purge(now);
            }
        }
    }

    /// When something is to be freed next.
    pub(in crate::manager) fn next_purge(&self) -> Option<Instant> {
        let kept = self.news.kept.lock();
        kept.first_key_value().map(|((until, _), _)| *until)
    }

    /// Ends when there is something to do.
    pub(in crate::manager) async fn changed(&self) {
        self.news.changed.notified().await;
    }
}

impl News {
    pub(super) fn apps(&self) -> usize {
        self.apps.load(Ordering::Relaxed)
    }

    pub(super) fn announce(&self, download: usize) {
        self.hurried.lock().insert(download);
        self.changed.notify_one();
    }

    pub(super) fn keep(&self, until: Instant, download: &Arc<Download>) {
        let key = (until, download.number());
        self.kept.lock().insert(key, Arc::downgrade(download));
        self.changed.notify_one();
    }
}
