//! The life of instances, under paused time, with each race forced in both orders.

mod bundles;
mod deltas;
mod faults;
mod hostile;
mod life;
mod races;
mod reload;
mod reports;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Manager, ManagerBuilder};
use crate::bundle::BundleWriter;
use crate::bundle::source::{Fetch, Memory, Source, SourceAnswer, SourceError, SourceFuture};
use crate::engine::testing::Scripted;
use crate::{App, Value};

/// Longer than anything in these tests takes.
const LONG: Duration = Duration::from_secs(600);

/// A bundle whose data says which one it is.
pub(super) fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new()
        .revision(version)
        .data("", &data)
        .unwrap();
    bundle
        .module("a.rego", "package a")
        .unwrap()
        .to_vec()
        .unwrap()
}

/// A bundle that does not compile.
pub(super) fn broken() -> Vec<u8> {
    BundleWriter::new()
        .module("a.rego", "package a # broken")
        .unwrap()
        .to_vec()
        .unwrap()
}

/// A memory source that counts its questions and can be told to fail.
#[derive(Clone)]
pub(super) struct Counting {
    memory: Memory,
    asked: Arc<AtomicUsize>,
    downloads: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    failing: Arc<parking_lot::Mutex<Option<SourceError>>>,
}

impl Counting {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            memory: Memory::new(bytes),
            asked: Arc::default(),
            downloads: Arc::default(),
            under_way: Arc::default(),
            failing: Arc::default(),
        }
    }

    pub(super) fn fail(&self, error: Option<SourceError>) {
        *self.failing.lock() = error;
    }

    pub(super) fn replace(&self, bytes: Vec<u8>) {
        self.memory.replace(bytes);
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many questions are not answered and not taken back.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn downloads(&self) -> usize {
        self.downloads.load(Ordering::Relaxed)
    }
}

struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source for Counting {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = self.failing.lock().clone() {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let ended = Ended(Arc::clone(&self.under_way));
        Box::pin(async move {
            let _ended = ended;
            let answer: SourceAnswer = self.memory.fetch(request).await?;
            if !matches!(answer.content, crate::bundle::source::Content::NotModified) {
                self.downloads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer)
        })
    }
}

pub(super) fn builder(source: &Counting) -> ManagerBuilder {
    Manager::builder()
        .source("b", source.clone())
        .engine(Scripted::data())
        .blocking_pools()
}

/// What the app's policy answers: the version of its bundle.
pub(super) async fn version(app: &App) -> Option<String> {
    let decision = app.decide("a/b", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

/// Waits until the app's policy answers `wanted`.
pub(super) async fn until_version(app: &App, wanted: &str) {
    while version(app).await.as_deref() != Some(wanted) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
