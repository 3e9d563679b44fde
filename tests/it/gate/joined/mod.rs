//! The gate joined to the machine it speaks to: simulated requests -> `core::gate` -> facts -> `core::roles` -> the weight the next
//! requests are split by. Virtual time; what the shell does in between is done here without a disk.

mod little;
mod seeds;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::core::gate::{Gate, History, Latencies, Layout, Outcome, Reason, Tick, TickInput, Verdict};
use tidegate::core::roles::{Ask, Context, Effect, First, GateWork, Roles, Verb};
use tidegate::core::rollout::{self, Counts, Event, Facts, Rollout};
use tidegate::core::service::Service;
use tidegate::core::weight::Weight;

use super::world::BEGIN;
use traffic::{Indices, Traffic, Weather};

/// A tick, in milliseconds.
const TICK_MS: u64 = 50;

/// A service with a rollout, and everybody who sends it requests.
struct Joined {
    wanted: Arc<Service>,
    roles: Roles,
    history: History,
    indices: Indices,
    gate: Option<Gate>,
    traffic: Traffic,
    /// Steps the gate was told of.
    step: u32,
    /// Candidate requests of the step.
    in_step: u32,
    counts: Counts,
    /// As the data plane has it.
    weight: Weight,
    now: Tick,
    /// What it looked like from when on, in seconds.
    seen: Vec<(f64, String)>,
}

/// What is true of the rollout at a moment.
#[derive(Clone, Debug)]
struct Sight {
    phase: &'static str,
    reason: Option<String>,
    weight: Weight,
    rollout: Rollout,
}

// === impl Joined ===

impl Joined {
    /// A rollout that begins, under `settings`: keys of `[services.web.rollout]`, then tables; stable has been as in `weather`.
    fn new(settings: &str, weather: Weather, seed: u64) -> Self {
        let text = format!(
            "[[listeners]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n[[routes]]\nservice = \"web\"\n\
             [services.web.stable]\nversion = \"v1\"\nendpoints = [\"10.0.0.1:80\"]\n\
             [services.web.candidate]\nversion = \"v2\"\nendpoints = [\"10.0.0.2:80\"]\n\
             [services.web.rollout]\n{settings}\n"
        );
        let parsed = tidegate::config::parse(&text, Path::new("joined.toml"), &|_| None).expect("a sound file");
        let wanted = Arc::clone(&parsed.services[0]);
        let layout = Layout::new(&wanted.rollout.terms.gate);
        let context = Context { now: Duration::ZERO, wanted: &wanted, next_rollout: 1 };
        let begun = Roles::first(First::NewService, None, &context).expect("a file");
        let mut joined = Self {
            history: traffic::past(&layout, weather),
            indices: Indices::of(&layout),
            gate: None,
            traffic: Traffic::new(seed),
            step: 0,
            in_step: 0,
            counts: Counts::default(),
            weight: Weight::ZERO,
            now: BEGIN,
            seen: Vec::new(),
            roles: begun.roles,
            wanted,
        };
        joined.carry_out(&begun.effects);
        joined
    }

    /// Seconds since it began.
    fn time(&self) -> f64 {
        (self.now - BEGIN) as f64 * TICK_MS as f64 / 1_000.0
    }

    fn is_over(&self) -> bool {
        self.roles.active().is_none()
    }

    fn sight(&self) -> Sight {
        let rollout = self.roles.current.as_ref().expect("it is remembered").rollout.clone();
        let reason = rollout.reason().map(str::to_owned);
        Sight { phase: rollout.phase(), reason, weight: self.roles.weight(), rollout }
    }

    fn ask(&mut self, verb: Verb) {
        let context = Context { now: Duration::ZERO, wanted: &self.wanted, next_rollout: 2 };
        let outcome = self.roles.obey(&Ask::of(verb, "sim"), &context).expect("allowed");
        self.roles = outcome.roles;
        self.carry_out(&outcome.effects);
    }

    /// Lets `ticks` pass in which requests come as in `weather`; what the gate said comes back.
    fn tick(&mut self, weather: Weather, ticks: u64) -> Option<Verdict> {
        let second = self.now / 20;
        self.now += ticks;
        let verdict = self.judge(weather, ticks, self.now / 20 > second)?;
        let facts = self.facts(&verdict);
        let effects = self.roles.on(Event::Tick(facts), Duration::from_millis(ticks * TICK_MS), Duration::ZERO);
        self.carry_out(&effects);
        Some(verdict)
    }

    /// Feeds the gate.
    fn judge(&mut self, weather: Weather, ticks: u64, second: bool) -> Option<Verdict> {
        let current = self.roles.current.as_ref()?;
        let hold = current.rollout.hold(&current.terms.plan);
        let gate = self.gate.as_mut()?;
        let share = self.weight.fraction();
        let counted = self.traffic.draw(weather, share, ticks, self.now, (&self.indices, gate));
        let [begun, bad, good] = counted.candidate;
        self.counts.requests += u64::from(begun);
        self.counts.bad += u64::from(bad);
        self.counts.good += u64::from(good);
        self.in_step += begun;
        let stable: &[(u16, u32)] = if second { &self.traffic.latencies } else { &[] };
        let verdict = gate.tick(&TickInput {
            step: self.step,
            hold: u32::try_from(hold.as_millis() / u128::from(TICK_MS)).expect("a short hold"),
            exposures: &counted.exposures,
            events: &counted.events,
            in_flight: &counted.in_flight,
            succeeded: counted.succeeded,
            // Every request comes from somebody else.
            sessions: self.in_step,
            latencies: Latencies { stable, candidate: &[] },
            ..TickInput::quiet(self.now, self.weight)
        });
        if second {
            self.traffic.latencies.clear();
        }
        Some(verdict)
    }

    /// What the shell makes of a verdict.
    fn facts(&self, verdict: &Verdict) -> Facts {
        let says = match verdict.outcome {
            Outcome::Harmful(reason) => rollout::Verdict::Harmful { metric: self.metric(reason) },
            Outcome::Clean | Outcome::Inconclusive if verdict.paused.gate_error => rollout::Verdict::Error,
            Outcome::Clean | Outcome::Inconclusive => rollout::Verdict::Open,
        };
        Facts {
            ready: true,
            counts: self.counts,
            verdict: says,
            alarm: verdict.trial,
            stable_degraded: verdict.paused.stable_degraded,
            sample_ratio: verdict.sample_ratio,
            endpoint: verdict.paused.endpoint.is_some(),
        }
    }

    fn metric(&self, reason: Reason) -> String {
        let report = self.gate.as_ref().map(Gate::report);
        let found = report.and_then(|report| match reason {
            Reason::Test(test) => report.tests.get(test).map(|test| test.metric.clone()),
            Reason::Rule { .. } => None,
        });
        found.expect("the name of a metric")
    }

    fn carry_out(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Publish => self.weight = self.roles.weight(),
                Effect::Gate(GateWork::Begin(_)) => {
                    let config = self.roles.current.as_ref().expect("it began").terms.gate.clone();
                    self.gate = Some(Gate::new(config, &self.history, self.now + 1).expect("a sound configuration"));
                }
                Effect::Gate(GateWork::Step(_)) => {
                    self.step += 1;
                    self.in_step = 0;
                }
                Effect::Gate(GateWork::Report | GateWork::End) => self.gate = None,
                _ => {}
            }
        }
        let Sight { phase, reason, weight, .. } = self.sight();
        let reason = reason.map(|reason| format!("({reason})")).unwrap_or_default();
        let said = format!("{phase}{reason} at {weight}");
        if self.seen.last().is_none_or(|(_, last)| *last != said) {
            self.seen.push((self.time(), said));
        }
    }

    /// Whether it ever looked like this.
    fn was(&self, said: &str) -> bool {
        self.seen.iter().any(|(_, seen)| seen.starts_with(said))
    }
}
