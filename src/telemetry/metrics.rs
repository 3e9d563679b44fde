//! Rendering of metrics in the Prometheus text format (0.0.4), from plain numbers.

use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto;

use super::catalog::{self, Kind};

/// The media type of what [`Families::render`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Collects samples by family and renders them in the order of the catalog.
#[derive(Debug)]
pub struct Families(Vec<proto::MetricFamily>);

/// What was observed of a duration.
#[derive(Clone, Copy, Debug)]
pub struct Distribution<'a> {
    /// Upper bounds of the buckets in microseconds, growing.
    pub bounds_us: &'a [u64],
    /// Observations per bucket, not cumulative; whatever lies beyond the bounds is in no bucket but the last (`+Inf`).
    pub counts: &'a [u64],
    /// Sum of all observations in microseconds.
    pub sum_us: u64,
}

// === impl Families ===

impl Families {
    /// Every family of the catalog, without samples.
    #[must_use]
    pub fn new() -> Self {
        Self(catalog::ALL.iter().map(family).collect())
    }

    /// Adds a sample of a counter.
    pub fn counter<const N: usize>(&mut self, metric: catalog::Counter<N>, labels: [&str; N], value: u64) {
        self.counter_f64(metric, labels, float(value));
    }

    /// Adds a sample of a counter of seconds.
    pub fn counter_seconds<const N: usize>(&mut self, metric: catalog::Counter<N>, labels: [&str; N], value: Duration) {
        self.counter_f64(metric, labels, value.as_secs_f64());
    }

    /// Adds a sample of a gauge.
    pub fn gauge<const N: usize>(&mut self, metric: catalog::Gauge<N>, labels: [&str; N], value: u64) {
        self.gauge_f64(metric, labels, float(value));
    }

    /// Adds a sample of a gauge that is not a whole number.
    pub fn gauge_f64<const N: usize>(&mut self, metric: catalog::Gauge<N>, labels: [&str; N], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        self.add(metric.index(), &labels, |sample| sample.set_gauge(gauge));
    }

    /// Adds a sample of a histogram. Its count is the sum of its buckets, so `+Inf` always equals it.
    pub fn histogram<const N: usize>(
        &mut self,
        metric: catalog::Histogram<N>,
        labels: [&str; N],
        observed: Distribution<'_>,
    ) {
        let mut histogram = proto::Histogram::default();
        let mut cumulative = 0_u64;
        let buckets = observed.bounds_us.iter().enumerate().map(|(i, &bound)| {
            cumulative = cumulative.saturating_add(observed.counts.get(i).copied().unwrap_or(0));
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(seconds(bound));
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(observed.counts.iter().fold(0, |sum, &n| sum.saturating_add(n)));
        histogram.set_sample_sum(seconds(observed.sum_us));
        self.add(metric.index(), &labels, |sample| sample.set_histogram(histogram));
    }

    /// Everything added, as text. Families without samples are left out.
    ///
    /// # Errors
    /// Those of the encoder; with families made here there are none.
    pub fn render(mut self) -> Result<String, prometheus::Error> {
        self.0.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&self.0)
    }

    fn counter_f64<const N: usize>(&mut self, metric: catalog::Counter<N>, labels: [&str; N], value: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        self.add(metric.index(), &labels, |sample| sample.set_counter(counter));
    }

    fn add(&mut self, index: usize, values: &[&str], fill: impl FnOnce(&mut proto::Metric)) {
        let names = catalog::ALL[index].labels;
        debug_assert_eq!(names.len(), values.len(), "{}", catalog::ALL[index].name);
        let pairs = names.iter().zip(values).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut sample = proto::Metric::from_label(pairs.collect());
        fill(&mut sample);
        self.0[index].mut_metric().push(sample);
    }
}

impl Default for Families {
    fn default() -> Self {
        Self::new()
    }
}

fn family(entry: &catalog::Entry) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(entry.name.to_owned());
    family.set_help(entry.help.to_owned());
    family.set_field_type(match entry.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family
}

#[expect(clippy::cast_precision_loss, reason = "samples are 64-bit floats by the format; exact up to 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(us: u64) -> f64 {
    float(us) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_exactly_this() {
        let mut families = Families::new();
        families.gauge(catalog::GENERATION, [], 7);
        families.counter(catalog::ATTEMPTS, ["web", "v1", "stable", "10.0.0.1:8080"], 12);
        families.counter(catalog::ATTEMPTS, ["web", "v2", "candidate", "[::1]:80"], 3);
        families.gauge_f64(catalog::CANDIDATE_WEIGHT, ["web"], 0.05);
        families.counter_seconds(catalog::PROCESS_CPU, [], Duration::from_millis(1_250));
        families.histogram(
            catalog::REQUEST_DURATION,
            ["web", "v1", "stable", "10.0.0.1:8080"],
            Distribution { bounds_us: &[250, 1_000, 60_000_000], counts: &[2, 0, 3, 1], sum_us: 61_500_000 },
        );
        let expected = r#"# HELP tidegate_request_duration_seconds From the first byte of a request to the last byte of its response.
# TYPE tidegate_request_duration_seconds histogram
tidegate_request_duration_seconds_bucket{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080",le="0.00025"} 2
tidegate_request_duration_seconds_bucket{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080",le="0.001"} 2
tidegate_request_duration_seconds_bucket{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080",le="60"} 5
tidegate_request_duration_seconds_bucket{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080",le="+Inf"} 6
tidegate_request_duration_seconds_sum{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080"} 61.5
tidegate_request_duration_seconds_count{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080"} 6
# HELP tidegate_attempts_total Attempts begun on an endpoint, and requests charged to it because none of the candidate was ready any more.
# TYPE tidegate_attempts_total counter
tidegate_attempts_total{service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080"} 12
tidegate_attempts_total{service="web",version="v2",variant="candidate",endpoint="[::1]:80"} 3
# HELP tidegate_candidate_weight_ratio Share of the requests assigned to the candidate, 0 to 1.
# TYPE tidegate_candidate_weight_ratio gauge
tidegate_candidate_weight_ratio{service="web"} 0.05
# HELP tidegate_generation Generation of the routing state in force.
# TYPE tidegate_generation gauge
tidegate_generation 7
# HELP process_cpu_seconds_total User and system CPU time spent, in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.25
"#;
        assert_eq!(families.render().expect("renders"), expected);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut families = Families::new();
        families.gauge(catalog::BUILD_INFO, ["a\"b\\c\nd"], 1);
        let text = families.render().expect("renders");
        assert!(text.ends_with("tidegate_build_info{version=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    }

    #[test]
    fn counts_that_do_not_fit_the_bounds_still_make_a_valid_histogram() {
        for (counts, last, count) in [(&[1_u64][..], 1, 1), (&[1, 2, 3, 4][..], 3, 10), (&[][..], 0, 0)] {
            let mut families = Families::new();
            let observed = Distribution { bounds_us: &[10, 20], counts, sum_us: 0 };
            families.histogram(catalog::UPSTREAM_DURATION, ["s", "v", "stable", "e"], observed);
            let text = families.render().expect("renders");
            assert!(text.contains(&format!("le=\"0.00002\"}} {last}\n")), "{text}");
            assert!(text.contains(&format!("le=\"+Inf\"}} {count}\n")), "{text}");
        }
    }

    #[test]
    fn nothing_added_renders_nothing() {
        assert_eq!(Families::default().render().expect("renders"), "");
    }
}
