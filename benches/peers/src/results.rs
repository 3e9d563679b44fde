//! The figures as data: what goes into `results.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::{Goal, Kind, Measure};
use crate::peer::Peer;
use crate::stats::Median;

/// Everything about one `make bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The day, in UTC.
    pub date: String,
    /// The command line.
    pub command: String,
    /// Processors and kernel.
    pub machine: String,
    /// Versions of proxies and tools.
    pub versions: BTreeMap<String, String>,
    /// How the interval of a median is made.
    pub interval: &'static str,
    /// Rounds per load.
    pub pairs: u32,
    /// Seconds measured per run.
    pub seconds: f64,
    /// By load, in the order of the report.
    pub loads: Vec<LoadResult>,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadResult {
    /// Its name on the command line.
    pub load: Kind,
    /// Its name in tables.
    pub title: &'static str,
    /// What is compared.
    pub measure: Measure,
    /// By proxy, Tidegate first.
    pub peers: Vec<PeerResult>,
}

/// One proxy under one load.
#[derive(Clone, Debug, Serialize)]
pub struct PeerResult {
    /// Which one.
    pub peer: Peer,
    /// Why figures are missing, or not to be trusted.
    pub failure: Option<String>,
    /// Why it does not take part; no failure.
    pub not_suited: Option<&'static str>,
    /// What is compared, in the unit of the measure.
    pub value: Option<Median>,
    /// Tidegate's value over this one's, by pairs.
    pub ratio: Option<Median>,
    /// What is wanted of the ratio.
    pub goal: Option<Goal>,
    /// Whether it is so.
    pub reached: Option<bool>,
    /// Requests per second.
    pub rate: Option<Median>,
    /// Median latency, microseconds.
    pub p50: Option<Median>,
    /// 99th percentile of the latency, microseconds.
    pub p99: Option<Median>,
    /// Resident memory after the last run, bytes.
    pub resident: Option<u64>,
    /// System calls per request.
    pub calls: Option<f64>,
    /// The same by name.
    pub calls_by_name: BTreeMap<String, f64>,
    /// Why there is no count of system calls.
    pub calls_failure: Option<String>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    /// The round it belongs to.
    pub round: u32,
    /// What is compared, in the unit of the measure.
    pub value: f64,
    /// Requests answered by the origin in the window.
    pub requests: u64,
    /// Length of the window, seconds.
    pub seconds: f64,
    /// CPU of the proxy per request, microseconds.
    pub cpu_micros: f64,
    /// Share of its processor that the proxy used.
    pub busy: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99: f64,
}

// === impl PeerResult ===

impl PeerResult {
    /// Without figures yet.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            failure: None,
            not_suited: None,
            value: None,
            ratio: None,
            goal: None,
            reached: None,
            rate: None,
            p50: None,
            p99: None,
            resident: None,
            calls: None,
            calls_by_name: BTreeMap::new(),
            calls_failure: None,
            runs: Vec::new(),
        }
    }

    /// Makes medians of the runs.
    pub fn summarise(&mut self) {
        let of = |pick: fn(&Run) -> f64| Median::of(&self.runs.iter().map(pick).collect::<Vec<_>>());
        (self.value, self.p50, self.p99) = (of(|run| run.value), of(|run| run.p50), of(|run| run.p99));
        self.rate = of(|run| run.requests as f64 / run.seconds);
    }

    /// Compares with Tidegate's runs of the same rounds.
    pub fn compare(&mut self, kind: Kind, tidegate: &[Run]) {
        let pairs = self.runs.iter().filter_map(|run| Some((tidegate.iter().find(|t| t.round == run.round)?, run)));
        let ratios: Vec<f64> = pairs.map(|(tidegate, run)| tidegate.value / run.value).collect();
        self.ratio = Median::of(&ratios);
        self.goal = kind.goal(self.peer);
        self.reached = match (self.goal, self.ratio) {
            (Some(goal), Some(ratio)) => {
                let high = goal.high.is_none_or(|most| ratio.high.is_some_and(|high| high <= most));
                Some(ratio.median <= goal.median && high)
            }
            _ => None,
        };
    }
}

impl LoadResult {
    /// Tidegate's own figures.
    #[must_use]
    pub fn tidegate(&self) -> Option<&PeerResult> {
        self.peers.iter().find(|result| result.peer == Peer::Tidegate)
    }
}

impl Results {
    /// What failed: load, proxy, reason.
    pub fn failures(&self) -> impl Iterator<Item = (&LoadResult, &PeerResult, &str)> {
        let of = |load| move |peer| (load, peer);
        let all = self.loads.iter().flat_map(move |load| load.peers.iter().map(of(load)));
        all.filter_map(|(load, peer): (&LoadResult, &PeerResult)| Some((load, peer, peer.failure.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_made_within_rounds_and_goals_judged() {
        let run = |round, value| Run {
            round,
            value,
            requests: 1,
            seconds: 1.0,
            cpu_micros: value,
            busy: 1.0,
            p50: 1.0,
            p99: 1.0,
        };
        let tidegate: Vec<Run> = (0..9).map(|round| run(round, 8.0)).collect();
        let mut haproxy = PeerResult::new(Peer::Haproxy);
        haproxy.runs = (3..9).map(|round| run(round, 10.0)).collect();
        haproxy.compare(Kind::Small, &tidegate);
        assert_eq!(haproxy.ratio.map(|ratio| (ratio.median, ratio.n)), Some((0.8, 6)));
        assert_eq!(haproxy.reached, Some(true));
        haproxy.runs.truncate(3);
        haproxy.compare(Kind::Small, &tidegate);
        assert_eq!(haproxy.reached, Some(false), "too few for an interval");
    }
}
