//! What is known about a name that stands for endpoints: answers replace one another, failures and empty answers replace nothing.
//!
//! A name that worked once goes on working with what was true last, because a DNS server that is down, or that has lost a zone, says
//! nothing about whether the endpoints are; their probes do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Answer, WEIGHT_MAX, WEIGHT_MIN};

/// Most addresses of a name, per family, and most SRV targets, that are used.
pub const RECORDS_MAX: usize = 256;
/// See [`RECORDS_MAX`].
pub const TARGETS_MAX: usize = 64;
/// Longest pause between attempts after failures, in milliseconds.
const BACKOFF_MS_MAX: u64 = 30_000;
/// An answer is renewed up to this part of its life earlier, so that names do not stay in step.
const JITTER_PERCENT: u64 = 10;

/// How long answers are used, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least; also the first pause after a failure.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// The result of asking for records of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// These, and how long they may be used.
    Records(Vec<T>, Duration),
    /// There are none.
    Nothing,
    /// Nobody knows; why.
    Failed(String),
}

/// The addresses of a name: A and AAAA.
pub type Addresses = [Found<IpAddr>; 2];

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The lowest is used, the others only once it is gone from the answer.
    pub priority: u16,
    /// Share among those of its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// A name with addresses; empty where the service is said not to exist.
    pub host: Arc<str>,
}

/// What came back for a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The addresses of a name.
    Host(Addresses),
    /// SRV records, and the addresses of the targets that are [`used`].
    Srv(Found<Target>, BTreeMap<Arc<str>, Addresses>),
}

/// What is known about one question.
#[derive(Clone, Debug, Default)]
pub struct Resolving {
    /// The last good answer.
    answer: Option<Answer>,
    /// The addresses it is made of, by name and family.
    good: BTreeMap<Arc<str>, [BTreeSet<IpAddr>; 2]>,
    /// Failures since the last good answer.
    failures: u32,
}

/// What follows from an answer or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The answer from now on, if it is another one.
    pub changed: Option<Answer>,
    /// What is wrong, if anything. Where [`Resolving::failures`] is zero it is only about a part.
    pub problem: Option<String>,
    /// When to ask again.
    pub again: Duration,
}

/// The targets that are used: those with the lowest priority that exist, in order.
#[must_use]
pub fn used(targets: &[Target]) -> Vec<Target> {
    let exists = || targets.iter().filter(|target| !target.host.is_empty());
    let Some(lowest) = exists().map(|target| target.priority).min() else { return Vec::new() };
    let used: BTreeSet<&Target> = exists().filter(|target| target.priority == lowest).collect();
    used.into_iter().take(TARGETS_MAX).cloned().collect()
}

// === impl Resolving ===

impl Resolving {
    /// The last good answer.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Failures since the last good answer; empty answers are failures.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes in what was heard. `random` spreads the next question.
    pub fn learn(&mut self, heard: Heard, bounds: Bounds, random: u32) -> Learned {
        let host = Arc::from("");
        let taken = match heard {
            Heard::Host(found) => self.host(&host, found).map(|(ttl, problem)| {
                let [v4, v6] = self.good.get(&host).cloned().unwrap_or_default();
                (Answer::Host(v4.into_iter().chain(v6).collect()), ttl, problem)
            }),
            Heard::Srv(Found::Records(targets, ttl), hosts) => self.srv(&used(&targets), ttl, hosts),
            Heard::Srv(Found::Nothing, _) => Err("it has no SRV records".to_owned()),
            Heard::Srv(Found::Failed(why), _) => Err(why),
        };
        match taken {
            Ok((answer, ttl, problem)) => {
                self.failures = 0;
                let changed = (self.answer.as_ref() != Some(&answer)).then(|| answer.clone());
                self.answer = Some(answer);
                Learned { changed, problem, again: renewal(ttl, bounds, random) }
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                let again = backoff(self.failures, bounds, random);
                Learned { changed: None, problem: Some(why), again }
            }
        }
    }

    /// Takes in the addresses of `host`: how long they hold, and what is wrong with a part of them.
    fn host(&mut self, host: &Arc<str>, found: Addresses) -> Result<(Duration, Option<String>), String> {
        let mut ttl: Option<Duration> = None;
        let mut problem = None;
        let some = found.iter().any(|family| matches!(family, Found::Records(..)));
        let known = self.good.entry(Arc::clone(host)).or_default();
        for (family, known) in found.into_iter().zip(known) {
            match family {
                Found::Records(records, life) => {
                    let count = records.len();
                    *known = records.into_iter().collect::<BTreeSet<_>>().into_iter().take(RECORDS_MAX).collect();
                    ttl = Some(ttl.map_or(life, |ttl| ttl.min(life)));
                    if count > RECORDS_MAX {
                        problem = Some(format!("{count} addresses; the first {RECORDS_MAX} are used"));
                    }
                }
                // Gone, but only if the name is still there: one that has nothing at all any more keeps what it had.
                Found::Nothing if some => known.clear(),
                Found::Nothing => {}
                Found::Failed(why) => problem = Some(why),
            }
        }
        match (ttl, problem) {
            (Some(ttl), problem) => Ok((ttl, problem)),
            (None, Some(why)) => Err(why),
            (None, None) => Err("it has no addresses".to_owned()),
        }
    }

    fn srv(
        &mut self,
        targets: &[Target],
        mut ttl: Duration,
        mut hosts: BTreeMap<Arc<str>, Addresses>,
    ) -> Result<(Answer, Duration, Option<String>), String> {
        if targets.is_empty() {
            return Err("it has no SRV target".to_owned());
        }
        let mut problem = None;
        for target in targets {
            let Some(found) = hosts.remove(&target.host) else { continue };
            match self.host(&target.host, found) {
                Ok((life, partial)) => {
                    ttl = ttl.min(life);
                    problem = problem.or(partial);
                }
                Err(why) => problem = Some(format!("target {}: {why}", target.host)),
            }
        }
        let largest = targets.iter().map(|target| target.weight).max().unwrap_or_default();
        let mut found = BTreeSet::new();
        for target in targets {
            let weight = scaled(target.weight, largest);
            let ips = self.good.get(&target.host).into_iter().flatten().flatten();
            found.extend(ips.map(|ip| (SocketAddr::new(*ip, target.port), weight)));
        }
        if found.is_empty() {
            return Err(problem.unwrap_or_else(|| "its targets have no addresses".to_owned()));
        }
        self.good.retain(|host, _| targets.iter().any(|target| target.host == *host));
        Ok((Answer::Srv(found), ttl, problem))
    }
}

/// A weight of 0 to 65535 as one of ours: the same proportions, nobody without any (RFC 2782: zero is hardly ever chosen).
fn scaled(weight: u16, largest: u16) -> u32 {
    let (weight, largest) = (u32::from(weight), u32::from(largest));
    let fitting = if largest <= WEIGHT_MAX { weight } else { (weight * WEIGHT_MAX).div_ceil(largest) };
    fitting.max(WEIGHT_MIN)
}

fn renewal(ttl: Duration, bounds: Bounds, random: u32) -> Duration {
    let life = ttl.clamp(bounds.min, bounds.max);
    let early = u128::from(random) * u128::from(JITTER_PERCENT) * life.as_micros() / (100 << 32);
    life.saturating_sub(micros(early)).max(bounds.min)
}

/// Between half and the whole of a pause that doubles with every failure.
fn backoff(failures: u32, bounds: Bounds, random: u32) -> Duration {
    let longest = Duration::from_millis(BACKOFF_MS_MAX).min(bounds.max).max(bounds.min);
    let doubled = bounds.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let pause = doubled.min(longest);
    pause / 2 + micros((u128::from(random) * (pause / 2).as_micros()) >> 32)
}

fn micros(count: u128) -> Duration {
    Duration::from_micros(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
