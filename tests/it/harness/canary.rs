//! A rollout under a steady load, something that goes wrong with its candidate, and how long the gate takes. The integration tests and
//! the benchmark of the gate measure the same.

use std::time::Duration;

use serde_json::Value;
use tidegate::clock;

use super::arrivals::{Arrivals, Came};
use super::config::Config;
use super::proxy::Proxy;
use super::upstream::{Act, Behaviour, Upstream, answer, read_body};
use super::wait::{WAIT_MAX, eventually};

/// A plan that stays at 5 %.
pub(crate) const AT_FIVE: &str = "on_empty_store = \"start\"\nsteps = [{ weight = \"5%\", hold = \"30m\" }]";

/// A stable endpoint, some of the candidate, a proxy in its first step, and a load.
pub(crate) struct Canary {
    pub stable: Upstream,
    pub candidate: Vec<Upstream>,
    pub proxy: Proxy,
    pub load: Arrivals,
}

/// How the gate took a candidate back.
#[derive(Clone, Debug)]
pub(crate) struct Caught {
    /// From the fault to the event.
    pub after: Duration,
    /// Who did it: `gate/METRIC`.
    pub actor: String,
    /// Its evidence.
    pub why: String,
    /// What became of all requests.
    pub came: Came,
}

// === impl Canary ===

impl Canary {
    /// With `endpoints` of the candidate, `rate` requests per second, a plan and more of a configuration; returns at the first step.
    pub(crate) async fn start(endpoints: usize, rate: u32, plan: &str, lines: impl FnOnce(Config) -> Config) -> Self {
        let canary = Self::waiting(endpoints, rate, plan, lines).await;
        canary.until("the first step", |web| web["progress"]["phase"] == "progressing").await;
        canary
    }

    /// As [`Self::start`], but the rollout has to be begun.
    pub(crate) async fn waiting(endpoints: usize, rate: u32, plan: &str, lines: impl FnOnce(Config) -> Config) -> Self {
        let stable = Upstream::start(good("v1")).await;
        let mut candidate = Vec::new();
        for _ in 0..endpoints {
            candidate.push(Upstream::start(good("v2")).await);
        }
        let addresses: Vec<String> = candidate.iter().map(Upstream::address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let config = |base: Config| {
            let base = base.web(&[&stable.address()], &addresses).set("services.web.rollout", plan);
            lines(base.limits("max_requests = 1000000"))
        };
        let proxy = Proxy::start(config).await;
        let load = Arrivals::start(&proxy.address(), rate);
        Self { stable, candidate, proxy, load }
    }

    /// Begins the rollout; returns at the first step.
    pub(crate) async fn begin(&self) {
        let answer = self.proxy.admin.post("/v1/services/web/rollouts", "{}").await;
        assert!((200..300).contains(&answer.status), "{}", answer.text());
        self.until("the first step", |web| web["progress"]["phase"] == "progressing").await;
    }

    /// What the candidate's endpoints do from now on; when, since 1970.
    pub(crate) fn candidate_does(&self, behaviour: &Behaviour) -> Duration {
        self.candidate.iter().for_each(|endpoint| endpoint.behave(behaviour.clone()));
        clock::unix_time()
    }

    /// The service, once `there` says so.
    pub(crate) async fn until(&self, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        self.within(WAIT_MAX, what, there).await
    }

    /// As [`Self::until`], for as long.
    pub(crate) async fn within(&self, limit: Duration, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        let web = || async { Some(self.proxy.admin.json("/v1/services/web").await).filter(&there) };
        eventually(limit, what, web).await
    }

    /// The event of that kind, if there is one.
    pub(crate) async fn event(&self, what: &str) -> Option<Value> {
        let status = self.proxy.admin.status().await;
        let events = status["events"].as_array().expect("events");
        events.iter().rev().find(|event| event["what"] == what).cloned()
    }

    /// How a fault of `since` was caught, which has to happen within `limit`. Ends the load.
    pub(crate) async fn caught(self, since: Duration, limit: Duration) -> Caught {
        let event = eventually(limit, "the gate to take the traffic back", || self.event("abort")).await;
        let at = Duration::from_millis(event["at_ms"].as_u64().expect("a time"));
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let after = at.saturating_sub(since);
        Caught { after, actor: text("actor"), why: text("detail"), came: self.load.stop() }
    }
}

/// 200 from a release.
pub(crate) fn good(version: &str) -> Behaviour {
    Behaviour::version(version)
}

/// That status from the candidate.
pub(crate) fn status(status: u16) -> Behaviour {
    Behaviour::answer(status, &["x-version: v2"], "no")
}

/// 200 from a release, after a while.
pub(crate) fn slow(version: &str, after: Duration) -> Behaviour {
    let version = format!("x-version: {version}");
    Behaviour::script([read_body(), Act::Pause(after), answer(200, &[&version], "slow")])
}

/// One of the two, by lot.
pub(crate) fn half(one: Behaviour, other: Behaviour) -> Behaviour {
    Behaviour::script([Act::Either(one, other)])
}
