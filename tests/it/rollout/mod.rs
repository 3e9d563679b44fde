//! Rollouts through the real proxy: by the file, by commands, over restarts.

mod after;
mod commands;
mod kills;
mod records;
mod restarts;
mod rolled_back;
mod table;

use serde_json::Value;

use crate::harness::config::Config;
use crate::harness::proxy::{Process, Proxy, Site};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// A first step that nothing leaves by itself.
const HELD: &str = "steps = [{ weight = \"5%\", hold = \"30m\" }, { weight = \"50%\", hold = \"20m\" }, { weight = \"100%\", hold = \"10m\" }]";
const FORCE: &str = "{\"to\":\"full\",\"force\":true,\"reason\":\"a test\"}";

/// Three releases that say who they are.
struct Releases([Upstream; 3]);

// === impl Releases ===

impl Releases {
    async fn start() -> Self {
        let release = |version| Upstream::start(Behaviour::version(version));
        Self([release("v1").await, release("v2").await, release("v3").await])
    }

    /// A file with these releases; zero: no candidate.
    fn file(&self, base: &Config, stable: usize, candidate: usize) -> Config {
        let versions = ["", "v1", "v2", "v3"];
        let addresses = |n: usize| n.checked_sub(1).map(|n| self.0[n].address());
        let (stable_at, candidate_at) = (addresses(stable), addresses(candidate));
        let stable_at: Vec<&str> = stable_at.iter().map(String::as_str).collect();
        let candidate_at: Vec<&str> = candidate_at.iter().map(String::as_str).collect();
        let config = base.clone().pools("web", (versions[stable], &stable_at), (versions[candidate], &candidate_at));
        config.set("services.web.rollout", HELD).limits("max_requests = 1000000")
    }

    async fn proxy(&self, stable: usize, candidate: usize) -> Proxy {
        Proxy::start(|base| self.file(&base, stable, candidate).route("service = \"web\"")).await
    }

    /// A process with v1 alone.
    async fn process(&self) -> Process {
        Process::start(|base| self.file(&base, 1, 0).route("service = \"web\"")).await
    }

    /// The file of a proxy, with other releases.
    fn changed(&self, site: &Site, stable: usize, candidate: usize) -> Config {
        self.file(&site.base, stable, candidate).route("service = \"web\"")
    }

    /// A proxy whose file has begun a rollout of v2, in its first step.
    async fn rolling(&self) -> Proxy {
        let proxy = self.proxy(1, 0).await;
        proxy.reload_ok(&self.changed(&proxy, 1, 2)).await;
        until(&proxy, "v2 progressing 5%").await;
        proxy
    }
}

async fn web(site: &Site) -> Value {
    site.admin.json("/v1/services/web").await
}

/// `VERSION PHASE[(REASON)] WEIGHT` of the latest rollout.
fn stands(web: &Value) -> String {
    let (progress, text) = (&web["progress"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
    let reason = progress["reason"].as_str().map(|reason| format!("({reason})")).unwrap_or_default();
    format!("{} {}{reason} {}", text(&progress["version"]), text(&progress["phase"]), text(&web["weight"]))
}

/// The service once its rollout stands so.
async fn until(site: &Site, wanted: &str) -> Value {
    eventually(WAIT_MAX, wanted, || async { Some(web(site).await).filter(|web| stands(web) == wanted) }).await
}

fn differences(web: &Value) -> String {
    let all = web["differences"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// The versions in service: stable, and the candidate if there is one.
fn pools(web: &Value) -> (&str, Option<&str>) {
    (web["stable"]["version"].as_str().expect("a version"), web["candidate"]["version"].as_str())
}

async fn asked(site: &Site, verb: &str, body: &str) -> (u16, Value) {
    let answer = site.admin.post(&format!("/v1/services/web/{verb}"), body).await;
    (answer.status, serde_json::from_str(answer.text()).expect("JSON"))
}

async fn ok(site: &Site, verb: &str, body: &str) -> Value {
    let (status, answer) = asked(site, verb, body).await;
    assert!(status == 200 || status == 201, "{verb} {body}: {status} {answer}");
    answer
}

/// Why a file is refused: for itself (422), or for what runs (409).
async fn refused(site: &Site, config: &Config, status: u16) -> String {
    let before = web(site).await["revision"].clone();
    let answer = site.reload(&config.text()).await;
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(web(site).await["revision"], before, "nothing changed");
    answer.text().to_owned()
}
