//! An upstream that is a process of its own, to be killed, stopped, cut off and started again: this test binary, run once more.
//!
//! The copy runs one test, [`tests::an_origin_is_a_process`], which finds the socket of its master in the environment and obeys the lines that
//! come over it. Whatever happens to the master, the copy ends with that socket.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::files::TempDir;
use super::upstream::{Act, Behaviour, Upstream, answer, read_body};
use super::wait::within;

/// Where the copy finds its master's socket.
const CONTROL: &str = "TIDEGATE_TEST_ORIGIN";
/// What the copy runs.
const SELF: &str = "harness::origin::tests::an_origin_is_a_process";

/// The process. Dropping it kills it.
pub(crate) struct Origin {
    name: String,
    /// `127.0.0.1:PORT`; the port is the same after every start.
    address: String,
    dir: TempDir,
    control: UnixListener,
    running: Option<Running>,
}

struct Running {
    child: Child,
    lines: BufReader<UnixStream>,
}

// === impl Origin ===

impl Origin {
    /// Starts one on a free port of the loopback that answers with its name, as body and as `x-version`, after `pause`.
    pub(crate) async fn start(name: &str, pause: Duration) -> Self {
        let dir = TempDir::new();
        let control = UnixListener::bind(dir.path().join("control")).expect("a socket in a new directory");
        let mut origin = Self { name: name.into(), address: "127.0.0.1:0".into(), dir, control, running: None };
        origin.restart(pause).await;
        origin
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, or did.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A new process in the place of one that is gone.
    pub(crate) async fn restart(&mut self, pause: Duration) {
        assert!(self.running.is_none(), "it runs already");
        let child = Command::new(std::env::current_exe().expect("a binary"))
            .args([SELF, "--exact", "--nocapture", "--test-threads=1"])
            .env(CONTROL, self.dir.path().join("control"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("this binary again");
        let (stream, _) = within("the copy to call", self.control.accept()).await.expect("a listening socket");
        self.running = Some(Running { child, lines: BufReader::new(stream) });
        self.pause(pause).await;
        self.address = self.say(&format!("listen {}", self.address)).await;
    }

    /// Kills it as `kill -9` does. When this returns, the system has closed all it had open.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("a running process");
        running.child.kill().expect("a child of ours");
        running.child.wait().expect("a child of ours");
    }

    /// Stops it in its tracks. The system goes on to accept connections in its name, and bytes.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// How long it takes for each answer from now on.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        let line = format!("pause {} {}", self.name, pause.as_millis());
        self.say(&line).await;
    }

    /// Listens no more and cuts what is open, so that the system refuses in its name; the process lives on.
    pub(crate) async fn refuse(&mut self) {
        self.say("refuse").await;
    }

    /// Listens again.
    pub(crate) async fn listen(&mut self) {
        let line = format!("listen {}", self.address);
        self.say(&line).await;
    }

    fn signal(&self, signal: Signal) {
        let id = self.running.as_ref().expect("a running process").child.id();
        let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("the id of a child");
        kill_process(id, signal).expect("a child of ours");
    }

    /// Has a line obeyed; gives the answer.
    async fn say(&mut self, line: &str) -> String {
        let lines = &mut self.running.as_mut().expect("a running process").lines;
        let mut answer = String::new();
        within(line, async {
            lines.write_all(format!("{line}\n").as_bytes()).await.expect("the copy listens");
            lines.read_line(&mut answer).await.expect("the copy answers");
        })
        .await;
        assert!(answer.ends_with('\n'), "the copy ended at {line:?}");
        answer.trim_end().to_owned()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended already.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// What the copy does: obeys until its master is gone.
async fn obey(control: PathBuf) {
    // One that is stopped would not notice that the socket has ended.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("a wish the kernel grants");
    let mut lines = BufReader::new(UnixStream::connect(control).await.expect("the master's socket"));
    let mut upstream: Option<Upstream> = None;
    let mut behaviour = Behaviour::hang();
    let mut line = String::new();
    while matches!(lines.read_line(&mut line).await, Ok(n) if n > 0) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut said = String::from("done");
        match words[..] {
            ["listen", address] => {
                let listening = Upstream::start_at(address, behaviour.clone()).await;
                said = listening.address();
                upstream = Some(listening);
            }
            ["pause", name, millis] => {
                let millis = millis.parse().expect("a number of milliseconds");
                behaviour = named(name, Duration::from_millis(millis));
                if let Some(upstream) = &upstream {
                    upstream.behave(behaviour.clone());
                }
            }
            ["refuse"] => {
                if let Some(mut upstream) = upstream.take() {
                    upstream.stop().await;
                }
            }
            _ => panic!("no command: {line:?}"),
        }
        line.clear();
        if lines.write_all(format!("{said}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn named(name: &str, pause: Duration) -> Behaviour {
    Behaviour::script([read_body(), Act::Pause(pause), answer(200, &[&format!("x-version: {name}")], name)])
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::wait::quiet;
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    async fn connected(origin: &Origin) -> Client {
        let mut client = Client::connect(origin.address()).await;
        client.send(GET).await;
        assert_eq!(client.response().await.version(), "a");
        client
    }

    /// Both the test of [`Origin`] and, with a master in the environment, what the copy runs.
    #[tokio::test]
    async fn an_origin_is_a_process() {
        if let Some(control) = std::env::var_os(CONTROL) {
            return obey(control.into()).await;
        }
        let mut origin = Origin::start("a", Duration::ZERO).await;
        let mut client = connected(&origin).await;
        origin.stop();
        let mut late = Client::connect(origin.address()).await;
        for stopped in [&mut client, &mut late] {
            stopped.send(GET).await;
            quiet(Duration::from_millis(50), "a stopped process is silent", stopped.any_head()).await;
        }
        origin.go_on();
        assert_eq!(client.response().await.version(), "a");
        assert_eq!(late.response().await.version(), "a");

        origin.kill();
        client.expect_close().await;
        assert!(Client::try_connect(origin.address()).await.is_err(), "nobody is there");
        let address = origin.address().to_owned();
        origin.restart(Duration::ZERO).await;
        assert_eq!(origin.address(), address);
        let mut client = connected(&origin).await;

        origin.refuse().await;
        client.expect_close().await;
        assert!(Client::try_connect(origin.address()).await.is_err(), "it does not listen");
        origin.pause(Duration::from_millis(50)).await;
        origin.listen().await;
        connected(&origin).await;
    }
}
