//! What happens once a second: thresholds for latencies and threshold rules.

use super::Gate;
use super::config::{Measure, Method};
use super::input::{TICKS_PER_SECOND, Tick, TickInput};
use super::latency::Thresholds;
use super::rules::{Before, Sample};
use super::state::{Second, estimates};
use super::watch::ALONE_GRAINS;

impl Gate {
    /// Collects what belongs to the second, and ends it when the next one has begun.
    pub(super) fn collect_second(&mut self, now: Tick, input: &TickInput<'_>) {
        let rest = &mut self.state.second.rest;
        rest.succeeded[0] += u64::from(input.succeeded[0]);
        rest.succeeded[1] += u64::from(input.succeeded[1]);
        rest.share[1] += u64::from(input.weight.grains());
        rest.share[0] += u64::from(10_000 - input.weight.grains());
        self.state.second.ticks += 1;
        for (sketch, latencies) in rest.latencies.iter_mut().zip([input.latencies.stable, input.latencies.candidate]) {
            for (bucket, count) in latencies {
                sketch.add(*bucket, u64::from(*count));
            }
        }
        if !input.latencies.stable.is_empty() {
            let seconds = (now / TICKS_PER_SECOND).saturating_sub(self.state.window_at);
            self.state.window_at = now / TICKS_PER_SECOND;
            self.state.window.add(input.latencies.stable, u32::try_from(seconds).unwrap_or(u32::MAX));
        }
        // The last tick of a second ends it.
        let number = (now + 1) / TICKS_PER_SECOND;
        if number > self.state.second.number {
            self.end_second(now, number);
        }
    }

    fn end_second(&mut self, now: Tick, number: Tick) {
        let ended = std::mem::replace(&mut self.state.second, Second::new(&self.layout, number));
        // With nobody beside the candidate the threshold stays what its watch was built for.
        if self.state.weight <= ALONE_GRAINS {
            self.state.estimates = estimates(&self.layout, &self.state.window);
        }
        self.set_thresholds(now);
        for (index, metric) in self.config.metrics.iter().enumerate() {
            let Method::Threshold(rule) = &metric.method else { continue };
            let series = self.layout.series().iter().position(|series| series.metric == index);
            let sample = sample_of(&ended, self.layout.series(), series);
            let before = Before::new(&self.state.baseline, &self.layout, series);
            debug_assert_eq!(series.is_none(), metric.measure == Measure::Latency);
            self.state.breaches[index] = self.state.rules[index].second(rule, sample, &before);
        }
    }

    /// Derives the thresholds from the estimates in force.
    pub(super) fn set_thresholds(&mut self, now: Tick) {
        let warm = now >= self.state.warm_at;
        let thresholds = Thresholds::new(&self.config, &self.layout, &self.state.estimates, warm);
        let reach = Tick::from(self.config.reach) + TICKS_PER_SECOND;
        self.state.past.change(now, thresholds, reach);
    }
}

/// The second as one metric sees it; without a series it is a latency, exposed by being taken.
fn sample_of(second: &Second, layout: &[super::layout::Series], series: Option<usize>) -> Sample {
    let ticks = second.ticks.max(1);
    let share = second.rest.share.map(|grains| grains / ticks);
    let latencies = &second.rest.latencies;
    match series {
        Some(series) => Sample {
            exposed: second.exposed[layout[series].channel.index()],
            events: second.events[series],
            share,
            succeeded: second.rest.succeeded,
            ..Sample::default()
        },
        None => Sample {
            exposed: [latencies[0].total(), latencies[1].total()],
            events: [0; 2],
            latencies: latencies.clone(),
            share,
            succeeded: second.rest.succeeded,
        },
    }
}
