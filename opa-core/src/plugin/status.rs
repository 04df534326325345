use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Labels, LastLoad, LoadTimes};
use crate::engine::{CompileError, Location};
use crate::{AppId, FailureClass, FailureCounts};

/// Where an instance is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No bundle was activated yet, nothing has failed.
    Starting,
    /// A policy is active. Later failures don't change that: the last good one keeps serving.
    Ready,
    /// Nothing was activated yet and the last attempt failed; another one follows.
    Failed {
        /// What failed.
        reason: Arc<str>,
        /// When the next attempt is due; `None` when none will come before the configuration changes.
        retry_at: Option<SystemTime>,
    },
    /// The instance is gone; a new one takes its place when the app is asked for again.
    Closed,
}

impl State {
    /// `starting`, `ready`, `failed` or `closed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failed { .. } => "failed",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator wants to know of one instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// The app.
    pub app: AppId,
    /// The labels, once the configuration is known.
    pub labels: Option<Labels>,
    /// The state.
    pub state: State,
    /// Why the instance isn't what the configuration says now. After a reload it goes on with what
    /// it was told before; it is tried again.
    pub configuration_problem: Option<Arc<str>>,
    /// Each configured bundle, sorted by name.
    pub bundles: Vec<BundleStatus>,
}

impl InstanceStatus {
    /// The status of an instance.
    pub fn new(
        app: AppId,
        labels: Option<Labels>,
        state: State,
        configuration_problem: Option<Arc<str>>,
        bundles: Vec<BundleStatus>,
    ) -> Self {
        Self {
            app,
            labels,
            state,
            configuration_problem,
            bundles,
        }
    }
}

/// What happened to one bundle of an instance, as OPA's status API tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BundleStatus {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The revision that decisions are made with.
    pub active_revision: Option<Arc<str>>,
    /// When the active revision was activated.
    pub last_successful_activation: Option<SystemTime>,
    /// When bytes of a bundle last came.
    pub last_successful_download: Option<SystemTime>,
    /// When the server last answered 200 or 304.
    pub last_successful_request: Option<SystemTime>,
    /// When the last request ended; the same time as that of a success, if it was one.
    pub last_request: Option<SystemTime>,
    /// What was activated last, a `snapshot` or a `delta` (OPA's `type`).
    pub bundle_type: Option<&'static str>,
    /// The source's last answer is longer ago than `max_staleness_seconds` allows, or it has not
    /// answered since the start: decisions are refused until it does.
    pub stale: bool,
    /// The size of the active bundle as downloaded, in bytes.
    pub size: Option<u64>,
    /// How often a revision of it was activated.
    pub loads: u64,
    /// How often that failed, by what failed: asking for it, reading it, making a policy of it, or
    /// [writing it to disk](Self::not_persisted), after which it is active all the same.
    pub failures: FailureCounts,
    /// OPA's code of the last failure, `bundle_error`; cleared by the next success.
    pub code: Option<&'static str>,
    /// The last failure in words.
    pub message: Option<Arc<str>>,
    /// What sort of failure the last one was; cleared by the next success.
    pub class: Option<FailureClass>,
    /// What the compiler found, if that was the failure.
    pub errors: Vec<BundleError>,
    /// The server's answer, if that was the failure.
    pub http_code: Option<u16>,
    /// Why the active bundle is not on disk, if it should be: the next start may find an older
    /// one or none. It is tried again with each answer of the server.
    pub not_persisted: Option<Arc<str>>,
    /// How long the stages of the last attempt to load it took, also of one that failed: OPA's timers
    /// in `metrics`.
    pub last_load: LastLoad,
    /// How long the stages of all attempts to load it took, if that is
    /// [recorded by app](crate::Manager::record_loads_by_app).
    pub load_times: Option<Box<LoadTimes>>,
}

/// An error of the compiler, as OPA's status API tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleError {
    /// Such as `rego_parse_error`.
    pub code: Arc<str>,
    /// In words.
    pub message: Arc<str>,
    /// Where it is: file, row and column, from 1.
    pub location: Option<(Arc<str>, u32, u32)>,
}

impl From<&CompileError> for BundleError {
    fn from(error: &CompileError) -> Self {
        let place = |it: &Location| (Arc::clone(&it.file), it.row, it.column);
        Self {
            code: error.code().into(),
            message: error.message().into(),
            location: error.location().map(place),
        }
    }
}

impl BundleStatus {
    /// A success follows the failure.
    pub(crate) fn clear_error(&mut self) {
        (self.code, self.message, self.http_code) = (None, None, None);
        self.class = None;
        self.errors.clear();
    }
}
