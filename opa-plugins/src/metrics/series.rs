use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use opa_core::instance::{InstanceReport, Reports, Share};
use opa_core::plugin::BundleStatus;
use opa_core::{AppId, Reason};
use prometheus::proto::MetricFamily;

use super::AppEvents;
use super::family::Family;
use super::sample::{Labels, Sample, outcome};
use super::text;
use crate::status::{PluginState, StatusReport};

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
            let mut samples = samples(report, &events);
            omitted += samples.len().saturating_sub(max);
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

/// All series that an app could have, in the order that the module's docs tell.
fn samples(report: &InstanceReport, events: &[AppEvents]) -> Vec<Sample> {
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
    }
    if let Some(state) = bundle_plugin(report) {
        to.add(Family::PluginStatus, Labels::Plugin(state), 1.0);
    }
    let started = since_1970(report.started_at).as_secs_f64();
    to.add(Family::StartTime, Labels::None, started);
    to.count(Family::Reuses, Labels::None, report.reuses);
    to.share(Family::DataBytes, report.data);
    to.share(Family::PolicyBytes, report.policies);
    for (at, bundle) in bundles() {
        let downloaded = bundle.last_successful_download;
        to.ns(Family::Download, Labels::Bundle(at), downloaded);
        to.ns(Family::Request, Labels::Bundle(at), bundle.last_request);
    }
    for (at, AppEvents { counts, .. }) in events.iter().enumerate() {
        let labels = Labels::Events(at);
        to.count(Family::LogRateLimit, labels, counts.rate_limited);
        to.count(Family::LogBufferLimit, labels, counts.buffer_full);
        to.count(Family::LogEncoding, labels, counts.encoding_failed);
    }
    for (at, bundle) in bundles() {
        failures(&mut to, at, bundle, false);
    }
    to.0
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

/// The state of OPA's plugin `bundle`, if there are bundles.
fn bundle_plugin(report: &InstanceReport) -> Option<PluginState> {
    let report = StatusReport::new(&report.status);
    report.plugin_states().get("bundle").copied()
}
