//! Rollouts by seed: healthy ones, broken ones, outages and slowness of both versions, silence; at any moment, with and without a person in the way.
//! What has to hold is looked at after every tick. `TIDEGATE_JOINED_SEED=n` plays one seed again and tells its story.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tidegate::core::gate::Verdict;
use tidegate::core::roles::Verb;
use tidegate::core::rollout::{Stage, TRIAL_ABOVE, TRIAL_WEIGHT};
use tidegate::core::weight::Weight;

use super::super::world::at_most;
use super::traffic::{Conduct, Weather};
use super::{Joined, Sight};
use crate::harness::soak;

/// Seeds of a run, and of a long one.
const SEEDS: u64 = 504;
const SEEDS_SOAK: u64 = 12_600;
/// Shorter than the default plan, so that there can be more of them.
const PLAN: &str = "steps = [{ weight = \"5%\", hold = \"15s\" }, { weight = \"25%\", hold = \"15s\" }, \
                    { weight = \"100%\", hold = \"30s\" }]\n[services.web.gate]\nmax_extend = \"30s\"";
/// Seconds after which a rollout that still runs is left alone.
const PATIENCE: f64 = 420.0;
/// A shared outage lasts for so many seconds; a person looks at it for as long.
const OUTAGE: f64 = 20.0;
/// What a large fault may take until the traffic is back, in seconds: without a warm-up, and with one.
const NOTICED: f64 = 12.0;
const NOTICED_WARM: f64 = 65.0;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    /// The candidate fails this share.
    Errors(f64),
    /// The candidate answers everybody with a 4xx.
    Refuses,
    /// The candidate takes five times as long.
    Slow,
    /// The candidate never answers.
    Hangs,
    /// Both fail half of their requests for a while.
    Outage,
    /// Both take five times as long for a while.
    Slowness,
    /// Nobody sends requests any more.
    Silence,
}

const FAULTS: [Fault; 10] = [
    Fault::Nothing,
    Fault::Errors(1.0),
    Fault::Errors(0.5),
    Fault::Outage,
    Fault::Slowness,
    Fault::Silence,
    Fault::Refuses,
    Fault::Slow,
    Fault::Hangs,
    Fault::Nothing,
];

/// One rollout, as the seed has it.
#[derive(Clone, Copy, Debug)]
struct Story {
    seed: u64,
    fault: Fault,
    /// It begins when the candidate has this weight, ...
    from: Weight,
    /// ...and so many seconds later.
    after: f64,
    /// Requests per second.
    rps: f64,
    /// Ticks between two looks.
    stride: u64,
    /// Somebody pauses it at that moment, and resumes it a while later.
    person: bool,
}

/// What became of it.
#[derive(Debug)]
struct Told {
    end: Sight,
    /// Condemned, though nothing was wrong with the candidate.
    falsely: bool,
    /// Seconds from the first request that met the fault to the end.
    took: f64,
}

// === impl Story ===

impl Story {
    fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9));
        let fault = FAULTS[seed as usize % FAULTS.len()];
        let moments = [Weight::ZERO, Weight::of_percent(5), Weight::of_percent(25), Weight::FULL];
        let from = moments[seed as usize / FAULTS.len() % moments.len()];
        Self {
            seed,
            fault,
            from,
            after: if from == Weight::ZERO { 0.0 } else { rng.f64() * 8.0 },
            rps: [200.0, 500.0, 1_000.0][rng.usize(0..3)],
            stride: rng.u64(2..=4),
            person: rng.u8(0..3) == 0,
        }
    }

    fn is_candidates_fault(&self) -> bool {
        !matches!(self.fault, Fault::Nothing | Fault::Outage | Fault::Slowness | Fault::Silence)
    }

    /// So many seconds after it began.
    fn weather(&self, since: f64) -> Weather {
        let fair = Weather::fair(self.rps);
        let candidate = |candidate| Weather { candidate, ..fair };
        let well = Conduct::WELL;
        match self.fault {
            Fault::Errors(errors) => candidate(Conduct { errors, refused: 0.0, ..well }),
            Fault::Refuses => candidate(Conduct { errors: 0.0, refused: 1.0, ..well }),
            Fault::Slow => candidate(Conduct { slow: 5.0, ..well }),
            Fault::Hangs => candidate(Conduct { hangs: true, ..well }),
            Fault::Outage if since < OUTAGE => {
                let broken = Conduct { errors: 0.5, ..well };
                Weather { candidate: broken, stable: broken, ..fair }
            }
            Fault::Slowness if since < OUTAGE => {
                let slow = Conduct { slow: 5.0, ..well };
                Weather { candidate: slow, stable: slow, ..fair }
            }
            Fault::Nothing | Fault::Outage | Fault::Slowness => fair,
            Fault::Silence => Weather::fair(0.0),
        }
    }

    fn play(&self) -> Result<Told, String> {
        let fair = Weather::fair(self.rps);
        let mut joined = Joined::new(PLAN, fair, self.seed);
        let (mut reached, mut fault, mut resumed) = (None, None, !self.person);
        let mut suffers = None;
        while !joined.is_over() && joined.time() < PATIENCE {
            if reached.is_none() && joined.weight == self.from {
                reached = Some(joined.time());
            }
            if fault.is_none() && reached.is_some_and(|at| joined.time() >= at + self.after) {
                fault = Some(joined.time());
                if self.person {
                    joined.ask(Verb::Pause);
                }
            }
            let since = fault.map(|at| joined.time() - at);
            if !resumed && since.is_some_and(|since| since >= OUTAGE) {
                resumed = true;
                if joined.sight().rollout.pause.is_some() {
                    joined.ask(Verb::Resume);
                }
            }
            if suffers.is_none() && fault.is_some() && joined.weight > Weight::ZERO {
                suffers = Some(joined.time());
            }
            let before = joined.sight();
            let verdict = joined.tick(since.map_or(fair, |since| self.weather(since)), self.stride);
            holds(&before, &joined, verdict.as_ref(), self.person && !resumed && fault.is_some())
                .map_err(|broken| format!("{broken} at {:.2} s", joined.time()))?;
        }
        let end = joined.sight();
        let falsely = end.phase == "aborted" && !self.is_candidates_fault();
        let took = suffers.map_or(f64::INFINITY, |at| joined.time() - at);
        let told = Told { end, falsely, took };
        if falsely { Ok(told) } else { self.ends_well(&joined, &told).map(|()| told) }
            .map_err(|broken| format!("{broken}; {:?}", joined.seen))
    }

    fn ends_well(&self, joined: &Joined, told: &Told) -> Result<(), String> {
        let (phase, reason) = (told.end.phase, told.end.reason.as_deref());
        let full = self.from == Weight::FULL;
        let well = match self.fault {
            Fault::Silence if full => phase == "succeeded" || reason == Some("low_traffic"),
            // Nobody answers twice: what the person's pause left is a step nobody tried.
            Fault::Silence => phase == "paused" && reason == Some("low_traffic"),
            Fault::Outage | Fault::Slowness if full => {
                phase == "succeeded" && joined.was(if self.person { "paused(manual) at 50%" } else { "trial at 50%" })
            }
            Fault::Nothing | Fault::Slowness => phase == "succeeded",
            Fault::Outage => phase == "succeeded" && (self.person || joined.was("paused(stable_degraded)")),
            Fault::Slow => phase == "aborted" && told.took <= NOTICED_WARM,
            Fault::Hangs | Fault::Refuses | Fault::Errors(_) => phase == "aborted" && told.took <= NOTICED,
        };
        let trial =
            !full || !self.is_candidates_fault() || joined.seen.iter().any(|(_, said)| said.ends_with("at 50%"));
        if well && trial { Ok(()) } else { Err(format!("{phase}({reason:?}) {:.1} s after it", told.took)) }
    }
}

/// What holds after every tick.
fn holds(before: &Sight, joined: &Joined, verdict: Option<&Verdict>, person: bool) -> Result<(), String> {
    let after = joined.sight();
    let Some(verdict) = verdict else { return Err("a rollout nobody watches".to_owned()) };
    let harmful = verdict.outcome.is_harmful();
    let new = joined.counts.requests > before.rollout.base.requests;
    let promoted = after.phase == "succeeded";
    let rules = [
        ("harm aborts, whatever the state", harmful == (after.phase == "aborted")),
        ("what is aborted has nothing", after.phase != "aborted" || after.weight == Weight::ZERO),
        ("it rises on data only", after.weight <= before.weight || before.weight == Weight::ZERO || new),
        ("a promotion is one of data", !promoted || new),
        ("a person's pause does not rise, and does not end by itself", !person || after.weight <= before.weight),
        ("a person's pause ends by harm only", !person || after.rollout.pause.is_some() || harmful),
        (
            "it falls by harm and trials only",
            after.weight >= before.weight || harmful || promoted || is_trial(before, &after),
        ),
        ("an alarm is a trial", harmful || !verdict.trial || after.weight <= TRIAL_ABOVE),
        ("the data plane has what is true", joined.weight == after.weight),
    ];
    match rules.iter().find(|(_, held)| !held) {
        Some((rule, _)) => Err(format!("{rule}: {before:?} -> {after:?}, {verdict:?}")),
        None => Ok(()),
    }
}

fn is_trial(before: &Sight, after: &Sight) -> bool {
    before.weight > TRIAL_ABOVE && after.weight == TRIAL_WEIGHT && matches!(after.rollout.stage, Stage::Trial { .. })
}

#[test]
fn rollouts_by_the_gate_itself_end_as_they_should() {
    if let Some(seed) = std::env::var("TIDEGATE_JOINED_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{:?}\n{:?}", Story::of(seed), Story::of(seed).play());
        return;
    }
    let seeds = if soak() { SEEDS_SOAK } else { SEEDS };
    let (next, told) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let story = Story::of(seed);
            let played = story.play();
            told.lock().unwrap_or_else(PoisonError::into_inner).push((story, played));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken: Vec<_> = told.iter().filter_map(|(story, played)| Some((story, played.as_ref().err()?))).collect();
    if let Some((story, why)) = broken.first() {
        panic!("{} of {seeds} seeds; TIDEGATE_JOINED_SEED={}: {story:?}\n{why}", broken.len(), story.seed);
    }
    let played: Vec<_> = told.iter().filter_map(|(story, played)| Some((story, played.as_ref().ok()?))).collect();
    let innocent = played.iter().filter(|(story, _)| !story.is_candidates_fault()).count();
    let falsely: Vec<u64> = played.iter().filter(|(_, told)| told.falsely).map(|(story, _)| story.seed).collect();
    assert!(falsely.len() as u64 <= at_most(innocent as u64), "condemned falsely: seeds {falsely:?} of {innocent}");
    for fault in &FAULTS[..9] {
        let mut took: Vec<f64> =
            played.iter().filter(|(story, _)| story.fault == *fault).map(|(_, told)| told.took).collect();
        took.sort_by(f64::total_cmp);
        println!("{fault:?}: {} rollouts, over after {:.1} s (median)", took.len(), took[took.len() / 2]);
    }
    println!("condemned falsely: {} of {innocent}", falsely.len());
}
