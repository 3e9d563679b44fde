//! Roles: verbs one by one; the table of the file and its invariants are beside.

mod course;
mod force;
mod invariants;
mod table;

use std::time::Duration;

use super::*;
use crate::core::endpoint::Endpoint;
use crate::core::rollout::{AbortReason, Counts, Event, Facts, PauseReason, Verdict};
use crate::core::service::{Affinity, AffinityCookie, KeySource, OnIncrease, SaltMode, SameSite, Upstream};

const SECOND: Duration = Duration::from_secs(1);
/// A rollout begins with what was asked.
const BEGINS: bool = true;
/// What was asked is so, and no rollout begins with it.
const STANDS: bool = false;

fn version(text: &str) -> Version {
    Version::new(text).expect("a version")
}

/// A pool written as `VERSION[@DIGEST][=PORT,PORT]`.
fn pool(text: &str) -> Arc<Pool> {
    let (text, ports) = text.split_once('=').unwrap_or((text, "80"));
    let (name, digest) = text.split_once('@').map_or((text, None), |(v, d)| (v, Some(d.to_owned())));
    let endpoint =
        |port: &str| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], port.parse().expect("a port"))));
    Arc::new(Pool::fixed(version(name), digest, ports.split(',').map(endpoint).collect()))
}

/// A file with these pools.
fn file(stable: &str, candidate: &str) -> Service {
    Service {
        name: Name::new("web").expect("a name"),
        stable: pool(stable),
        candidate: (!candidate.is_empty()).then(|| pool(candidate)),
        upstream: Upstream::in_seconds(),
        health: Arc::default(),
        outlier: crate::core::outlier::OutlierRules::default(),
        force: None,
        affinity: Affinity {
            key: vec![KeySource::OwnCookie],
            cookie: AffinityCookie { name: "tidegate_web".into(), max_age: SECOND, same_site: SameSite::Lax },
            salt: SaltMode::Rollout,
            on_increase: OnIncrease::Move,
            secret: None,
        },
        rollout: Arc::default(),
    }
}

fn manual(mut service: Service) -> Service {
    Arc::make_mut(&mut service.rollout).start = super::super::rollout::wanted::Start::Manual;
    service
}

/// A service over time, and the effects of what happened last.
struct Run {
    roles: Roles,
    file: Service,
    next: u64,
    now: Duration,
    effects: Vec<Effect>,
    counts: Counts,
}

impl Run {
    /// A service that runs with only a stable.
    fn stable(stable: &str) -> Self {
        Self::first(First::NewService, file(stable, ""))
    }

    fn first(first: First, file: Service) -> Self {
        let outcome = Roles::first(first, None, &Context { now: SECOND, wanted: &file, next_rollout: 1 });
        let Outcome { roles, effects, .. } = outcome.expect("a file");
        Self { roles, file, next: 2, now: SECOND, effects, counts: Counts::default() }
    }

    fn take(&mut self, outcome: Outcome) -> Vec<String> {
        self.next += u64::from(outcome.began.is_some());
        (self.roles, self.effects) = (outcome.roles, outcome.effects);
        outcome.changes
    }

    fn reload(&mut self, file: Service) -> Result<Vec<String>, Vec<Reason>> {
        let outcome = self.roles.file(&Context { now: self.now, wanted: &file, next_rollout: self.next })?;
        self.file = file;
        Ok(self.take(outcome))
    }

    /// The service leaves the file, and comes back in this one.
    fn leave_for(&mut self, file: Service) -> Result<Vec<String>, Vec<Reason>> {
        let memory = Memory::of(&self.roles.removed(self.now).roles, self.now);
        let stored = serde_json::to_vec(&memory).expect("stored");
        let memory: Memory = serde_json::from_slice(&stored).expect("read");
        let context = Context { now: self.now, wanted: &file, next_rollout: self.next };
        let outcome = Roles::first(First::NewService, Some(&memory), &context)?;
        self.file = file;
        Ok(self.take(outcome))
    }

    fn boot(&mut self, file: Service) -> Result<Vec<String>, Vec<Reason>> {
        let context = Context { now: self.now, wanted: &file, next_rollout: self.next };
        let stored = serde_json::to_vec(&self.roles).expect("stored");
        let stored: Roles = serde_json::from_slice(&stored).expect("read");
        assert_eq!(stored, self.roles);
        let outcome = stored.boot(&context, self.counts)?;
        self.file = file;
        Ok(self.take(outcome))
    }

    fn ask(&mut self, ask: &Ask) -> Result<bool, Refused> {
        let context = Context { now: self.now, wanted: &self.file, next_rollout: self.next };
        let outcome = self.roles.obey(ask, &context)?;
        let begins = outcome.began.is_some();
        self.take(outcome);
        Ok(begins)
    }

    fn verb(&mut self, verb: Verb) -> Result<bool, Refused> {
        self.ask(&asking(verb))
    }

    fn tick_with(&mut self, passed: Duration, verdict: Verdict) {
        self.now += passed;
        self.counts.requests += 1_000;
        self.counts.good += 1_000;
        let facts = Facts {
            ready: true,
            counts: self.counts,
            verdict,
            alarm: false,
            stable_degraded: false,
            sample_ratio: false,
            endpoint: false,
        };
        self.effects = self.roles.on(Event::Tick(facts), passed, self.now);
    }

    fn tick(&mut self, seconds: u32) {
        self.tick_with(seconds * SECOND, Verdict::Open);
    }

    fn harm(&mut self) {
        self.tick_with(SECOND, Verdict::Harmful { metric: "error-rate".into() });
    }

    fn promote(&mut self) {
        self.ask(&reasoned(Verb::Promote { full: true, force: true })).expect("promoted");
    }

    fn phase(&self) -> &'static str {
        self.roles.current.as_ref().map_or("idle", |current| current.rollout.phase())
    }

    fn runs(&self) -> (&str, Option<&str>, u16) {
        let candidate = self.roles.candidate().map(|pool| pool.version.as_str());
        (self.roles.stable.version.as_str(), candidate, self.roles.weight().grains() / 100)
    }

    fn difference(&self) -> String {
        self.roles.differences(&self.file).join("; ")
    }
}

fn asking(verb: Verb) -> Ask {
    Ask::of(verb, "ci")
}

fn reasoned(verb: Verb) -> Ask {
    Ask { reason: Some("the database was down".into()), ..asking(verb) }
}

fn start(text: &str) -> Verb {
    let pool = pool(text);
    let endpoints = if text.contains('=') { pool.declared.clone() } else { Vec::new() };
    let (version, digest) = (pool.version.clone(), pool.digest.clone());
    Verb::Start(StartWith { version, digest, endpoints, terms: None, supersede: false })
}

fn position(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(wanted).unwrap_or_else(|| panic!("not among {effects:?}"))
}

#[test]
fn start_says_what_it_did_and_can_be_repeated() {
    let mut run = Run::stable("v1");
    assert_eq!(run.verb(start("v2")), Err(Refused::NoEndpoints(version("v2"))));
    assert_eq!(run.verb(start("v2=90")), Ok(BEGINS));
    assert_eq!(run.verb(start("v2=90")), Ok(STANDS));
    assert_eq!((run.effects.len(), run.next), (0, 3), "nothing is done twice");
    assert_eq!(run.verb(start("v3=91")), Err(Refused::Runs(version("v2"))));
    let Verb::Start(with) = start("v3=91") else { unreachable!() };
    assert_eq!(run.verb(Verb::Start(StartWith { supersede: true, ..with })), Ok(BEGINS));
    assert_eq!(run.runs(), ("v1", Some("v3"), 0));
    assert_eq!(run.roles.history[0].end, End::Superseded);
    assert_eq!(run.verb(start("v1")), Err(Refused::Runs(version("v3"))));
}

#[test]
fn an_abort_closes_and_publishes_before_anything_else_and_quarantines() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
    assert_eq!(run.verb(Verb::Abort), Ok(STANDS));
    assert_eq!(run.effects[..2], [Effect::Close, Effect::Publish]);
    assert!(matches!(&run.effects[2], Effect::Record(note) if note.verb == "abort" && note.actor == "ci"));
    assert!(run.roles.running().aborted);
    assert_eq!(run.verb(Verb::Abort), Ok(STANDS));
    assert!(run.effects.is_empty());
    assert_eq!(run.verb(start("v2=90")), Err(Refused::Quarantined(version("v2"))));
    assert_eq!(run.verb(Verb::Weight(Weight::HALF)), Err(Refused::Quarantined(version("v2"))));
}

#[test]
fn harm_names_its_metric_and_what_rises_is_recorded_first() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    let record = position(&run.effects, |e| matches!(e, Effect::Record(_)));
    assert!(record < position(&run.effects, |e| *e == Effect::Publish));
    run.harm();
    assert_eq!(run.effects[..2], [Effect::Close, Effect::Publish]);
    assert!(matches!(&run.effects[2], Effect::Record(note) if note.actor == "gate/error-rate" && note.verb == "abort"));
    let end = &run.roles.history[0].end;
    assert_eq!(*end, End::Aborted(AbortReason::Harmful { metric: "error-rate".into() }));
}

#[test]
fn a_retry_needs_a_reason_and_draws_other_users() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.verb(Verb::Abort).expect("aborted");
    assert_eq!(run.verb(Verb::Retry(None)), Err(Refused::NeedsReason("retry")));
    assert_eq!(run.ask(&reasoned(Verb::Retry(None))), Ok(BEGINS));
    assert_eq!((run.roles.running().retry, run.roles.running().rollout, run.phase()), (1, 3, "verifying"));
    assert_eq!(run.roles.quarantine(&version("v2")), None);
}

#[test]
fn a_promotion_swaps_two_pools_and_a_rollback_swaps_them_back() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    let (old, new) = (Arc::clone(&run.roles.stable), Arc::clone(run.roles.candidate().expect("candidate")));
    run.promote();
    assert!(Arc::ptr_eq(&run.roles.stable, &new));
    assert!(Arc::ptr_eq(&run.roles.warm.as_ref().expect("warm").pool, &old));
    assert_eq!(run.runs(), ("v2", None, 0));
    run.now += 60 * SECOND;
    assert_eq!(run.verb(Verb::Rollback), Ok(STANDS));
    assert!(Arc::ptr_eq(&run.roles.stable, &old));
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v2"), 0), "rolled_back"));
    assert_eq!(run.effects[..2], [Effect::Publish, Effect::Shut(version("v2"))]);
    assert_eq!(run.roles.history[0].end, End::RolledBack);
    let current = run.roles.current.as_ref().expect("it is remembered");
    assert_eq!(
        (run.roles.history[0].ended, current.ended),
        (run.now, Some(run.now)),
        "now, and not when it was promoted"
    );
    let stable = current.trail.legs.last().expect("a leg");
    assert_eq!((stable.phase.as_str(), stable.verb.as_str(), stable.weight), ("succeeded", "promote", Weight::FULL));
    assert_eq!(stable.began + 60 * SECOND, run.now, "{stable:?}");
    assert!(run.roles.quarantine(&version("v2")).is_some());
}

#[test]
fn the_old_stable_is_let_go_after_keep_stable_and_not_before() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.promote();
    run.tick(1_799);
    assert!(run.roles.warm.is_some() && run.effects.is_empty());
    run.tick(1);
    assert!(run.effects.contains(&Effect::Release(version("v1"))), "{:?}", run.effects);
    assert!(run.effects.contains(&Effect::Gate(GateWork::End)));
    assert_eq!(run.verb(Verb::Rollback), Err(Refused::NothingToRollBack));
    assert_eq!(run.verb(Verb::Abort), Ok(STANDS), "an abort is never refused");
}

#[test]
fn an_earlier_promotion_can_be_taken_back_although_the_next_rollout_began() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.promote();
    run.verb(start("v3=91")).expect("started");
    run.tick(1);
    let ask = Ask { rollout: Some(1), ..asking(Verb::Rollback) };
    assert_eq!(run.ask(&ask), Err(Refused::NoSuchRollout(1)));
    let ask = Ask { rollout: Some(2), ..ask };
    assert_eq!(run.ask(&ask), Ok(STANDS));
    assert_eq!(run.effects[..3], [Effect::Close, Effect::Publish, Effect::Shut(version("v2"))]);
    assert_eq!(run.runs(), ("v1", None, 0));
    assert!(run.roles.quarantine(&version("v2")).is_some() && run.roles.quarantine(&version("v3")).is_none());
}

/// Two clients that both saw step 0: one of them promotes.
#[test]
fn of_two_promotes_at_a_step_that_stays_none_goes_by_the_step_alone() {
    let next = Verb::Promote { full: false, force: false };
    let at = |tagged, step| Ask { expected: Expected { required: true, tagged, step }, ..asking(next.clone()) };
    for pause in [false, true] {
        let mut verifying = Run::stable("v1");
        verifying.verb(start("v2=90")).expect("started");
        let mut trying = Run::stable("v1");
        trying.verb(start("v2=90")).expect("started");
        trying.tick(1);
        trying.verb(Verb::Weight(Weight::of_percent(95))).expect("set");
        let facts = Facts {
            ready: true,
            counts: trying.counts,
            verdict: Verdict::Open,
            alarm: true,
            stable_degraded: false,
            sample_ratio: false,
            endpoint: false,
        };
        trying.effects = trying.roles.on(Event::Tick(facts), SECOND, SECOND);
        for mut run in [verifying, trying] {
            if pause {
                run.verb(Verb::Pause).expect("paused");
            }
            let revision = run.roles.revision;
            assert_eq!(run.ask(&at(false, Some(0))), Err(Refused::StepStays { step: 0, revision }));
            assert_eq!(run.ask(&at(false, Some(1))), Err(Refused::Stale { step: 0, revision }));
            assert_eq!(run.ask(&at(true, Some(0))), Ok(STANDS), "what was compared tells them apart");
            assert_eq!((run.roles.active().expect("one").rollout.step, run.phase()), (0, "progressing"));
            assert_eq!(run.ask(&at(false, Some(0))), Ok(STANDS), "step 0 is in force");
            let revision = run.roles.revision;
            assert_eq!(run.ask(&at(false, Some(0))), Err(Refused::Stale { step: 1, revision }));
        }
    }
}

#[test]
fn a_stale_promote_is_refused_and_two_at_once_pass_one_step() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    let next = Verb::Promote { full: false, force: false };
    let at = |expected| Ask { rollout: Some(2), expected, ..asking(next.clone()) };
    let said = Expected { required: true, tagged: false, step: Some(0) };
    assert_eq!(run.ask(&at(Expected { step: None, ..said })), Err(Refused::Unconditional));
    assert_eq!(run.ask(&at(said)), Ok(STANDS));
    assert!(matches!(run.ask(&at(said)), Err(Refused::Stale { step: 1, .. })));
    assert_eq!(run.runs(), ("v1", Some("v2"), 25));
    let compared = Expected { required: true, tagged: true, step: None };
    assert_eq!(
        run.ask(&Ask { rollout: Some(2), expected: compared, ..asking(Verb::Pause) }),
        Ok(STANDS),
        "said elsewhere"
    );
    let abort = Ask { rollout: Some(2), expected: said, ..asking(Verb::Abort) };
    assert_eq!(run.ask(&abort), Ok(STANDS), "an abort has no precondition");
}

#[test]
fn a_weight_without_a_rollout_opens_one_by_hand() {
    let mut run = Run::first(First::NewService, manual(file("v1", "v2=90")));
    assert_eq!(run.verb(Verb::Weight(Weight::of_percent(5))), Ok(BEGINS));
    run.tick(86_400);
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v2"), 5), "progressing"));
    assert_eq!(run.verb(Verb::Weight(Weight::of_percent(5))), Ok(STANDS));
    assert!(run.effects.is_empty());
    assert_eq!(Run::stable("v1").verb(Verb::Weight(Weight::HALF)), Err(Refused::NoRollout));
}

#[test]
fn a_dry_run_moves_nothing_on_harm() {
    let mut wanted = file("v1", "v2=90");
    Arc::make_mut(&mut wanted.rollout).terms.mode = super::super::rollout::wanted::Mode::Observe;
    let mut run = Run::first(First::NewService, wanted);
    run.tick(1);
    run.harm();
    assert_eq!((run.phase(), run.runs()), ("progressing", ("v1", Some("v2"), 5)));
}

#[test]
fn what_is_remembered_is_bounded_and_quarantine_outlives_the_rest() {
    let mut run = Run::stable("v1");
    run.verb(start("bad=90")).expect("started");
    run.verb(Verb::Abort).expect("aborted");
    for n in 0..VERSIONS_MAX + 10 {
        run.verb(start(&format!("n{n}=90"))).expect("started");
        run.promote();
    }
    assert_eq!((run.roles.versions.len(), run.roles.history.len()), (VERSIONS_MAX, HISTORY_MAX));
    assert!(run.roles.quarantine(&version("bad")).is_some());
}

#[test]
fn an_unknown_field_in_the_store_is_refused() {
    let mut stored = serde_json::to_value(&Run::stable("v1").roles).expect("stored");
    stored["later"] = true.into();
    assert!(serde_json::from_value::<Roles>(stored).is_err());
}

/// Found by the random sequences: a pause that clears by itself gave a weight set by hand back to the plan, upwards too.
#[test]
fn a_weight_set_by_hand_stays_when_a_pause_ends_by_itself() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.verb(Verb::Weight(Weight::of_percent(1))).expect("by hand");
    run.tick_with(SECOND, Verdict::Error);
    assert_eq!(run.phase(), "paused");
    run.tick(301);
    assert_eq!((run.phase(), run.runs()), ("progressing", ("v1", Some("v2"), 1)));
    run.verb(Verb::Pause).expect("paused");
    run.verb(Verb::Resume).expect("back in the plan");
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
}
