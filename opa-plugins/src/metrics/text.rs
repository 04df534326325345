//! The text format, by the crate `prometheus`.

use opa_core::Histogram;
use prometheus::TextEncoder;
use prometheus::proto::{
    self as proto, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType,
};

/// Name, type and help of a metric.
pub(super) type Described = (&'static str, MetricType, &'static str);

/// Appends a metric with all of its series; nothing, if it has none.
pub(super) fn write(family: &MetricFamily, text: &mut String) {
    if family.get_metric().is_empty() {
        return;
    }
    let length = text.len();
    if let Err(error) = TextEncoder::new().encode_utf8(std::slice::from_ref(family), text) {
        text.truncate(length);
        tracing::error!(target: "opa::metrics", metric = family.name(), "not written: {error}");
    }
}

/// A counter or gauge.
pub(super) fn family<'a>(
    described: Described,
    series: impl Iterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
) -> MetricFamily {
    let is_counter = described.1 == MetricType::COUNTER;
    let metrics = series.map(|(labels, value)| {
        let mut metric = labelled(&labels);
        if is_counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    });
    named(described, metrics.collect())
}

/// Histograms whose unit has `unit` nanoseconds.
pub(super) fn histograms<'a>(
    (name, help): (&'static str, &'static str),
    unit: f64,
    series: impl Iterator<Item = (Vec<(&'static str, &'a str)>, &'a Histogram)>,
) -> MetricFamily {
    let metrics = series.map(|(labels, histogram)| {
        let mut metric = labelled(&labels);
        metric.set_histogram(converted(histogram, unit));
        metric
    });
    named((name, MetricType::HISTOGRAM, help), metrics.collect())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn converted(histogram: &Histogram, unit: f64) -> proto::Histogram {
    let mut cumulative = 0;
    let buckets = histogram.bounds_ns().iter().zip(histogram.counts());
    let buckets = buckets.map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / unit);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut converted = proto::Histogram::default();
    converted.set_bucket(buckets.collect());
    converted.set_sample_count(histogram.total());
    converted.set_sample_sum(histogram.sum_ns() as f64 / unit);
    converted
}

fn labelled(labels: &[(&'static str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

fn named((name, kind, help): Described, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
