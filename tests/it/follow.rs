//! `tidegate rollout start --wait` as pipelines use it: its exit codes, Ctrl-C, and connections that are lost.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::{Process, Proxy, Site};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually};

/// Longest wait for an end that the gate brings about on a busy machine.
const END_MAX: Duration = Duration::from_secs(40);
/// Steps nothing holds up.
const QUICK: &str = "steps = [{ weight = \"50%\", hold = \"200ms\", min_requests = 0 }, { weight = \"100%\", hold = \"200ms\", min_requests = 0 }]";
/// A step nothing leaves by itself.
const HELD: &str = "steps = [{ weight = \"50%\", hold = \"30m\" }, { weight = \"100%\", hold = \"30m\" }]";
const FORCE: &str = "{\"to\":\"full\",\"force\":true,\"reason\":\"a test\"}";

/// A stable release, and one to roll out.
struct Releases(Upstream, Upstream);

/// A command that runs.
struct Waiting {
    child: Child,
    dir: TempDir,
}

// === impl Releases ===

impl Releases {
    async fn start() -> Self {
        let release = |version| Upstream::start(Behaviour::version(version));
        Self(release("v1").await, release("v2").await)
    }

    fn config(&self, base: Config, steps: &str) -> Config {
        base.web(&[&self.0.address()], &[]).set("services.web.rollout", steps).limits("max_requests = 1000000")
    }

    async fn proxy(&self, steps: &str) -> Proxy {
        Proxy::start(|base| self.config(base, steps)).await
    }

    /// Begins the rollout of v2 and waits for it.
    fn wait(&self, site: &Site, more: &[&str]) -> Waiting {
        let endpoint = self.1.address();
        Waiting::start(site, &[&["rollout", "start", "web", "v2", "--endpoint", &endpoint, "--wait"], more].concat())
    }
}

// === impl Waiting ===

impl Waiting {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let address = &site.admin.address;
        let address = if address.starts_with("unix:") { address.clone() } else { format!("http://{address}") };
        let dir = TempDir::new();
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).args(["--admin", &address]).env_remove("TIDEGATE_TOKEN").stdin(Stdio::null());
        let child = command.stdout(file("out")).stderr(file("err")).spawn().expect("the binary");
        Self { child, dir }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Returns once it has said `words`.
    async fn says(&self, words: &str) {
        eventually(WAIT_MAX, &format!("{words:?} to be said"), || async {
            self.read("out").contains(words).then_some(())
        })
        .await;
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child");
        kill_process(pid, Signal::INT).expect("a child of ours");
    }

    /// Its exit code, and what it said: answers, errors.
    async fn end(mut self) -> (Option<i32>, String, String) {
        let status: ExitStatus = {
            let child = std::cell::RefCell::new(&mut self.child);
            eventually(END_MAX, "the command to end", || async {
                child.borrow_mut().try_wait().expect("a child of ours")
            })
            .await
        };
        (status.code(), self.read("out"), self.read("err"))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn phase(site: &Site) -> String {
    let web = site.admin.json("/v1/services/web").await;
    web["progress"]["phase"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_rollout_that_succeeds_ends_with_0_and_every_step_was_a_line() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(QUICK).await;
    let (code, said, wrong) = releases.wait(&proxy, &[]).end().await;
    assert_eq!((code, wrong.as_str()), (Some(0), ""), "{said}");
    for words in
        ["web: v2 ", "step 0% -> 50% by plan", "step 50% -> 100% by plan", "promote", "web: v2 succeeded after"]
    {
        assert_eq!(said.matches(words).count().min(1), 1, "{words}: {said}");
    }
    assert_eq!(phase(&proxy).await, "succeeded");
}

#[tokio::test]
async fn a_candidate_the_gate_takes_back_ends_with_2_and_the_evidence() {
    let releases = Releases::start().await;
    releases.1.behave(Behaviour::answer(500, &[], "broken"));
    let proxy = releases.proxy(HELD).await;
    let plan = Plan { sessions: 8, pace: Duration::from_millis(10), ..Plan::default() };
    let load = Load::start(&proxy.address(), &plan);
    load.progress(50).await;
    let (code, said, wrong) = releases.wait(&proxy, &["--json"]).end().await;
    assert_eq!((code, wrong.as_str()), (Some(2), ""), "{said}");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.last().expect("an end");
    assert_eq!(
        (&last["event"], &last["outcome"], &last["exit"]),
        (&"end".into(), &"aborted".into(), &2.into()),
        "{said}"
    );
    assert_eq!((&last["by"], &last["rollout"]["reason"]), (&"gate/error-rate".into(), &"harmful".into()));
    assert!(last["why"].as_str().is_some_and(|why| why.starts_with("error-rate: candidate ")), "{last}");
    assert!(lines.iter().any(|line| line["event"] == "transition" && line["what"] == "abort"), "{said}");
    load.stop().await;
}

#[tokio::test]
async fn what_a_person_takes_back_ends_with_2_too() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(HELD).await;
    let waiting = releases.wait(&proxy, &[]);
    waiting.says("step 0% -> 50%").await;
    let answer = proxy.admin.post("/v1/services/web/abort", "{\"reason\":\"it smells\"}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (code, said, _) = waiting.end().await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("v2 aborted (manual) by ") && said.contains("it smells"), "{said}");
}

#[tokio::test]
async fn a_pause_that_needs_a_person_and_a_time_that_is_over_end_with_3() {
    let releases = Releases::start().await;
    let approval = "steps = [{ weight = \"5%\", hold = \"0s\", min_requests = 0 }, { weight = \"100%\", hold = \"1m\", approval = true }]";
    let proxy = releases.proxy(approval).await;
    let (code, said, _) = releases.wait(&proxy, &[]).end().await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("v2 paused (approval) at 5%") && said.contains("`tidegate approve web`"), "{said}");
    // The same command follows what runs already.
    let proxy = releases.proxy(HELD).await;
    for _ in 0..2 {
        let (code, said, _) = releases.wait(&proxy, &["--timeout", "1s"]).end().await;
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("over; it goes on"), "{said}");
    }
    assert_eq!(phase(&proxy).await, "progressing");
}

#[tokio::test]
async fn what_is_refused_and_what_is_not_there_end_with_1() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(HELD).await;
    let (code, _, wrong) = Waiting::start(&proxy, &["rollout", "start", "wbe", "v2", "--wait"]).end().await;
    assert!(code == Some(1) && wrong.contains("wbe"), "{code:?} {wrong}");
    let address = proxy.admin.address.clone();
    proxy.shutdown();
    proxy.join().await;
    let command = ["rollout", "start", "web", "--wait", "--admin", &format!("http://{address}")].map(str::to_owned);
    let command = move || Command::new(env!("CARGO_BIN_EXE_tidegate")).args(command).output().expect("the binary");
    let output = tokio::task::spawn_blocking(command).await.expect("no panic");
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && wrong.contains("nothing answers at"), "{wrong}");
}

#[tokio::test]
async fn ctrl_c_ends_the_looking_and_not_the_rollout() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(HELD).await;
    let waiting = releases.wait(&proxy, &[]);
    waiting.says("step 0% -> 50%").await;
    waiting.interrupt();
    let (code, said, wrong) = waiting.end().await;
    assert_eq!(code, Some(130), "{said}{wrong}");
    assert!(
        wrong.contains("the rollout goes on") && wrong.contains("tidegate status --watch --admin http://"),
        "{wrong}"
    );
    assert_eq!(phase(&proxy).await, "progressing");
}

#[tokio::test]
async fn a_connection_that_is_lost_is_found_again() {
    let releases = Releases::start().await;
    let mut process = Process::start(|base| releases.config(base, HELD)).await;
    let waiting = releases.wait(&process, &[]);
    waiting.says("step 0% -> 50%").await;
    process.kill().await;
    waiting.says("it is tried again").await;
    process.start_again().await;
    waiting.says("answers again").await;
    // Events are heard again: this line is not one of those that looks bring.
    let weighed = eventually(WAIT_MAX, "the weight to be taken", || async {
        Some(process.admin.post("/v1/services/web/weight", "{\"weight\":\"60%\"}").await)
            .filter(|answer| answer.status == 200)
    });
    weighed.await;
    waiting.says("weight 50% -> 60% by ").await;
    let told = eventually(WAIT_MAX, "the rollout to be promoted", || async {
        Some(process.admin.post("/v1/services/web/promote", FORCE).await).filter(|answer| answer.status == 200)
    });
    told.await;
    let (code, said, wrong) = waiting.end().await;
    assert_eq!(code, Some(0), "{said}{wrong}");
    assert!(said.contains("web: v2 succeeded after"), "{said}");
}
