//! From metrics to what is counted (series) and what is tested: derived once from the configuration, the same on every proxy.

use super::config::{GateConfig, Measure, Method};
use super::family::{Ceiling, FIRST, FIRST_LATENCY, Family};

/// Series of one service: as many as a session slot has bits left.
pub const SERIES_MAX: usize = 14;

/// Where exposures are counted: an index into the channels of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// One counter of events. Its index is its bit in a session slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Index of the metric it belongs to.
    pub metric: usize,
    /// What is counted.
    pub measure: Measure,
    /// Where its exposures are counted.
    pub channel: Channel,
    /// Which events.
    pub event: Event,
}

/// What makes an event of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Something bad.
    Bad,
    /// Something good.
    Good,
    /// A latency above the threshold in force, which follows this quantile of stable.
    Slower(f64),
    /// A latency above a fixed ceiling, at this quantile.
    Above(f64),
}

/// One sequential test.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) series: usize,
    pub(super) kind: Kind,
}

/// What a test compares with.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Stable, by the family of this index.
    Compare(usize),
    /// A fixed rate.
    Ceiling(Box<Ceiling>),
}

/// Everything that follows from a [`GateConfig`] alone.
#[derive(Clone, Debug)]
pub struct Layout {
    series: Vec<Series>,
    pub(super) channels: usize,
    pub(super) families: Vec<(Channel, Family)>,
    pub(super) tests: Vec<Test>,
    /// Mirrored tests of what may be worse by a factor of three at most: series and family.
    pub(super) non_inferior: Vec<usize>,
    pub(super) non_inferior_family: Family,
}

// === impl Channel ===

impl Channel {
    /// Attempts begun: an endpoint was chosen, or none was ready and the request is charged.
    pub const BEGUN: Self = Self(0);
    /// Attempts whose request was fully written: their latency is being taken.
    pub const WRITTEN: Self = Self(1);

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

// === impl Layout ===

impl Layout {
    /// Derives it. `config` is expected to have passed its check but for the number of series.
    #[must_use]
    pub fn new(config: &GateConfig) -> Self {
        let mut layout = Self {
            series: Vec::new(),
            channels: 2,
            families: Vec::new(),
            tests: Vec::new(),
            non_inferior: Vec::new(),
            non_inferior_family: Family::better(3.0, 0.005),
        };
        for (metric, of) in config.metrics.iter().enumerate() {
            let channel = layout.channel(of.measure);
            layout.metric(metric, of.measure, channel, &of.method);
        }
        layout
    }

    /// What is counted, by index.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// How many channels exposures are counted on; [`Channel`] numbers them.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The metric of the test at `test`, by its index in the configuration.
    #[must_use]
    pub fn metric_of(&self, test: usize) -> Option<usize> {
        Some(self.series[self.tests.get(test)?.series].metric)
    }

    /// Indices of the series whose events are latencies above a threshold.
    pub fn slow(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.series.len()).filter(|i| self.series[*i].measure == Measure::Latency)
    }

    fn channel(&mut self, measure: Measure) -> Channel {
        match measure {
            Measure::Errors | Measure::ClientErrors => Channel::BEGUN,
            Measure::Latency => Channel::WRITTEN,
            Measure::Probes | Measure::Custom => {
                self.channels += 1;
                // At most twelve metrics and two more.
                Channel(u8::try_from(self.channels - 1).unwrap_or(u8::MAX))
            }
        }
    }

    fn metric(&mut self, metric: usize, measure: Measure, channel: Channel, method: &Method) {
        let mut count = |event| {
            self.series.push(Series { metric, measure, channel, event });
            self.series.len() - 1
        };
        match method {
            Method::Bad { max_ratio, ignore_below, max_rate } => {
                let series = count(Event::Bad);
                self.compare(series, channel, Family::worse(*max_ratio, *ignore_below, FIRST));
                self.non_inferior.push(series);
                self.ceiling(series, *max_rate);
            }
            Method::Good { min_ratio } => {
                let series = count(Event::Good);
                self.compare(series, channel, Family::better(*min_ratio, 0.0));
            }
            Method::Latency { quantiles, max_us, .. } => {
                let slower: Vec<usize> = quantiles.iter().map(|q| count(Event::Slower(*q))).collect();
                let ceiling = max_us.and_then(|_| Some((*quantiles.last()?, count(Event::Above(*quantiles.last()?)))));
                self.families.push((channel, Family::worse(1.0, 0.0, FIRST_LATENCY)));
                let family = self.families.len() - 1;
                self.tests.extend(slower.iter().map(|s| Test { series: *s, kind: Kind::Compare(family) }));
                if let Some((quantile, series)) = ceiling {
                    self.ceiling(series, Some(1.0 - quantile));
                }
            }
            // A latency rule reads the histograms, the others count.
            Method::Threshold(rule) if measure != Measure::Latency => {
                count(if rule.counts_good { Event::Good } else { Event::Bad });
            }
            Method::Threshold(_) => {}
        }
    }

    fn compare(&mut self, series: usize, channel: Channel, family: Family) {
        self.families.push((channel, family));
        self.tests.push(Test { series, kind: Kind::Compare(self.families.len() - 1) });
    }

    fn ceiling(&mut self, series: usize, rate: Option<f64>) {
        self.tests.extend(rate.and_then(Ceiling::new).map(|c| Test { series, kind: Kind::Ceiling(Box::new(c)) }));
    }
}
