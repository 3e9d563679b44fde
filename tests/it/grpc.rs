//! gRPC with a real client and a real server (grpcio) on the two ends: every kind of call, deadlines, cancellation, errors, flow control,
//! and no call lost while weights change and the file is reloaded. In plain text (h2c by prior knowledge) and through TLS.
//!
//! The Python side is in `grpc/server.py` and `grpc/client.py`; its interpreter is set up by `.ci/tools grpc`, which `make test` runs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::wait::{WAIT_MAX, within_time};

/// Longest time for a scenario.
const SCENARIO_MAX: Duration = Duration::from_secs(120);
/// Weight changes and reloads during the load, at least.
const CHANGES_MIN: u64 = 20;
/// The name clients ask TLS for.
const NAME: &str = "grpc.test";

/// A gRPC server in a process of its own. Dropping it kills it.
struct Server {
    child: Child,
    port: u16,
}

/// A gRPC client that plays one scenario in a process of its own. Dropping it kills it.
struct Scenario {
    name: &'static str,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

/// How clients reach the proxy.
#[derive(Clone, Copy, Debug)]
enum Over {
    Plain,
    Tls,
}

/// A proxy between clients and two servers.
struct Between {
    stable: Server,
    candidate: Server,
    proxy: Proxy,
    /// The listener's lines, for reloads.
    lines: String,
    /// What clients trust; `-` without TLS.
    trust: String,
}

// === impl Server ===

impl Server {
    async fn start(version: &'static str) -> Self {
        let started = tokio::task::spawn_blocking(move || {
            // Its standard input stays open as long as we live: then it ends by itself, whatever happens to us.
            let mut child = python("server.py", &[version]);
            let port = line_after(&mut BufReader::new(child.stdout.take().expect("a pipe")), "PORT ");
            Self { child, port: port.parse().expect("a port") }
        });
        within_time(WAIT_MAX, "a gRPC server", started).await.expect("no panic at its start")
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Scenario ===

impl Scenario {
    fn start(name: &'static str, address: &str, trust: &str) -> Self {
        let mut child = python("client.py", &[address, trust, name]);
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let stderr = child.stderr.take().expect("a pipe");
        Self { name, child, stdout, stderr }
    }

    /// Waits for its end, which has to be a good one; gives the rest of what it said.
    fn finish(mut self) -> String {
        let (mut said, mut complained) = (String::new(), String::new());
        self.stdout.read_to_string(&mut said).expect("text");
        self.stderr.read_to_string(&mut complained).expect("text");
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{}: {complained}", self.name);
        said
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Between ===

impl Between {
    async fn start(over: Over) -> Self {
        let (stable, candidate) = (Server::start("v1").await, Server::start("v2").await);
        let dir = TempDir::new();
        let authority = Authority::new();
        let (cert, key) = authority.issue(&[NAME]).write(&dir, "listener");
        let (lines, trust) = match over {
            Over::Plain => (String::new(), "-".to_owned()),
            Over::Tls => {
                let entry = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
                let tls = format!("tls = {{ certificates = [{entry}] }}");
                (tls, dir.write("ca.pem", &authority.pem()).display().to_string())
            }
        };
        let config = build(Config::new(&dir), &lines, &stable, &candidate, 0);
        let proxy = Proxy::start_text(dir, &config.text()).await;
        Self { stable, candidate, proxy, lines, trust }
    }

    fn scenario(&self, name: &'static str) -> Scenario {
        Scenario::start(name, &self.proxy.address(), &self.trust)
    }

    async fn play(&self, name: &'static str) {
        let scenario = self.scenario(name);
        let played = tokio::task::spawn_blocking(move || scenario.finish());
        within_time(SCENARIO_MAX, name, played).await.unwrap_or_else(|failed| panic!("{name}: {failed}"));
    }

    /// Calls without a pause while the weight changes and the file is reloaded. None may be lost, and both releases must have had some.
    async fn shift(&self) {
        let scenario = self.scenario("load");
        let played = tokio::task::spawn_blocking(move || scenario.finish());
        let mut turn = 0;
        while !played.is_finished() {
            turn += 1;
            let weight = ["10%", "60%", "100%", "0%", "35%"][usize::try_from(turn % 5).expect("small")];
            self.proxy.admin.weight("web", weight).await;
            let config = build(self.proxy.base.clone(), &self.lines, &self.stable, &self.candidate, turn);
            self.proxy.reload_ok(&config).await;
        }
        let said = within_time(SCENARIO_MAX, "the load", played).await.expect("no call lost");
        let served = said.lines().find_map(|line| line.strip_prefix("SERVED ")).expect("what was served");
        assert!(served.contains("v1=") && served.contains("v2="), "only one release was used: {served}");
        assert!(turn >= CHANGES_MIN, "only {turn} changes during the load");
    }
}

/// Both releases over HTTP/2; what differs from turn to turn makes a reload of it.
fn build(base: Config, listener: &str, stable: &Server, candidate: &Server, turn: u64) -> Config {
    let upstream = format!("protocol = \"http2\"\nconnect_timeout = \"{}ms\"", 1_000 + turn % 2);
    base.listen("127.0.0.1:0", listener)
        .web(&[&stable.address()], &[&candidate.address()])
        .set("services.web.upstream", &upstream)
}

/// A script of ours under the interpreter that has grpcio.
fn python(script: &str, args: &[&str]) -> Child {
    let interpreter = interpreter();
    assert!(
        interpreter.exists(),
        "{} is missing: `.ci/tools grpc` (or `make test`) installs it",
        interpreter.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc").join(script);
    let mut command = Command::new(interpreter);
    command.arg(script).args(args).env_remove("http_proxy").env_remove("https_proxy");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("an interpreter")
}

/// `target/python/bin/python`, wherever `target` is: this binary is in `target/PROFILE/deps`.
fn interpreter() -> PathBuf {
    let own = std::env::current_exe().expect("a binary");
    own.ancestors().nth(3).expect("target").join("python/bin/python")
}

fn line_after(lines: &mut impl BufRead, prefix: &str) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).expect("a pipe");
    let rest = line.trim_end().strip_prefix(prefix);
    rest.unwrap_or_else(|| panic!("{prefix:?} was expected, not {line:?}")).to_owned()
}

async fn every_kind_of_call(over: Over) {
    let between = Between::start(over).await;
    for name in ["unary", "client_streaming", "server_streaming", "bidirectional", "many_streams", "errors"] {
        between.play(name).await;
    }
}

async fn ends_before_the_end(over: Over) {
    let between = Between::start(over).await;
    let bad = "tidegate_bad_attempts_total";
    between.play("cancellation").await;
    assert_eq!(between.proxy.admin.count(bad).await, 0, "clients leave for reasons of their own");
    between.play("deadlines").await;
    let counted = between.proxy.admin.count(bad).await;
    // The other one had its answer begun: it counts only if the server is the first to say that its time is over.
    assert!((1..=2).contains(&counted), "{counted}: the call that was not answered until its deadline");
}

#[tokio::test]
async fn calls_of_every_kind_in_plain_text() {
    every_kind_of_call(Over::Plain).await;
}

#[tokio::test]
async fn calls_of_every_kind_through_tls() {
    every_kind_of_call(Over::Tls).await;
}

#[tokio::test]
async fn deadlines_and_cancellation_in_plain_text() {
    ends_before_the_end(Over::Plain).await;
}

#[tokio::test]
async fn deadlines_and_cancellation_through_tls() {
    ends_before_the_end(Over::Tls).await;
}

#[tokio::test]
async fn large_messages_pass_window_by_window() {
    Between::start(Over::Plain).await.play("large").await;
    Between::start(Over::Tls).await.play("large").await;
}

#[tokio::test]
async fn no_call_is_lost_while_weights_change_and_the_file_reloads() {
    Between::start(Over::Plain).await.shift().await;
}

#[tokio::test]
async fn no_call_is_lost_through_tls_either() {
    Between::start(Over::Tls).await.shift().await;
}
