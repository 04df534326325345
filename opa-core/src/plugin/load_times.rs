use std::time::Duration;

use crate::Histogram;

/// A stage of loading a bundle that is timed, by OPA's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadStage {
    /// From the question to the source until it begins to answer; with long polling that includes
    /// the wait for news.
    Request,
    /// Reading what comes, checking its signature and parsing its data.
    Load,
    /// Making a policy of it, up to the activation.
    Compile,
}

impl LoadStage {
    /// All stages, in their order.
    pub const ALL: [Self; 3] = [Self::Request, Self::Load, Self::Compile];

    /// OPA's name of the stage's timer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "timer_bundle_request_ns",
            Self::Load => "timer_rego_load_bundles_ns",
            Self::Compile => "timer_rego_module_compile_ns",
        }
    }
}

/// How long the stages of loading bundles took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTimes([Histogram; LoadStage::ALL.len()]);

/// OPA's buckets: 1 µs, doubled nineteen times.
const BOUNDS: [u64; 20] = {
    let mut bounds = [1_000; 20];
    let mut at = 1;
    while at < bounds.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            bounds[at] = bounds[at - 1] * 2;
        }
        at += 1;
    }
    bounds
};

impl Default for LoadTimes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Histogram::new(&BOUNDS)))
    }
}

impl LoadTimes {
    pub(crate) fn record(&mut self, stage: LoadStage, took: Duration) {
        if let Some(histogram) = self.0.get_mut(stage as usize) {
            histogram.record(took);
        }
    }

    /// Each stage, with the durations that were recorded.
    pub fn iter(&self) -> impl Iterator<Item = (LoadStage, &Histogram)> {
        LoadStage::ALL.into_iter().zip(&self.0)
    }
}

/// How long the stages took when a bundle was last asked for. Those that it didn't come to are
/// missing: an answer that there is nothing new is not loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastLoad([Option<Duration>; LoadStage::ALL.len()]);

impl LastLoad {
    /// Notes how long a stage took. A [request](LoadStage::Request) begins anew.
    pub fn record(&mut self, stage: LoadStage, took: Duration) {
        if stage == LoadStage::Request {
            *self = Self::default();
        }
        if let Some(last) = self.0.get_mut(stage as usize) {
            *last = Some(took);
        }
    }

    /// The stages that it came to, with how long they took.
    pub fn iter(&self) -> impl Iterator<Item = (LoadStage, Duration)> + use<> {
        let stages = LoadStage::ALL.into_iter().zip(self.0);
        stages.filter_map(|(stage, took)| Some((stage, took?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_forgets_what_the_one_before_came_to() {
        let mut last = LastLoad::default();
        assert_eq!(last.iter().count(), 0);
        last.record(LoadStage::Request, Duration::from_nanos(1));
        last.record(LoadStage::Load, Duration::from_nanos(2));
        let both = [(LoadStage::Request, 1), (LoadStage::Load, 2)];
        let told: Vec<_> = last.iter().collect();
        assert_eq!(told, both.map(|(it, ns)| (it, Duration::from_nanos(ns))));
        last.record(LoadStage::Request, Duration::from_nanos(3));
        let told: Vec<_> = last.iter().collect();
        assert_eq!(told, [(LoadStage::Request, Duration::from_nanos(3))]);
    }

    #[test]
    fn a_stage_is_recorded_as_itself_in_opas_buckets() {
        let mut times = LoadTimes::default();
        times.record(LoadStage::Load, Duration::from_micros(3));
        let totals: Vec<_> = times.iter().map(|(_, it)| it.total()).collect();
        assert_eq!(totals, [0, 1, 0]);
        assert_eq!(BOUNDS.last(), Some(&524_288_000));
    }
}
