//! The proxy of a test: in this process through the app layer, or as a process of its own through its binary. Either is a [`Site`]: its
//! files, its admin API and its listeners.

use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidegate::app;

use super::client::{Client, Response};
use super::config::Config;
use super::files::TempDir;
use super::wait::{WAIT_MAX, eventually, within, within_time};

/// The name of the configuration file.
const CONFIG: &str = "tidegate.toml";
/// Longest wait for a process to end: the drain timeout of the tests and some.
const EXIT_MAX: Duration = Duration::from_secs(40);

/// Where a proxy is and how to talk to it.
pub(crate) struct Site {
    /// Its files.
    pub dir: TempDir,
    /// Its admin API.
    pub admin: Admin,
    /// What its configuration was built from; a reload starts from the same.
    pub base: Config,
    /// Its listeners by name.
    listeners: Vec<(String, String)>,
}

/// A client of the admin API.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// `IP:PORT` or `unix:PATH`.
    pub address: String,
    /// What it shows; nothing while empty.
    pub token: String,
}

/// A proxy in this process. Dropping it stops it.
pub(crate) struct Proxy {
    site: Site,
    handle: Option<app::Handle>,
}

/// A proxy in a process of its own. Dropping it kills it.
pub(crate) struct Process {
    site: Site,
    child: Child,
}

// === impl Site ===

impl Site {
    /// Where the first listener is bound.
    pub(crate) fn address(&self) -> String {
        self.listeners[0].1.clone()
    }

    /// Where the listener called `name` is bound.
    pub(crate) fn address_of(&self, name: &str) -> String {
        let found = self.listeners.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no listener {name} in {:?}", self.listeners)).1.clone()
    }

    /// A connection to the first listener.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.address()).await
    }

    /// The response to one request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.client().await;
        client.send(request).await;
        client.response().await
    }

    /// The path of the configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join(CONFIG)
    }

    /// Replaces the configuration file at once.
    pub(crate) fn write(&self, text: &str) {
        self.dir.write(CONFIG, text);
    }

    /// Replaces the file and has it reloaded; gives the answer. The file watch may have been faster: then it says `unchanged`.
    pub(crate) async fn reload(&self, text: &str) -> Response {
        self.write(text);
        self.admin.post("/v1/config:reload", "{}").await
    }

    /// The same for a file that has to be accepted.
    pub(crate) async fn reload_ok(&self, config: &Config) {
        let answer = self.reload(&config.text()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.admin.probed().await;
    }
}

// === impl Admin ===

impl Admin {
    /// The API at `IP:PORT` or `unix:PATH`, without a token.
    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), token: String::new() }
    }

    /// The same with a token.
    pub(crate) fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Returns once `/readyz` says that every endpoint was probed.
    pub(crate) async fn ready(&self) {
        eventually(WAIT_MAX, "the proxy to be ready", || async {
            self.try_request("GET", "/readyz", "", "").await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Returns once of every endpoint it is known whether it is ready.
    pub(crate) async fn probed(&self) {
        eventually(WAIT_MAX, "every endpoint to be probed", || async {
            (!self.get("/v1/services").await.text().contains("\"health\":\"unknown\"")).then_some(())
        })
        .await;
    }

    /// The state of an endpoint of `web`, as the API has it.
    pub(crate) async fn endpoint(&self, address: &str) -> Value {
        let web = self.json("/v1/services/web").await;
        let pools = ["stable", "candidate"].into_iter().filter_map(|pool| web[pool]["endpoints"].as_array());
        let found = pools.flatten().find(|endpoint| endpoint["address"] == address).cloned();
        found.unwrap_or_else(|| panic!("no {address} in {web}"))
    }

    /// The state of an endpoint of `web` once its health is `health`.
    pub(crate) async fn until_health(&self, address: &str, health: &str) -> Value {
        eventually(WAIT_MAX, &format!("{address} to be {health}"), || async {
            Some(self.endpoint(address).await).filter(|endpoint| endpoint["health"] == health)
        })
        .await
    }

    /// The state of an endpoint of `web` once its requests have this said of it: `ejected`, `trial`, or nothing.
    pub(crate) async fn until_outlier(&self, address: &str, state: Option<&str>) -> Value {
        eventually(WAIT_MAX, &format!("{address} to be {state:?}"), || async {
            Some(self.endpoint(address).await).filter(|endpoint| endpoint["outlier"]["state"].as_str() == state)
        })
        .await
    }

    /// The answer to a GET.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path, "", "").await
    }

    /// The answer to a POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, "Content-Type: application/json\r\n", body).await
    }

    /// The metric `name`, all its series added up, as the whole number it is.
    pub(crate) async fn count(&self, name: &str) -> u64 {
        format!("{:.0}", self.metric(name, &[]).await).parse().expect("a whole number")
    }

    /// The answer to any request; the fields are whole lines.
    pub(crate) async fn request(&self, method: &str, path: &str, fields: &str, body: &str) -> Response {
        self.try_request(method, path, fields, body)
            .await
            .unwrap_or_else(|e| panic!("{method} {path} at {}: {e}", self.address))
    }

    /// The answer to a POST of JSON, if the process lives to give one.
    pub(crate) async fn try_post(&self, path: &str, body: &str) -> Option<Response> {
        self.try_request("POST", path, "Content-Type: application/json\r\n", body).await.ok()
    }

    async fn try_request(&self, method: &str, path: &str, fields: &str, body: &str) -> Result<Response, String> {
        let host = if self.address.starts_with("unix:") { "localhost" } else { &self.address };
        let length = body.len();
        let token =
            if self.token.is_empty() { String::new() } else { format!("Authorization: Bearer {}\r\n", self.token) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}{fields}Content-Length: {length}\r\n\r\n"
        );
        let mut client = Client::try_connect(&self.address).await.map_err(|e| e.to_string())?;
        client.try_send([head.as_bytes(), body.as_bytes()].concat()).await.map_err(|e| e.to_string())?;
        within("an answer of the admin API", client.try_response(method)).await.map_err(|fault| fault.to_string())
    }

    /// What `GET path` says, which has to be JSON and a 200.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        serde_json::from_str(response.text()).expect("JSON")
    }

    /// `/v1/status`
    pub(crate) async fn status(&self) -> Value {
        self.json("/v1/status").await
    }

    /// Sets a weight that has to be accepted.
    pub(crate) async fn weight(&self, service: &str, weight: &str) -> Value {
        self.verb(service, "weight", &format!("{{\"weight\":{weight:?}}}")).await
    }

    /// Aborts.
    pub(crate) async fn abort(&self, service: &str) -> Value {
        self.verb(service, "abort", "{}").await
    }

    async fn verb(&self, service: &str, verb: &str, body: &str) -> Value {
        let response = self.post(&format!("/v1/services/{service}/{verb}"), body).await;
        assert_eq!(response.status, 200, "{verb} {service}: {}", response.text());
        serde_json::from_str(response.text()).expect("JSON")
    }

    /// `/metrics`
    pub(crate) async fn metrics(&self) -> String {
        let response = self.get("/metrics").await;
        assert_eq!(response.status, 200);
        response.text().to_owned()
    }

    /// The sum of all series of a metric whose labels contain every one of `labels` (`variant="candidate"`).
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    async fn listeners(&self) -> Vec<(String, String)> {
        let status = self.status().await;
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let listeners = status["listeners"].as_array().expect("a list of listeners");
        listeners.iter().map(|l| (text(&l["name"]), text(&l["bound"]))).collect()
    }
}

/// Adds up series of Prometheus text.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    let matching = series.filter(|rest| labels.iter().all(|label| rest.contains(label)));
    matching.map(|rest| rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a value")).sum()
}

// === impl Proxy ===

impl Proxy {
    /// Starts with what `build` makes of the base configuration.
    pub(crate) async fn start(build: impl FnOnce(Config) -> Config) -> Self {
        let dir = TempDir::new();
        let text = build(Config::new(&dir)).text();
        Self::start_text(dir, &text).await
    }

    /// The same, but without waiting for `/readyz`.
    pub(crate) async fn start_unready(build: impl FnOnce(Config) -> Config) -> Self {
        let dir = TempDir::new();
        dir.write(CONFIG, &build(Config::new(&dir)).text());
        Self::launch(dir).await
    }

    /// Starts with this file.
    pub(crate) async fn start_text(dir: TempDir, text: &str) -> Self {
        dir.write(CONFIG, text);
        Self::start_file(dir).await
    }

    /// Starts with the `tidegate.toml` that is in `dir`, whatever kind of file it is.
    pub(crate) async fn start_file(dir: TempDir) -> Self {
        let proxy = Self::launch(dir).await;
        proxy.admin.ready().await;
        proxy
    }

    async fn launch(dir: TempDir) -> Self {
        let (config, base) = (dir.path().join(CONFIG), Config::new(&dir));
        let options = app::Options { config: config.clone() };
        let started = tokio::task::spawn_blocking(move || app::start(&options));
        let handle = within("the proxy to start", started).await.expect("no panic at the start");
        let text = || std::fs::read_to_string(config).unwrap_or_default();
        let handle = handle.unwrap_or_else(|e| panic!("the proxy does not start: {e}\n{}", text()));
        let admin = Admin::at(handle.addresses.admin.trim_start_matches("http://"));
        let listeners = handle.addresses.listeners.clone();
        Self { site: Site { dir, admin, base, listeners }, handle: Some(handle) }
    }

    /// Looks again where the listeners are bound, after a reload that changed them.
    pub(crate) async fn look(&mut self) {
        self.site.listeners = self.site.admin.listeners().await;
    }

    /// Where probes are answered.
    pub(crate) fn probes(&self) -> Admin {
        let probes = self.handle.as_ref().and_then(|handle| handle.addresses.probes.clone());
        Admin::at(&probes.expect("a probe listener"))
    }

    /// Begins to drain.
    pub(crate) fn shutdown(&self) {
        self.handle.as_ref().expect("still running").shutdown();
    }

    /// Returns once it has ended.
    pub(crate) async fn join(mut self) {
        if let Some(handle) = self.handle.take() {
            let joined = tokio::task::spawn_blocking(move || handle.join());
            within_time(EXIT_MAX, "the proxy to end", joined).await.expect("no panic at the end");
        }
    }
}

impl Deref for Proxy {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
        }
    }
}

// === impl Process ===

impl Process {
    /// Starts the binary with what `build` makes of the base configuration; the admin API is on a unix socket, unless `build` says otherwise.
    pub(crate) async fn start(build: impl FnOnce(Config) -> Config) -> Self {
        let dir = TempDir::new();
        let admin = Admin::at(&format!("unix:{}", dir.path().join("admin.sock").display()));
        let base = Config::new(&dir).admin(&admin.address);
        let text = build(base.clone()).text();
        dir.write(CONFIG, &text);
        let child = Self::spawn(&dir, &[]);
        let mut process = Self { site: Site { dir, admin, base, listeners: Vec::new() }, child };
        process.ready().await;
        process
    }

    /// Starts it; with `faults`, what strace does to its system calls (`pwrite64:error=ENOSPC:when=9+`).
    fn spawn(dir: &TempDir, faults: &[String]) -> Child {
        let log = || File::options().create(true).append(true).open(dir.path().join("log")).expect("a log file");
        let binary = env!("CARGO_BIN_EXE_tidegate");
        let mut command = Command::new(if faults.is_empty() { binary } else { "strace" });
        if !faults.is_empty() {
            // As a grandchild, so that the process is a child of ours all the same.
            command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
            // Only the calls that are to fail are stopped then; signals are not sent that way.
            command.args((!faults.iter().any(|fault| fault.contains("signal="))).then_some("--seccomp-bpf"));
            for fault in faults {
                let calls = fault.split(':').next().unwrap_or_default();
                command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")]);
            }
            command.arg(binary);
        }
        command
            .arg("run")
            .arg(dir.path().join(CONFIG))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("the binary, and strace where calls are to fail")
    }

    /// Kills it, the hard way.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Starts it again after its end, in the same directory.
    pub(crate) async fn start_again(&mut self) {
        self.child = Self::spawn(&self.site.dir, &[]);
        self.ready().await;
    }

    /// Starts it again with faults in its system calls, as strace injects them; whether it is ready, or has ended before.
    pub(crate) async fn start_again_with(&mut self, faults: &[String]) -> bool {
        self.child = Self::spawn(&self.site.dir, faults);
        let admin = self.site.admin.clone();
        let lives = eventually(WAIT_MAX, "the process to be ready, or to end", || {
            let ended = self.child.try_wait().expect("a child of ours").is_some();
            let admin = admin.clone();
            async move {
                let ready = admin.try_request("GET", "/readyz", "", "").await.is_ok_and(|answer| answer.status == 200);
                (ended || ready).then_some(!ended)
            }
        })
        .await;
        if lives {
            self.site.listeners = self.site.admin.listeners().await;
        }
        lives
    }

    /// Kills it and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    async fn ready(&mut self) {
        let admin = self.site.admin.clone();
        eventually(WAIT_MAX, "the process to be ready", || {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "the process ended with {ended:?}: {}", self.log());
            let admin = admin.clone();
            async move { admin.try_request("GET", "/readyz", "", "").await.ok().filter(|answer| answer.status == 200) }
        })
        .await;
        self.site.listeners = self.site.admin.listeners().await;
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child");
        kill_process(pid, signal).expect("a child of ours");
    }

    /// How it ended, once it has.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually(EXIT_MAX, "the process to end", || {
            let ended = self.child.try_wait().expect("a child of ours");
            async move { ended }
        })
        .await
    }

    /// Processor time of its threads so far, as the scheduler has it.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a running process");
        let nanos = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        let nanos: u64 = tasks.filter_map(nanos).sum();
        assert!(nanos > 0, "no figures in /proc/PID/task/*/schedstat");
        Duration::from_nanos(nanos)
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }
}

impl Deref for Process {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up() {
        let text = "# HELP a_total x\na_total{v=\"1\",w=\"x\"} 2\na_total{v=\"2\",w=\"x\"} 3\na_total_more 9\nb 1.5\n";
        assert!((sum(text, "a_total", &[]) - 5.0).abs() < f64::EPSILON);
        assert!((sum(text, "a_total", &["v=\"2\""]) - 3.0).abs() < f64::EPSILON);
        assert!((sum(text, "b", &[]) - 1.5).abs() < f64::EPSILON);
    }
}
