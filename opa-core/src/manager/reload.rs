//! Reads the configuration again while instances run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::Instances;
use super::scheduler::{Outcome, Scheduler};
use crate::AppId;
use crate::config::{ConfigError, ConfigErrorKind, Overrides, Template};

/// How many instances are told their configuration at a time.
const AT_A_TIME: usize = 16;

/// The configuration's files are looked at no more often than this.
const MIN_WATCH: Duration = Duration::from_millis(10);

/// Where the configuration comes from.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) base: Base,
    /// As of `--set`.
    pub(super) set: Vec<String>,
    /// As of `--set-file`.
    pub(super) set_files: Vec<String>,
}

#[derive(Default)]
pub(super) enum Base {
    #[default]
    None,
    Text(String),
    File(PathBuf),
}

/// What the content of all files of the configuration was like at one time.
#[derive(PartialEq, Eq)]
pub(super) struct Content([u8; 32]);

impl Origin {
    /// The template, if there is a configuration. Blocks.
    pub(super) fn read(&self) -> Result<Option<Template>, ConfigError> {
        let overrides = Overrides::new(&self.set, &self.set_files)?;
        let template = match &self.base {
            Base::None if overrides.is_empty() => return Ok(None),
            Base::None => Template::parse("<config>", "")?,
            Base::Text(text) => Template::parse("<config>", text)?,
            Base::File(path) => Template::read(path)?,
        };
        Ok(Some(template.with_overrides(overrides)))
    }

    /// What the files hold now. That one can't be read is a content, too. Blocks.
    pub(super) fn content(&self) -> Content {
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(bytes);
        };
        if let Base::File(path) = &self.base {
            match crate::config::read_bounded(path) {
                Ok(bytes) => add(&bytes),
                Err(error) => add(error.to_string().as_bytes()),
            }
        }
        if !self.set_files.is_empty() {
            match Overrides::new([""; 0], &self.set_files) {
                Ok(overrides) => overrides.contents().for_each(|text| add(text.as_bytes())),
                Err(error) => add(error.to_string().as_bytes()),
            }
        }
        Content(digest.finalize().into())
    }
}

/// What a reload did. See [`Manager::reload`](super::Manager::reload).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The apps whose configuration changed. What they served goes on until their new bundles are
    /// there.
    pub changed: Vec<AppId>,
    /// The apps whose configuration says what it said before; nothing of them was touched.
    pub unchanged: Vec<AppId>,
    /// The apps that the new configuration fails for, and why. They go on with the old one, and it
    /// is tried again. What fails when a policy is put together from the bundles that are left is
    /// here, too: it is tried again when the next bundle comes.
    pub failed: Vec<(AppId, String)>,
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (changed, unchanged) = (self.changed.len(), self.unchanged.len());
        let failed = self.failed.len();
        write!(
            f,
            "{changed} apps changed, {unchanged} unchanged, {failed} failed"
        )
    }
}

/// Reads the configuration again and tells the instances.
pub(super) struct Reloader {
    pub(super) instances: Arc<Instances>,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) origin: Arc<Origin>,
    pub(super) runtime: Handle,
    /// One reload at a time.
    pub(super) one: tokio::sync::Mutex<()>,
}

impl Reloader {
    pub(super) async fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let _one = self.one.lock().await;
        let report = self.try_reload().await;
        match &report {
            Ok(report) => tracing::info!(target: "opa::config", "configuration reloaded: {report}"),
            Err(error) => tracing::error!(
                target: "opa::config",
                "configuration not reloaded, the old one stays: {error}",
            ),
        }
        report
    }

    async fn try_reload(&self) -> Result<ReloadReport, ConfigError> {
        self.check_open()?;
        // The files are read and checked whole, before anything changes.
        let origin = Arc::clone(&self.origin);
        let template = blocking(move || origin.read()).await??;
        let blueprint = self.scheduler.blueprint().with_template(template);
        let checked = blueprint.clone();
        blocking(move || checked.validate()).await??;
        self.instances
            .shared
            .hooks
            .reach("reload: before the switch");
        self.scheduler.switch(blueprint);
        // Whoever starts from here on takes the new one; everybody else is told. An instance whose
        // start is under way is waited for.
        let outcomes: Vec<_> = futures_util::stream::iter(self.instances.all())
            .map(|instance| async move {
                let outcome = self.scheduler.tell(&instance).await;
                (instance.id().clone(), outcome)
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        self.scheduler.forget_over();
        self.check_open()?;
        let mut report = ReloadReport::default();
        for (app, outcome) in outcomes {
            match outcome {
                Outcome::Changed => report.changed.push(app),
                Outcome::Unchanged => report.unchanged.push(app),
                Outcome::Failed(problem) => report.failed.push((app, problem)),
                Outcome::NotStarted => {}
            }
        }
        report.changed.sort();
        report.unchanged.sort();
        report.failed.sort();
        Ok(report)
    }

    fn check_open(&self) -> Result<(), ConfigError> {
        match self.instances.closed.load(Ordering::Acquire) {
            true => Err(ConfigError::new(
                ConfigErrorKind::Closed,
                "the manager is shut down",
            )),
            false => Ok(()),
        }
    }
}

/// Watches the content of the files, every so often: names and times of files say nothing where
/// links are swapped. A content that is seen for the first time is looked at once more, since it
/// may be half written. Runs until it is aborted.
pub(super) async fn watch(reloader: Arc<Reloader>, every: Duration, mut known: Option<Content>) {
    let mut new = None;
    loop {
        tokio::time::sleep(every.max(MIN_WATCH)).await;
        let origin = Arc::clone(&reloader.origin);
        let Ok(content) = blocking(move || origin.content()).await else {
            continue;
        };
        if known.as_ref() == Some(&content) {
            new = None;
        } else if new.as_ref() == Some(&content) {
            new = None;
            known = Some(content);
            // It has told what is wrong, and there is nobody else to tell.
            let _ = reloader.reload().await;
        } else {
            new = Some(content);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConfigError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ConfigError::new(ConfigErrorKind::Invalid, "a panic ended the reload"))
}
