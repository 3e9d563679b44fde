//! The rounds: every proxy of a load once per round, in an order that turns.

use std::time::{Duration, Instant};

use crate::args::Args;
use crate::check::check;
use crate::failure::Failure;
use crate::idle::bytes_per_connection;
use crate::load::{Kind, Load, Measure, Protocol};
use crate::origin::Origin;
use crate::peer::{Instance, Peer, Places};
use crate::process::{interrupted, pause};
use crate::results::{LoadResult, PeerResult, Run};
use crate::stats::Median;
use crate::strace;
use crate::tool::{Extra, Running};

/// From the start of the load to the window, so that connections are open and warm.
const BEFORE: Duration = Duration::from_millis(700);
/// From the end of the window to that of the load.
const AFTER: Duration = Duration::from_millis(300);
/// How long the processors rest between two runs.
const REST: Duration = Duration::from_millis(200);
/// Fewest requests per second for the open load to mean anything.
const RATE_MIN: u64 = 100;
/// Runs to find the rate that saturates a proxy.
const PEAK_RUNS: u32 = 3;
/// Least share of its processor a proxy uses when it is as good as saturated.
const PEAK_BUSY_MIN: f64 = 0.7;

/// A proxy that takes part.
struct Lane {
    result: PeerResult,
    /// Gone when it failed or does not take part.
    entry: Option<(Instance, Extra)>,
}

/// Everything a run needs.
pub struct Bench<'a> {
    /// The command line.
    pub args: &'a Args,
    /// Where things are.
    pub places: &'a Places,
    /// Where requests end.
    pub origin: &'a Origin,
}

// === impl Bench ===

impl Bench<'_> {
    /// Runs one load with all proxies. What fails is in the result.
    ///
    /// # Errors
    /// Only when a signal asks us to stop.
    pub fn load(&self, kind: Kind) -> Result<LoadResult, Failure> {
        let load = kind.load();
        eprintln!("== {} ({})", load.title, serde_json::to_string(&kind).unwrap_or_default().trim_matches('"'));
        let mut lanes: Vec<Lane> = self.args.field().into_iter().map(|peer| self.enter(peer, &load)).collect();
        self.set_rate(&load, &mut lanes);
        if kind == Kind::Idle {
            for lane in &mut lanes {
                self.idle(&load, lane);
            }
        } else {
            for round in 0..self.args.pairs {
                self.round(round, &load, &mut lanes);
            }
            for lane in &mut lanes {
                self.afterwards(&load, lane);
            }
        }
        if interrupted() {
            return Err(Failure("interrupted".into()));
        }
        let mut peers: Vec<PeerResult> = lanes.into_iter().map(|lane| lane.result).collect();
        peers.iter_mut().for_each(PeerResult::summarise);
        let tidegate =
            peers.iter().find(|result| result.peer == Peer::Tidegate).map_or_else(Vec::new, |r| r.runs.clone());
        for result in peers.iter_mut().filter(|result| result.peer != Peer::Tidegate) {
            result.compare(kind, &tidegate);
        }
        Ok(LoadResult { load: kind, title: load.title, measure: load.measure, peers })
    }

    /// Starts a proxy and checks that it does its work.
    fn enter(&self, peer: Peer, load: &Load) -> Lane {
        let mut lane = Lane { result: PeerResult::new(peer), entry: None };
        if let Err(reason) = load.suits(peer) {
            lane.result.not_suited = Some(reason);
            return lane;
        }
        let entered = Instance::start(peer, load.variant, self.places, self.origin).and_then(|mut instance| {
            let checked = check(load, &mut instance, self.places, self.origin)
                .map_err(|failure| Failure(format!("does not do the same work: {failure}")))?;
            let cookie = checked.cookie.filter(|_| load.kind == Kind::Returning);
            Ok((instance, Extra { cookie, rate: None }))
        });
        match entered {
            Ok(entry) => lane.entry = Some(entry),
            Err(failure) => lane.fail(&failure),
        }
        lane
    }

    /// For the open load: half of what `HAProxy` can do at most, for all alike.
    fn set_rate(&self, load: &Load, lanes: &mut [Lane]) {
        if load.kind != Kind::Open {
            return;
        }
        let haproxy = lanes.iter().find(|lane| lane.result.peer == Peer::Haproxy).and_then(|lane| lane.entry.as_ref());
        let peak = match haproxy {
            Some((instance, _)) => self.peak(load, instance),
            None => Err(Failure("HAProxy does not take part, and its peak rate is needed".into())),
        };
        let rate = peak.map(|peak| (peak / 2.0) as u64).and_then(|rate| {
            if rate >= RATE_MIN { Ok(rate) } else { Err(Failure(format!("a peak of only {rate} requests/s"))) }
        });
        match rate {
            Ok(rate) => eprintln!("   {rate} requests/s"),
            Err(ref failure) => eprintln!("   no rate: {failure}"),
        }
        for lane in lanes {
            match (&rate, &mut lane.entry) {
                (Ok(rate), Some((_, extra))) => extra.rate = Some(*rate),
                (Ok(_), None) => {}
                (Err(failure), _) => lane.fail(failure),
            }
        }
    }

    /// Requests per second with which `instance` is saturated: the median of some runs. Load and origin share a processor, and where that
    /// is what gave out first the rest is reckoned from how busy the proxy was.
    fn peak(&self, load: &Load, instance: &Instance) -> Result<f64, Failure> {
        let mut peaks = Vec::new();
        for round in 0..PEAK_RUNS {
            let run = self.run(round, load, instance, &Extra::default())?;
            if run.busy < PEAK_BUSY_MIN {
                let busy = run.busy * 100.0;
                return Err(Failure(format!("its peak was not reached: it was only {busy:.0} % busy")));
            }
            peaks.push(run.requests as f64 / run.seconds / run.busy);
        }
        Median::of(&peaks).map(|peak| peak.median).ok_or_else(|| Failure("no run".into()))
    }

    /// Every proxy once. The order is that of the last round, reversed and turned by one, so that nobody always follows the same.
    fn round(&self, round: u32, load: &Load, lanes: &mut [Lane]) {
        for index in order(round, lanes.len()) {
            let lane = &mut lanes[index];
            let Some((instance, extra)) = &lane.entry else { continue };
            match self.run(round, load, instance, extra) {
                Ok(run) => {
                    eprintln!(
                        "   {:>2} {:<16} {:>9.2} us/request {:>8.0} requests/s {:>4.0} % busy, p50 {:>7.0} us, p99 {:>7.0} us",
                        round + 1,
                        lane.result.peer.title(),
                        run.cpu_micros,
                        run.requests as f64 / run.seconds,
                        run.busy * 100.0,
                        run.p50,
                        run.p99
                    );
                    lane.result.runs.push(run);
                }
                Err(failure) => lane.fail(&Failure(format!("round {}: {failure}", round + 1))),
            }
        }
    }

    /// One run: load on, window, load off.
    fn run(&self, round: u32, load: &Load, instance: &Instance, extra: &Extra) -> Result<Run, Failure> {
        pause(REST)?;
        let window = Duration::from_secs_f64(self.args.seconds);
        let running = Running::start(load, instance, self.places, extra, window + BEFORE + AFTER)?;
        pause(BEFORE)?;
        let (begun, cpu, requests) = (Instant::now(), instance.child.cpu_nanos()?, self.origin.total());
        pause(window)?;
        let (time, cpu) = (begun.elapsed(), instance.child.cpu_nanos()? - cpu);
        let requests = self.origin.total() - requests;
        let found = running.finish()?;
        if load.kind == Kind::Logged {
            let _ = instance.truncate_log();
        }
        if requests == 0 {
            return Err(Failure("the origin answered nothing within the window".into()));
        }
        let cpu_micros = cpu as f64 / 1e3 / requests as f64;
        let value = if load.measure == Measure::P99 { found.p99 } else { cpu_micros };
        let busy = cpu as f64 / time.as_nanos() as f64;
        Ok(Run {
            round,
            value,
            requests,
            seconds: time.as_secs_f64(),
            cpu_micros,
            busy,
            p50: found.p50,
            p99: found.p99,
        })
    }

    /// Memory, and the count of system calls.
    fn afterwards(&self, load: &Load, lane: &mut Lane) {
        let Some((instance, extra)) = &lane.entry else { return };
        match instance.child.memory() {
            Ok(memory) => lane.result.resident = Some(memory.resident),
            Err(failure) => return lane.fail(&failure),
        }
        if self.args.no_strace || interrupted() {
            return;
        }
        match strace::count(load, instance, self.places, self.origin, extra) {
            Ok((calls, by_name)) => (lane.result.calls, lane.result.calls_by_name) = (Some(calls), by_name),
            Err(failure) => lane.result.calls_failure = Some(failure.0),
        }
    }

    fn idle(&self, load: &Load, lane: &mut Lane) {
        let Some((instance, _)) = &lane.entry else { return };
        debug_assert_eq!(load.protocol, Protocol::Plain);
        match bytes_per_connection(load, instance, self.places, self.args.idle) {
            Ok(value) => {
                eprintln!("   {:<16} {value:.0} bytes per idle connection", lane.result.peer.title());
                let none =
                    Run { round: 0, value, requests: 0, seconds: 1.0, cpu_micros: 0.0, busy: 0.0, p50: 0.0, p99: 0.0 };
                lane.result.runs.push(none);
                lane.result.resident = instance.child.memory().ok().map(|memory| memory.resident);
                // Its ten thousand connections are no business of the next.
                lane.entry = None;
            }
            Err(failure) => lane.fail(&failure),
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Leaves the load, and says why.
    fn fail(&mut self, failure: &Failure) {
        if self.result.not_suited.is_none() && self.result.failure.is_none() {
            eprintln!("   FAILED {}: {failure}", self.result.peer.title());
            self.result.failure = Some(failure.0.clone());
        }
        self.entry = None;
    }
}

/// Who runs when in a round: turned by one each round, and every other round backwards, so that two proxies alternate A B, B A.
fn order(round: u32, number: usize) -> Vec<usize> {
    let turn = round as usize / 2 % number.max(1);
    let mut order: Vec<usize> = (0..number).map(|n| (n + turn) % number).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proxy_runs_once_per_round_and_nobody_is_always_first() {
        let rounds: Vec<_> = (0..12).map(|round| order(round, 6)).collect();
        for round in &rounds {
            let mut all = round.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        }
        for proxy in 0..6 {
            assert_eq!(rounds.iter().filter(|round| round[0] == proxy).count(), 2, "{proxy}");
        }
        assert_eq!([order(0, 2), order(1, 2), order(2, 2)], [[0, 1], [1, 0], [1, 0]]);
    }
}
