//! Endpoints that are processes of their own and fail as such, one after the other, under a steady load: killed, stopped, slow, refusing. What
//! clients see of it with retries and without, how soon an endpoint is left alone, and how it comes back.

use std::time::Duration;

use tidegate::clock;

use crate::harness::client::{Load, Plan, Record, Tally};
use crate::harness::config::Config;
use crate::harness::origin::Origin;
use crate::harness::proxy::Process;
use crate::harness::soak;
use crate::harness::wait::{WAIT_MAX, eventually, until};

/// Requests at any time, a quarter of them on each endpoint.
const SESSIONS: usize = 32;
/// What a request takes: 400 requests per second.
const USUAL: Duration = Duration::from_millis(80);
/// What it takes on an endpoint that is slow, and yet in time.
const SLOW: Duration = Duration::from_millis(600);
/// How long a response head may take, all attempts together.
const PATIENCE: Duration = Duration::from_secs(3);
/// `ejection`: an endpoint that recovers meanwhile is not seen to fail again.
const EJECTION: Duration = Duration::from_secs(2);
/// `slow_start`
const SLOW_START: Duration = Duration::from_secs(2);
/// How much later than configured an ejection may be on a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(1);
/// How long an endpoint is looked at once it has grown up.
const SETTLED: Duration = Duration::from_secs(1);

/// What befalls an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL: the system closes what is open and refuses what is new.
    Killed,
    /// SIGSTOP: the system goes on to accept, nobody answers.
    Stopped,
    /// It answers late, but in time.
    Slow,
    /// It lives and does not listen.
    Refusing,
}

use Fault::{Killed, Refusing, Slow, Stopped};

const FAULTS: [Fault; 4] = [Killed, Stopped, Slow, Refusing];

/// A pool of four, a proxy before it, a load on it.
struct Site {
    origins: Vec<Origin>,
    proxy: Process,
    retries: bool,
    load: Load,
}

/// When what happened to an endpoint, since 1970.
#[derive(Clone, Debug)]
struct Story {
    fault: Fault,
    endpoint: String,
    began: Duration,
    /// From when on nothing that begins can be in flight on it.
    struck: Duration,
    over: Duration,
    back: Duration,
}

// === impl Site ===

impl Site {
    async fn start(retries: bool) -> Self {
        let mut origins = Vec::new();
        for name in ["a", "b", "c", "d"] {
            origins.push(Origin::start(name, USUAL).await);
        }
        let proxy = Process::start(|c| config(c, &origins, retries)).await;
        let plan = Plan { sessions: SESSIONS, record: true, ..Plan::default() };
        let load = Load::start(&proxy.address(), &plan);
        load.progress(200).await;
        Self { origins, proxy, retries, load }
    }

    /// Has `fault` befall an endpoint, and waits until that is over and forgotten.
    async fn suffer(&mut self, index: usize, fault: Fault) -> Story {
        let (origin, admin) = (&mut self.origins[index], &self.proxy.admin);
        let (endpoint, began) = (origin.name().to_owned(), clock::unix_time());
        match fault {
            Killed => origin.kill(),
            Stopped => origin.stop(),
            Slow => origin.pause(SLOW).await,
            Refusing => origin.refuse().await,
        }
        let address = origin.address().to_owned();
        let mut struck = clock::unix_time();
        if fault == Slow {
            self.load.progress(400).await;
            let over = clock::unix_time();
            self.origins[index].pause(USUAL).await;
            return Story { fault, endpoint, began, struck, over, back: clock::unix_time() };
        }
        admin.until_outlier(&address, Some("ejected")).await;
        let ejected = self.last_event("endpoint_ejected", &address).await;
        if fault == Stopped {
            struck = ejected;
        }
        let origin = &mut self.origins[index];
        match fault {
            Killed => origin.restart(USUAL).await,
            Stopped => origin.go_on(),
            _ => origin.listen().await,
        }
        admin.until_outlier(&address, None).await;
        admin.until_health(&address, "ready").await;
        let back = self.last_event("endpoint_restored", &address).await;
        until("the endpoint to grow up", || clock::unix_time() > back + SLOW_START + SETTLED).await;
        Story { fault, endpoint, began, struck, over: ejected, back }
    }

    /// When this was last said of the endpoint at `address`; it is true before it is said.
    async fn last_event(&self, what: &str, address: &str) -> Duration {
        let at_ms = eventually(WAIT_MAX, what, || async {
            let status = self.proxy.admin.status().await;
            let events = status["events"].as_array().expect("events").iter().rev();
            let mut about =
                events.filter(|e| e["what"] == what && e["detail"].as_str().is_some_and(|d| d.contains(address)));
            about.next().map(|event| event["at_ms"].as_u64().expect("a time"))
        });
        Duration::from_millis(at_ms.await)
    }

    /// How long the system, or the proxy for it, takes until a request on a dead endpoint has failed.
    fn failing_takes(&self, fault: Fault) -> Duration {
        match fault {
            // With one retry left an attempt has half of the time.
            Stopped if self.retries => PATIENCE / 2,
            Stopped => PATIENCE,
            _ => Duration::ZERO,
        }
    }
}

fn config(base: Config, origins: &[Origin], retries: bool) -> Config {
    let addresses: Vec<&str> = origins.iter().map(Origin::address).collect();
    let attempts = usize::from(retries);
    base.web(&addresses, &[])
        .set("services.web.upstream", &format!("response_timeout = \"{PATIENCE:?}\"\nslow_start = \"{SLOW_START:?}\""))
        .set("services.web.upstream.retry", &format!("attempts = {attempts}"))
        .set("services.web.upstream.retry", "on = [\"connect\", \"stale\", \"5xx\", \"reset\", \"timeout\"]")
        .set("services.web.outlier", &format!("ejection = \"{EJECTION:?}\""))
        .set("services.web.health", "interval = \"1s\"\nfast_interval = \"100ms\"")
}

/// Every fault on another endpoint, one after the other; the last rounds of the long version move them on.
async fn endure(retries: bool) -> (Vec<Story>, Tally, f64) {
    let mut site = Site::start(retries).await;
    let mut stories = Vec::new();
    for round in 0..if soak() { FAULTS.len() } else { 1 } {
        for (index, fault) in FAULTS.into_iter().enumerate() {
            let story = site.suffer((index + round) % FAULTS.len(), fault).await;
            if fault != Slow {
                let took = story.over.saturating_sub(story.began);
                let most = site.failing_takes(fault) + SLACK;
                assert!(took <= most, "{fault:?}: ejected after {took:?}, at most {most:?} were expected");
            }
            stories.push(story);
        }
    }
    let mut retried = 0.0;
    // A request that nobody has seen goes elsewhere in either case.
    for reason in ["5xx", "reset", "timeout"] {
        retried += site.proxy.admin.metric("tidegate_retries_total", &[&format!("reason=\"{reason}\"")]).await;
    }
    (stories, site.load.stop().await, retried)
}

/// The share of `name` in the responses to requests that began in this time.
fn share(records: &[Record], name: &str, from: Duration, to: Duration) -> f64 {
    let during: Vec<&Record> = records.iter().filter(|record| (from..to).contains(&record.began)).collect();
    assert!(during.len() >= 50, "{} requests show nothing", during.len());
    let count = |n: usize| f64::from(u32::try_from(n).expect("few"));
    count(during.iter().filter(|record| record.is_of(name)).count()) / count(during.len())
}

/// What holds with retries and without: an endpoint that failed is left alone but for one request, and comes back little by little.
fn assert_left_alone_and_slowly_back(stories: &[Story], records: &[Record]) {
    for story in stories {
        let Story { fault, endpoint, .. } = story;
        if *fault == Slow {
            let slow = share(records, endpoint, story.struck, story.over);
            assert!(slow <= 0.1, "{story:?}: a share of {slow}");
            continue;
        }
        // The one request on trial; after it, others may be faster than the event that tells of its success.
        let ejected = story.over + Duration::from_millis(1);
        let during = |r: &&Record| (ejected..story.back).contains(&r.began) && r.is_of(endpoint);
        let begins: Vec<Duration> = records.iter().filter(during).map(|record| record.began).collect();
        let first = begins.iter().min().copied().unwrap_or_default();
        let tried = begins.iter().filter(|began| **began < first + USUAL).count();
        assert!(tried <= 1, "{story:?}: {tried} requests while it was ejected");
        let early = share(records, endpoint, story.back, story.back + SLOW_START / 4);
        let grown = share(records, endpoint, story.back + SLOW_START, story.back + SLOW_START + SETTLED);
        assert!(grown >= 0.15 && early <= 0.6 * grown, "{story:?}: a share of {early} at first, of {grown} in the end");
    }
}

#[tokio::test]
async fn with_retries_nobody_sees_endpoints_die_hang_refuse_or_slow_down() {
    let (stories, tally, retried) = endure(true).await;
    tally.assert_clean();
    assert!(retried > 0.0, "nothing had to be tried again");
    assert_left_alone_and_slowly_back(&stories, &tally.records);
}

#[tokio::test]
async fn without_retries_no_more_is_lost_than_was_in_flight_on_the_endpoint() {
    let (stories, tally, retried) = endure(false).await;
    assert!(retried < 0.5, "{retried} were tried again");
    for lost in tally.records.iter().filter(|record| !record.is_good()) {
        // Failures that began before an endpoint failed were in flight on it then; nobody who came later may notice.
        let during = |s: &&Story| s.fault != Slow && lost.began <= s.struck && lost.ended >= s.began;
        assert!(stories.iter().any(|story| during(&story)), "{lost:?} was in flight in none of {stories:#?}");
    }
    for story in &stories {
        let in_flight = |r: &&Record| !r.is_good() && (story.began..story.back).contains(&r.ended);
        let lost = tally.records.iter().filter(in_flight).count();
        assert!(lost <= SESSIONS, "{story:?}: {lost} requests were lost");
        assert!(story.fault != Stopped || lost > 0, "{story:?}: the load did not notice");
    }
    assert_left_alone_and_slowly_back(&stories, &tally.records);
}
