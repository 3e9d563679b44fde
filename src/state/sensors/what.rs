//! What workers count for one gate: its layout as masks of series, so that no request looks anything up.

use crate::core::gate::{Event, GateConfig, Layout, Measure, Method, Unit};

/// Derived once from the configuration of a gate.
#[derive(Debug)]
pub struct What {
    layout: Layout,
    /// Series that count what the upstream did wrong.
    pub(super) bad: u16,
    /// Series that count responses of the 4xx class without 429 and 499.
    pub(super) refused: u16,
    /// Series that count requests that ended well.
    pub(super) good: u16,
    /// Series of latencies above a threshold, ascending.
    pub(super) slow: Box<[u8]>,
    /// The same as a mask.
    pub(super) slow_mask: u16,
    /// The place in `slow` of the threshold of the highest quantile.
    pub(super) highest: Option<usize>,
    /// A bad event stands for its session.
    pub(super) by_session: bool,
    /// A rule reads the candidate's latencies.
    pub(super) timed_candidate: bool,
}

// === impl What ===

impl What {
    /// What a gate with this configuration counts.
    #[must_use]
    pub fn new(config: &GateConfig) -> Self {
        let layout = Layout::new(config);
        let mask = |wanted: &dyn Fn(Measure, Event) -> bool| {
            let series = layout.series().iter().enumerate().filter(|(_, series)| wanted(series.measure, series.event));
            series.fold(0, |mask, (index, _)| mask | 1 << index)
        };
        let slow: Box<[u8]> = layout.slow().filter_map(|series| u8::try_from(series).ok()).collect();
        let quantile = |series: u8| match layout.series()[usize::from(series)].event {
            Event::Slower(quantile) => Some(quantile),
            _ => None,
        };
        let quantiles = slow.iter().enumerate().filter_map(|(place, series)| Some((place, quantile(*series)?)));
        let rule = |method: &Method| matches!(method, Method::Threshold(_));
        Self {
            bad: mask(&|measure, event| measure == Measure::Errors && event == Event::Bad),
            refused: mask(&|measure, event| measure == Measure::ClientErrors && event == Event::Bad),
            good: mask(&|measure, event| {
                matches!(measure, Measure::Errors | Measure::ClientErrors) && event == Event::Good
            }),
            slow_mask: slow.iter().fold(0, |mask, series| mask | 1 << series),
            highest: quantiles.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place),
            slow,
            by_session: config.unit == Unit::Session,
            timed_candidate: config.metrics.iter().any(|m| m.measure == Measure::Latency && rule(&m.method)),
            layout,
        }
    }

    /// The layout the gate has as well.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
