use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use opa_core::instance::{InstanceReport, Reports, Share};
use opa_core::plugin::BundleStatus;
use opa_core::{AppId, Reason};
use prometheus::proto::MetricFamily;

use super::family::Family;
use super::sample::{Labels, Sample, outcome};
use super::text;
use super::{AppEvents, LastUpload};
use crate::status::{Buffer, PluginState, plugin_states};

/// The series of all apps, at most so many of each.
pub(super) struct Board<'a> {
    apps: Vec<App<'a>>,
    omitted: usize,
}

struct App<'a> {
    report: &'a InstanceReport,
    events: Vec<AppEvents>,
    samples: Vec<Sample>,
}

impl<'a> Board<'a> {
    pub(super) fn new(reports: &'a Reports, events: Vec<AppEvents>, max: usize) -> Self {
        let mut by_app: HashMap<AppId, Vec<AppEvents>> = HashMap::new();
        for events in events {
            by_app.entry(events.app.clone()).or_default().push(events);
        }
        let mut omitted = 0;
        let apps = reports.instances.iter().map(|report| {
            let events = by_app.remove(&report.status.app).unwrap_or_default();
            let (mut samples, wanted) = samples(report, &events);
            omitted += wanted.saturating_sub(max);
            samples.truncate(max);
            samples.shrink_to_fit();
            App {
                report,
                events,
                samples,
            }
        });
        let apps = apps.collect();
        Self { apps, omitted }
    }

    /// How many series are too many.
    pub(super) fn omitted(&self) -> usize {
        self.omitted
    }

    /// The series of one metric.
    pub(super) fn family(&self, family: Family) -> MetricFamily {
        let series = self.apps.iter().flat_map(|app| {
            let samples = app.samples.iter();
            let samples = samples.filter(|sample| sample.family == family);
            samples.map(|sample| {
                let labels = sample.labels.of(app.report, &app.events);
                (labels, sample.value)
            })
        });
        text::family(family.described(), series)
    }
}

/// Collects the series of an app, those that matter most first.
#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn add(&mut self, family: Family, labels: Labels, value: f64) {
        self.0.push(Sample {
            family,
            labels,
            value,
        });
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the format has no other numbers"
    )]
    fn count(&mut self, family: Family, labels: Labels, count: u64) {
        if count > 0 {
            self.add(family, labels, count as f64);
        }
    }

    fn flag(&mut self, family: Family, labels: Labels, is_set: bool) {
        self.count(family, labels, is_set.into());
    }

    #[expect(clippy::cast_precision_loss, reason = "OPA's is as coarse")]
    fn ns(&mut self, family: Family, labels: Labels, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.add(family, labels, since_1970(at).as_nanos() as f64);
        }
    }

    fn share(&mut self, family: Family, share: Share) {
        let shared = share.is_shared;
        self.count(family, Labels::Use { shared }, share.bytes);
    }
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// All series that an app could have, in the order that the module's docs tell, and how many of them
/// should be told: the others only fill the room that is left.
fn samples(report: &InstanceReport, events: &[AppEvents]) -> (Vec<Sample>, usize) {
    let mut to = Samples::default();
    let status = &report.status;
    let bundles = || status.bundles.iter().enumerate();
    to.add(Family::State, Labels::State, 1.0);
    let has_problem = status.configuration_problem.is_some();
    to.flag(Family::ConfigurationProblem, Labels::None, has_problem);
    for (at, bundle) in bundles() {
        to.flag(Family::Stale, Labels::Bundle(at), bundle.stale);
    }
    for (at, bundle) in bundles() {
        failures(&mut to, at, bundle, true);
    }
    plugins(&mut to, report, |_, state| state != PluginState::Ok);
    uploads(&mut to, events, |last| last != LastUpload::Success);
    decisions(&mut to, report, |outcome| outcome == "error");
    for (at, events) in events.iter().enumerate() {
        for (reason, count) in events.dropped() {
            to.count(Family::EventsDropped, Labels::Dropped(at, reason), count);
        }
    }
    for (at, bundle) in bundles() {
        let activated = bundle.last_successful_activation;
        to.ns(Family::Activation, Labels::Revision(at), activated);
    }
    for (at, bundle) in bundles() {
        let answered = bundle.last_successful_request;
        to.ns(Family::SuccessRequest, Labels::Bundle(at), answered);
    }
    decisions(&mut to, report, |outcome| outcome != "error");
    for (at, bundle) in bundles() {
        to.count(Family::Loaded, Labels::Bundle(at), bundle.loads);
    }
    for (at, AppEvents { counts, .. }) in events.iter().enumerate() {
        to.count(
            Family::EventsDelivered,
            Labels::Events(at),
            counts.delivered,
        );
        to.count(Family::EventsBuffered, Labels::Events(at), counts.buffered);
        to.count(Family::EventsSpooled, Labels::Events(at), counts.spooled);
    }
    let is_fine = |state| state == PluginState::Ok;
    plugins(&mut to, report, |name, state| {
        name == "bundle" && is_fine(state)
    });
    let started = since_1970(report.started_at).as_secs_f64();
    to.add(Family::StartTime, Labels::None, started);
    to.count(Family::Reuses, Labels::None, report.reuses);
    to.share(Family::DataBytes, report.data);
    to.share(Family::PolicyBytes, report.policies);
    for (at, of_output) in events.iter().enumerate() {
        let (counts, chunks) = (&of_output.counts, &of_output.chunks);
        let labels = Labels::Events(at);
        to.count(Family::LogRateLimit, labels, counts.rate_limited);
        if !matches!(of_output.buffer, Some(Buffer::Events(_))) {
            to.count(Family::LogBufferLimit, labels, counts.buffer_full);
        }
        to.count(Family::LogEncoding, labels, counts.encoding_failed);
        to.count(Family::LogNoRoom, labels, counts.not_buffered());
        let cache_dropped = chunks.nd_builtin_cache_dropped;
        to.count(Family::LogCacheDropped, labels, cache_dropped);
        let too_large = chunks.exceeded_upload_size_limit;
        to.count(Family::LogTooLarge, labels, too_large);
    }
    for (at, bundle) in bundles() {
        failures(&mut to, at, bundle, false);
    }
    let wanted = to.0.len();
    for (at, bundle) in bundles() {
        let downloaded = bundle.last_successful_download;
        to.ns(Family::Download, Labels::Bundle(at), downloaded);
        to.ns(Family::Request, Labels::Bundle(at), bundle.last_request);
    }
    plugins(&mut to, report, |name, state| {
        name != "bundle" && is_fine(state)
    });
    uploads(&mut to, events, |last| last == LastUpload::Success);
    (to.0, wanted)
}

/// The failures of the class that the bundle fails with now, or those of all others. One that is not
/// on disk fails with that.
fn failures(to: &mut Samples, at: usize, bundle: &BundleStatus, current: bool) {
    let unsaved = bundle.not_persisted.is_some();
    for (class, count) in bundle.failures.iter() {
        let is_unsaved = unsaved && class == opa_core::FailureClass::Persist;
        if (bundle.class == Some(class) || is_unsaved) == current {
            to.count(Family::FailedLoad, Labels::Failure(at, class), count);
        }
    }
}

fn decisions(to: &mut Samples, report: &InstanceReport, wanted: impl Fn(&str) -> bool) {
    let counts = report.decisions.iter();
    for (reason, count) in counts.filter(|(reason, _): &(Reason, _)| wanted(outcome(*reason))) {
        to.count(Family::Decisions, Labels::Decision(reason), count);
    }
}

fn plugins(to: &mut Samples, report: &InstanceReport, wanted: impl Fn(&str, PluginState) -> bool) {
    for (name, state) in states(report).filter(|(name, state)| wanted(name, *state)) {
        to.add(Family::PluginStatus, Labels::Plugin(name, state), 1.0);
    }
}

/// The plugins of OPA that the instance has, and how they are.
pub(super) fn states(
    report: &InstanceReport,
) -> impl Iterator<Item = (&'static str, PluginState)> + use<> {
    let (logs, statuses) = (report.has_decision_logs, report.has_status);
    plugin_states(&report.status, logs, statuses)
}

/// How the last uploads ended.
fn uploads(to: &mut Samples, events: &[AppEvents], wanted: impl Fn(LastUpload) -> bool) {
    for (at, events) in events.iter().enumerate() {
        if events.last_upload.is_some_and(&wanted) {
            to.add(Family::LogStatus, Labels::Upload(at), 1.0);
        }
    }
}
