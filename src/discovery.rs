//! Follows the names of endpoints: asks for each when its last answer runs out, and tells control what changed. Never on the request path.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock;
use crate::control::discovery::{News, Resolution};
use crate::control::handle::ControlHandle;
use crate::core::endpoint::{Answer, Question};
use crate::core::resolve::{Bounds, Heard, Resolving};
use crate::core::snapshot::ActiveService;
use crate::net::dns::Resolver;
use crate::state::names::NameState;

/// Names asked for at the same time; more wait for their turn.
const ASKED_MAX: usize = 64;
/// Shortest time between two publications: changes within it are one.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Longest time the first answers may keep the process from going on.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(1);
/// How long nothing is due when there is no name.
const NEVER: Duration = Duration::from_secs(3_600);

/// Follows the names of whatever is published, until `stopped` says so or control is gone. `first_round` is called once every name there
/// is at the beginning was asked for and control has what came back, or the time for that is over.
pub async fn run(
    control: ControlHandle,
    resolver: Resolver,
    bounds: Bounds,
    first_round: impl FnOnce() + Send,
    mut stopped: watch::Receiver<bool>,
) {
    let follower = Follower::new(control, resolver, bounds, first_round);
    tokio::select! {
        () = follower.run() => {}
        // An error means that nobody is there any more to say it.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Follows all names.
struct Follower<F> {
    control: ControlHandle,
    published: watch::Receiver<u64>,
    resolver: Resolver,
    bounds: Bounds,
    names: BTreeMap<Question, Followed>,
    asking: JoinSet<Heard>,
    under_way: HashMap<Id, Question>,
    /// What control does not know yet.
    resolution: Resolution,
    /// When control was told last.
    told: Option<Instant>,
    random: fastrand::Rng,
    first_round: Option<FirstRound<F>>,
}

/// The names there were at the beginning.
struct FirstRound<F> {
    waits_for: BTreeSet<Question>,
    until: Instant,
    over: F,
}

/// A name.
struct Followed {
    resolving: Resolving,
    /// When to ask; absent while it is asked for.
    due: Option<Instant>,
    answered_at: Option<Duration>,
}

// === impl Follower ===

impl<F: FnOnce()> Follower<F> {
    fn new(control: ControlHandle, resolver: Resolver, bounds: Bounds, over: F) -> Self {
        let until = clock::now() + FIRST_ROUND_MAX;
        let mut published = control.published();
        published.mark_unchanged();
        let mut follower = Self {
            published,
            control,
            resolver,
            bounds,
            names: BTreeMap::new(),
            asking: JoinSet::new(),
            under_way: HashMap::new(),
            resolution: Resolution::default(),
            told: None,
            random: fastrand::Rng::new(),
            first_round: Some(FirstRound { waits_for: BTreeSet::new(), until, over }),
        };
        follower.follow();
        if let Some(round) = &mut follower.first_round {
            round.waits_for = follower.names.keys().cloned().collect();
        }
        follower
    }

    async fn run(mut self) {
        loop {
            let now = clock::now();
            self.ask(now);
            if self.tells_at(now).is_some_and(|at| at <= now) {
                self.tell().await;
            }
            self.end_first_round(now);
            let room = self.under_way.len() < ASKED_MAX;
            let due = self.names.values().filter_map(|name| name.due).min().filter(|_| room);
            let round = self.first_round.as_ref().map(|round| round.until);
            let wake = [due, self.tells_at(now), round].into_iter().flatten().min().unwrap_or(now + NEVER);
            tokio::select! {
                biased;
                changed = self.published.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                Some(ended) = self.asking.join_next_with_id(), if !self.asking.is_empty() => self.heard(ended),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Takes over the names of what is published: new ones are asked for at once, those that went not any more.
    fn follow(&mut self) {
        let routing = self.control.current().load();
        let services = routing.snapshot.services.iter();
        let wanted: BTreeSet<Question> = services.flat_map(ActiveService::questions).collect();
        self.names.retain(|question, _| wanted.contains(question));
        self.resolution.answers.retain(|question, _| wanted.contains(question));
        let now = clock::now();
        for question in &wanted {
            let new = || Followed { resolving: Resolving::default(), due: Some(now), answered_at: None };
            self.names.entry(question.clone()).or_insert_with(new);
        }
        self.control.names().follow(&wanted);
    }

    /// Asks for what is due, as far as there is room.
    fn ask(&mut self, now: Instant) {
        for question in due(&self.names, now, ASKED_MAX.saturating_sub(self.under_way.len())) {
            if let Some(name) = self.names.get_mut(&question) {
                name.due = None;
            }
            let (resolver, asked) = (self.resolver.clone(), question.clone());
            let task = self.asking.spawn(async move { resolver.ask(&asked, now).await });
            self.under_way.insert(task.id(), question);
        }
    }

    fn heard(&mut self, ended: Result<(Id, Heard), JoinError>) {
        let (id, heard) = match ended {
            Ok((id, heard)) => (id, Some(heard)),
            Err(error) => {
                tracing::error!(%error, "asking for a name failed; this is a defect");
                (error.id(), None)
            }
        };
        let Some(question) = self.under_way.remove(&id) else { return };
        if let Some(round) = &mut self.first_round {
            round.waits_for.remove(&question);
        }
        let Some(name) = self.names.get_mut(&question) else { return };
        let now = clock::now();
        let Some(heard) = heard else {
            name.due = Some(now + self.bounds.max);
            return;
        };
        let failing = name.resolving.failures() > 0;
        let learned = name.resolving.learn(heard, self.bounds, self.random.u32(..));
        name.due = Some(now + learned.again);
        let failures = name.resolving.failures();
        if failures == 0 {
            name.answered_at = Some(clock::unix_time());
        }
        let addresses = name.resolving.answer().map_or(0, Answer::len);
        tracing::debug!(name = %question, addresses, failures, problem = learned.problem, "resolved");
        if failing != (failures > 0) {
            let problem = learned.problem.clone().filter(|_| failures > 0);
            self.resolution.news.push(News { question: question.clone(), problem, addresses });
        }
        let state = NameState { addresses, answered_at: name.answered_at, failures, problem: learned.problem };
        self.control.names().asked(&question, state);
        if let Some(answer) = learned.changed {
            self.resolution.answers.insert(question, answer);
        }
    }

    /// When to tell control; nothing is new if never.
    fn tells_at(&self, now: Instant) -> Option<Instant> {
        let new = !self.resolution.answers.is_empty() || !self.resolution.news.is_empty();
        let earliest = || self.told.map_or(now, |told| told + PUBLISH_EVERY);
        new.then(earliest)
    }

    async fn tell(&mut self) {
        self.control.resolved(std::mem::take(&mut self.resolution)).await;
        self.told = Some(clock::now());
    }

    fn end_first_round(&mut self, now: Instant) {
        let over = |round: &FirstRound<F>| round.waits_for.is_empty() || round.until <= now;
        let told = self.tells_at(now).is_none();
        if let Some(round) = self.first_round.take_if(|round| told && over(round)) {
            (round.over)();
        }
    }
}

/// Names whose time has come, at most `room`: those that are answered before those that fail, which take longest, and each by its time.
fn due(names: &BTreeMap<Question, Followed>, now: Instant, room: usize) -> Vec<Question> {
    if room == 0 {
        return Vec::new();
    }
    let waiting = names.iter().filter_map(|(question, name)| {
        let at = name.due.filter(|at| *at <= now)?;
        Some((name.resolving.failures() > 0, at, question))
    });
    let mut waiting: Vec<_> = waiting.collect();
    waiting.sort_unstable();
    waiting.into_iter().take(room).map(|(_, _, question)| question.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::resolve::Found;

    #[test]
    fn names_are_asked_for_by_their_time_and_those_that_fail_last() {
        let now = clock::now();
        let bounds = Bounds { min: Duration::from_secs(1), max: Duration::from_secs(300) };
        let mut names = BTreeMap::new();
        for (name, since, fails) in
            [("a", 9, true), ("b", 1, false), ("c", 3, false), ("d", 2, false), ("e", 0, false), ("f", 10, true)]
        {
            let mut resolving = Resolving::default();
            if fails {
                resolving.learn(Heard::Host([Found::Nothing, Found::Nothing]), bounds, 0);
            }
            let due = Some(now.checked_sub(Duration::from_secs(since)).expect("a machine that runs for a while"));
            names.insert(Question::Host(name.into()), Followed { resolving, due, answered_at: None });
        }
        names.insert(
            Question::Host("g".into()),
            Followed { resolving: Resolving::default(), due: Some(now + Duration::from_millis(1)), answered_at: None },
        );
        let order = |room| -> String { due(&names, now, room).iter().map(ToString::to_string).collect() };
        assert_eq!((order(9).as_str(), order(3).as_str(), order(0).as_str()), ("cdbefa", "cdb", ""));
    }
}
