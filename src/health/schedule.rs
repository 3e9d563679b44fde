//! Who is asked when: one queue over all endpoints, and what their answers change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::PROBES_MAX;
use super::ask::Asker;
use super::share::{Shares, most};
use crate::clock;
use crate::control::handle::ControlHandle;
use crate::control::health::Finding;
use crate::core::endpoint::EndpointKey;
use crate::core::health::{Effect, Probe, Probing, Readiness, first_wait, in_step, jittered};
use crate::core::id::Name;
use crate::state::current::Routing;
use crate::state::health::Probed;
use crate::state::live::EndpointLive;

/// Asks all endpoints.
pub(super) struct Prober<F> {
    /// From where the instants count at which probes begin together.
    began: Instant,
    control: ControlHandle,
    published: watch::Receiver<u64>,
    /// What the targets were taken from.
    seen: Option<Arc<Routing>>,
    askers: HashMap<Name, Arc<Asker>>,
    /// By number. A target that is asked otherwise from now on gets a new one: what is queued or under way under the old is void.
    targets: BTreeMap<u64, Target>,
    numbers: HashMap<EndpointKey, u64>,
    next_number: u64,
    queue: BinaryHeap<Reverse<Due>>,
    /// Keeps what is due and has to wait because its service has its share under way.
    shares: Shares<Due>,
    running: JoinSet<Probed>,
    under_way: HashMap<Id, Asked>,
    random: fastrand::Rng,
    first_round: Option<FirstRound<F>>,
}

/// The round after which the process is ready.
struct FirstRound<F> {
    /// Endpoints still to be asked.
    waits_for: HashSet<EndpointKey>,
    until: Instant,
    over: F,
}

/// An endpoint.
struct Target {
    live: Arc<EndpointLive>,
    asker: Arc<Asker>,
    probing: Probing,
}

/// A probe to come, earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    number: u64,
    role: Role,
}

/// Which of an endpoint's independent sequences of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// Startup, then readiness.
    Deciding,
    Liveness,
    Deep,
}

/// A probe under way.
#[derive(Clone, Debug)]
struct Asked {
    service: Name,
    number: u64,
    role: Role,
    probe: Probe,
}

// === impl Prober ===

impl<F: FnOnce()> Prober<F> {
    /// Calls `over` once all there are were asked, at `until` at the latest.
    pub(super) fn new(control: ControlHandle, until: Instant, over: F) -> Self {
        let mut prober = Self {
            began: clock::now(),
            published: control.published(),
            control,
            seen: None,
            askers: HashMap::new(),
            targets: BTreeMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            queue: BinaryHeap::new(),
            shares: Shares::new(),
            running: JoinSet::new(),
            under_way: HashMap::new(),
            random: fastrand::Rng::new(),
            first_round: Some(FirstRound { waits_for: HashSet::new(), until, over }),
        };
        prober.published.mark_unchanged();
        prober.sync();
        if let Some(round) = &mut prober.first_round {
            round.waits_for = prober.numbers.keys().cloned().collect();
        }
        prober
    }

    /// Asks until control is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.end_first_round().await;
            let room = self.running.len() < PROBES_MAX;
            let due = self.queue.peek().map(|Reverse(due)| due.at).filter(|_| room);
            let round = self.first_round.as_ref().map(|round| round.until);
            tokio::select! {
                biased;
                changed = self.published.changed() => match changed {
                    Ok(()) => self.sync(),
                    Err(_) => return,
                },
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.ended(ended).await,
                () = until(due.into_iter().chain(round).min()) => self.launch(),
            }
        }
    }

    /// Takes over what is published: new endpoints are asked soon, those that went not any more.
    fn sync(&mut self) {
        let routing = self.control.current().load();
        let same = self.seen.as_ref().is_some_and(|seen| is_same(seen, &routing));
        let at_boot = self.seen.replace(Arc::clone(&routing)).is_none();
        if same {
            return;
        }
        self.prepare(&routing);
        let mut gone: HashSet<EndpointKey> = self.numbers.keys().cloned().collect();
        let mut new = Vec::new();
        for (active, live) in routing.snapshot.services.iter().zip(&routing.live) {
            let Some(asker) = self.askers.get(&active.service.name).cloned() else { continue };
            for endpoint in live.endpoints() {
                gone.remove(&endpoint.key);
                if !self.keep(endpoint, &asker) {
                    new.push((Arc::clone(endpoint), Arc::clone(&asker)));
                }
            }
        }
        for number in gone.iter().filter_map(|key| self.numbers.remove(key)) {
            self.targets.remove(&number);
        }
        if let Some(round) = &mut self.first_round {
            round.waits_for.retain(|key| !gone.contains(key));
        }
        let (now, count) = (clock::now(), new.len());
        for (live, asker) in new {
            let probing = Probing::new(asker.health.startup.is_some(), at_boot, now);
            let first = now + first_wait(count, self.random.u32(..));
            self.add(Target { live, asker, probing }, first);
        }
        self.queue.extend(self.shares.release().into_iter().map(Reverse));
        // What is void goes at once: otherwise reloads could fill the queue. It holds at most three entries per endpoint.
        self.queue.retain(|Reverse(due)| self.targets.contains_key(&due.number));
    }

    /// Prepares how each service is asked, unless that stays the same.
    fn prepare(&mut self, routing: &Routing) {
        let services = || routing.snapshot.services.iter().map(|active| &active.service);
        let before = std::mem::take(&mut self.askers);
        self.askers = services()
            .map(|service| {
                let same = before.get(&service.name).filter(|asker| asker.is_of(service));
                let asker = same.cloned().unwrap_or_else(|| Arc::new(Asker::new(service)));
                (service.name.clone(), asker)
            })
            .collect();
    }

    /// Goes on with an endpoint that is asked already, whatever its variant is now; `false` if it has to begin anew.
    fn keep(&mut self, live: &Arc<EndpointLive>, asker: &Arc<Asker>) -> bool {
        let Some(&number) = self.numbers.get(&live.key) else { return false };
        let Some(target) = self.targets.get_mut(&number) else { return false };
        target.live = Arc::clone(live);
        let forgotten =
            live.health.readiness() == Readiness::Unknown && target.probing.readiness() != Readiness::Unknown;
        if forgotten {
            self.targets.remove(&number);
            self.numbers.remove(&live.key);
            return false;
        }
        if Arc::ptr_eq(&target.asker, asker) {
            return true;
        }
        // Asked otherwise: what is known stays, the next probe comes soon.
        if let Some(mut target) = self.targets.remove(&number) {
            target.asker = Arc::clone(asker);
            target.probing.adopt(asker.health.startup.is_some(), asker.health.liveness.is_some());
            live.health.set_alive(target.probing.alive());
            let first = clock::now() + first_wait(self.numbers.len(), self.random.u32(..));
            self.add(target, first);
        }
        true
    }

    fn add(&mut self, target: Target, first: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        let health = &target.asker.health;
        let roles =
            [(Role::Deciding, true), (Role::Liveness, health.liveness.is_some()), (Role::Deep, health.deep.is_some())];
        for (role, _) in roles.into_iter().filter(|(_, asked)| *asked) {
            self.queue.push(Reverse(Due { at: first, number, role }));
        }
        self.numbers.insert(target.live.key.clone(), number);
        self.targets.insert(number, target);
    }

    /// Begins every probe whose time has come, as far as there is room.
    fn launch(&mut self) {
        let (now, most) = (clock::now(), most(self.askers.len()));
        while self.running.len() < PROBES_MAX {
            match self.queue.peek() {
                Some(Reverse(due)) if due.at <= now => {}
                _ => return,
            }
            let Some(Reverse(due)) = self.queue.pop() else { return };
            let Due { number, role, .. } = due;
            let Some(target) = self.targets.get(&number) else { continue };
            let probe = match role {
                Role::Deciding => target.probing.deciding(),
                Role::Liveness => Probe::Liveness,
                Role::Deep => Probe::Deep,
            };
            if !target.probing.asks(probe) {
                let at = now + target.asker.health.pace.fast_interval;
                self.queue.push(Reverse(Due { at, number, role }));
                continue;
            }
            let key = &target.live.key;
            if !self.shares.begin(&key.service, due, most) {
                continue;
            }
            let (asker, address, service) = (Arc::clone(&target.asker), key.address.clone(), key.service.clone());
            let task = self.running.spawn(async move { asker.ask(&address, probe).await });
            self.under_way.insert(task.id(), Asked { service, number, role, probe });
        }
    }

    async fn ended(&mut self, ended: Result<(Id, Probed), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(asked) = self.under_way.remove(&id) else { return };
        self.queue.extend(self.shares.end(&asked.service).map(Reverse));
        let probed = match ended {
            Ok((_, probed)) => probed,
            Err(error) => {
                tracing::error!(%error, "a probe ended unexpectedly; this is a defect");
                let error = Some("the probe ended unexpectedly; see the log".to_owned());
                let (latency, at) = (Duration::ZERO, clock::unix_time());
                Probed { probe: asked.probe, error, status: None, latency, body: None, at }
            }
        };
        self.done(asked, probed).await;
    }

    async fn done(&mut self, Asked { number, role, .. }: Asked, probed: Probed) {
        // Gone, or asked otherwise by now.
        let Some(target) = self.targets.get_mut(&number) else { return };
        let (now, health) = (clock::now(), Arc::clone(&target.asker.health));
        let (probe, passed, detail) = (probed.probe, probed.passed(), probed.to_string());
        target.live.probes.count(&probed);
        target.live.health.record(probed);
        let effect = target.probing.result(probe, passed, &health.pace, health.startup.as_ref(), now);
        let readiness = target.probing.readiness();
        if matches!(effect, Some(Effect::Became { to: Readiness::Ready, .. })) {
            // Before anyone sees that it is ready: a slow start begins slowly.
            target.live.conduct.enter_service(now);
        }
        target.live.health.set_readiness(readiness);
        target.live.health.set_alive(target.probing.alive());
        let random = self.random.u32(..);
        let pause = match (role, &health.deep) {
            (Role::Deciding, _) => target.probing.wait(&health.pace, random),
            (Role::Deep, Some(deep)) => jittered(deep.interval, health.pace.jitter.fraction(), random),
            _ => jittered(health.pace.interval, health.pace.jitter.fraction(), random),
        };
        let key = target.live.key.clone();
        let at = self.began + in_step(now.saturating_duration_since(self.began), pause);
        self.queue.push(Reverse(Due { at, number, role }));
        let mut expected = false;
        if let Some(round) = &mut self.first_round {
            // A startup probe that passed is half an answer.
            if role == Role::Deciding && (!passed || readiness != Readiness::Unknown) {
                round.waits_for.remove(&key);
            }
            // Told together when the round is over.
            expected = matches!(effect, Some(Effect::Became { to: Readiness::Ready, .. }));
        }
        if let Some(effect) = effect.filter(|_| !expected) {
            self.control.found(Finding::Changed { key, effect, detail }).await;
        }
    }

    async fn end_first_round(&mut self) {
        let now = clock::now();
        let Some(round) = self.first_round.take_if(|round| round.waits_for.is_empty() || round.until <= now) else {
            return;
        };
        let ready = self.targets.values().filter(|target| target.live.is_ready()).count();
        self.control.found(Finding::FirstRound { ready, all: self.targets.len() }).await;
        (round.over)();
    }
}

/// Whether the endpoints and how they are asked are the same.
fn is_same(a: &Routing, b: &Routing) -> bool {
    let services = |routing: &Routing| routing.snapshot.services.len();
    let all = a.snapshot.services.iter().zip(&a.live).zip(b.snapshot.services.iter().zip(&b.live));
    services(a) == services(b)
        && all.into_iter().all(|((service, live), (other, other_live))| {
            Arc::ptr_eq(&service.service, &other.service) && Arc::ptr_eq(live, other_live)
        })
}

/// Returns at `at`; never without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
