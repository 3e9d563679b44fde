//! The tools that make the load: wrk for HTTP/1.1, h2load for HTTP/2, oha for a load by the clock. Each is started, and its result read.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{Failure, While};
use crate::load::{Kind, Load, Protocol};
use crate::peer::{Instance, Places, in_path};
use crate::process::{Child, Program};

/// Streams at once on an HTTP/2 connection.
const STREAMS: u32 = 10;
/// A gRPC message: not compressed, 64 bytes (the length-prefixed message of the gRPC protocol).
const MESSAGE_BYTES: u8 = 64;

/// What a tool found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Answers it counted.
    pub answers: u64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// 99th percentile in microseconds.
    pub p99: f64,
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    tool: Tool,
    stdout: PathBuf,
    log: PathBuf,
    time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Wrk,
    H2load,
    Oha,
}

/// What is sent besides the load itself.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// `NAME=VALUE` of the cookie.
    pub cookie: Option<String>,
    /// Requests per second, by the clock.
    pub rate: Option<u64>,
}

// === impl Running ===

impl Running {
    /// Starts `load` against `instance` for `time`.
    ///
    /// # Errors
    /// When the tool cannot be started.
    pub fn start(
        load: &Load,
        instance: &Instance,
        places: &Places,
        extra: &Extra,
        time: Duration,
    ) -> Result<Self, Failure> {
        let tool = match (load.protocol, extra.rate) {
            (Protocol::Plain, Some(_)) => Tool::Oha,
            (Protocol::Plain | Protocol::Tls, _) => Tool::Wrk,
            _ => Tool::H2load,
        };
        let (stdout, stderr, log) =
            (places.dir.join("tool.out"), places.dir.join("tool.err"), places.dir.join("tool.log"));
        for file in [&stdout, &stderr, &log] {
            let _ = fs::remove_file(file);
        }
        let url = instance.url(load.protocol, load.path);
        let command = match tool {
            Tool::Wrk => wrk(load, places, extra, time, &url)?,
            Tool::H2load => h2load(load, places, time, &url, &log)?,
            Tool::Oha => oha(load, places, extra.rate.unwrap_or(1), time, &url),
        };
        let program =
            Program { name: tool.name(), core: places.load_core, command: &command, stdout: &stdout, stderr: &stderr };
        Ok(Self { child: Child::start(&program)?, tool, stdout, log, time })
    }

    /// Waits for its end and reads its result.
    ///
    /// # Errors
    /// When it does not end in time, and when any request failed.
    pub fn finish(mut self) -> Result<Found, Failure> {
        self.child.finish(self.time + Load::GRACE)?;
        let text = fs::read_to_string(&self.stdout).doing("reading what the tool wrote")?;
        let found = match self.tool {
            Tool::Wrk => read_wrk(&text),
            Tool::H2load => {
                let log = fs::read_to_string(&self.log).doing("reading the log of h2load")?;
                read_h2load(&text, &log)
            }
            Tool::Oha => read_oha(&text),
        }?;
        if found.answers == 0 { Err(Failure(format!("{}: no answer", self.tool.name()))) } else { Ok(found) }
    }
}

// === impl Tool ===

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Wrk => "wrk",
            Self::H2load => "h2load",
            Self::Oha => "oha",
        }
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil() as u64
}

fn wrk(load: &Load, places: &Places, extra: &Extra, time: Duration, url: &str) -> Result<Vec<OsString>, Failure> {
    let script = places.dir.join("load.lua");
    fs::write(&script, include_str!("../configs/load.lua")).doing("writing the script of wrk")?;
    let mut command: Vec<OsString> = vec![in_path("wrk").into(), "-t1".into()];
    command.extend([format!("-c{}", load.connections).into(), format!("-d{}s", seconds(time)).into()]);
    command.extend(["--timeout".into(), "5s".into(), "-s".into(), script.into(), url.into(), "--".into()]);
    match load.kind {
        Kind::Upload => command.push("upload".into()),
        Kind::Close => command.push("close".into()),
        _ => {}
    }
    command.extend(extra.cookie.iter().map(|cookie| format!("cookie={cookie}").into()));
    Ok(command)
}

fn h2load(load: &Load, places: &Places, time: Duration, url: &str, log: &PathBuf) -> Result<Vec<OsString>, Failure> {
    let mut command: Vec<OsString> = vec![in_path("h2load").into(), "-t1".into()];
    command.extend([format!("-c{}", load.connections).into(), format!("-m{STREAMS}").into()]);
    command.extend([format!("-D{}", seconds(time)).into(), "--log-file".into(), log.into()]);
    if load.protocol == Protocol::Grpc {
        command.extend(grpc_arguments(places)?);
    }
    command.push(url.into());
    Ok(command)
}

/// What makes a request of h2load a unary gRPC call.
///
/// # Errors
/// When the file with the message cannot be written.
pub fn grpc_arguments(places: &Places) -> Result<Vec<OsString>, Failure> {
    let file = places.dir.join("message");
    let mut message = vec![0, 0, 0, 0, MESSAGE_BYTES];
    message.resize(message.len() + usize::from(MESSAGE_BYTES), b'x');
    fs::write(&file, message).doing("writing a message")?;
    let fields = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    Ok(fields.map(OsString::from).into_iter().chain(["-d".into(), file.into()]).collect())
}

fn oha(load: &Load, places: &Places, rate: u64, time: Duration, url: &str) -> Vec<OsString> {
    let downloaded = places.tools.join("bin/oha");
    let program = if downloaded.exists() { downloaded } else { in_path("oha") };
    let mut command: Vec<OsString> = vec![program.into()];
    command.extend(["--no-tui", "--output-format", "json", "--latency-correction", "--no-color"].map(Into::into));
    command.extend(["-w".into(), "-z".into(), format!("{}s", seconds(time)).into()]);
    command.extend([
        "-q".into(),
        rate.to_string().into(),
        "-c".into(),
        load.connections.to_string().into(),
        url.into(),
    ]);
    command
}

/// The line that our script writes.
fn read_wrk(text: &str) -> Result<Found, Failure> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or_else(|| Failure("wrk: no result".into()))?;
    let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[answers, connect, read, write, status, timeout, p50, p99] = numbers.as_slice() else {
        return Err(Failure(format!("wrk: not understood: {line}")));
    };
    if connect + read + write + status + timeout > 0 {
        return Err(Failure(format!(
            "wrk: of {answers} answers {status} with an error status; errors: connect {connect}, read {read}, write {write}, timeout {timeout}"
        )));
    }
    Ok(Found { answers, p50: p50 as f64, p99: p99 as f64 })
}

/// The summary, and the log with a line per request: start, status, microseconds.
fn read_h2load(text: &str, log: &str) -> Result<Found, Failure> {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    let number = |line: &str, name: &str| -> u64 {
        let found = line.split([',', ':']).find(|part| part.trim_end().ends_with(name));
        found.and_then(|part| part.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let (requests, codes, protocol) = (line("requests:"), line("status codes:"), line("Application protocol:"));
    if !protocol.contains("h2") {
        return Err(Failure(format!("h2load: not HTTP/2: {protocol}")));
    }
    let answers = number(codes, "2xx");
    let failed = number(requests, "failed") + number(requests, "errored") + number(requests, "timeout");
    let other = number(codes, "3xx") + number(codes, "4xx") + number(codes, "5xx");
    if requests.is_empty() || failed + other > 0 || answers == 0 {
        return Err(Failure(format!("h2load: {requests}; {codes}")));
    }
    let mut micros: Vec<u64> = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    micros.sort_unstable();
    let percentile = |share: usize| micros.get((micros.len() * share / 100).min(micros.len().saturating_sub(1)));
    let (p50, p99) = (percentile(50).copied().unwrap_or(0), percentile(99).copied().unwrap_or(0));
    Ok(Found { answers, p50: p50 as f64, p99: p99 as f64 })
}

fn read_oha(text: &str) -> Result<Found, Failure> {
    let json: serde_json::Value = serde_json::from_str(text).doing("oha: reading its result")?;
    let percentile = |name: &str| json["latencyPercentiles"][name].as_f64().unwrap_or(f64::NAN) * 1e6;
    let codes = json["statusCodeDistribution"].as_object().cloned().unwrap_or_default();
    let errors = json["errorDistribution"].as_object().cloned().unwrap_or_default();
    let failed = codes.keys().any(|code| code != "200") || !errors.is_empty();
    if failed {
        return Err(Failure(format!("oha: status codes {codes:?}, errors {errors:?}")));
    }
    let answers = codes.get("200").and_then(serde_json::Value::as_u64).unwrap_or(0);
    Ok(Found { answers, p50: percentile("p50"), p99: percentile("p99") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_and_its_errors_are_failures() {
        let found = read_wrk("Running...\nRESULT 1000 0 0 0 0 0 120 900\n").unwrap();
        assert_eq!(found, Found { answers: 1_000, p50: 120.0, p99: 900.0 });
        assert!(read_wrk("RESULT 1000 0 0 0 1 0 120 900\n").unwrap_err().0.contains("1 with an error status"));
        assert!(read_wrk("nothing").is_err());
    }

    #[test]
    fn h2load_is_read_and_its_errors_are_failures() {
        let text = |errored: u32| {
            format!(
                "Application protocol: h2\nfinished in 1s\nrequests: 300 total, 310 started, 300 done, {} succeeded, 0 failed, {errored} errored, 0 timeout\nstatus codes: 300 2xx, 0 3xx, 0 4xx, 0 5xx\n",
                300 - errored
            )
        };
        let log = (1..=100).map(|micros| format!("1700000000\t200\t{micros}")).collect::<Vec<_>>().join("\n");
        assert_eq!(read_h2load(&text(0), &log).unwrap(), Found { answers: 300, p50: 51.0, p99: 100.0 });
        assert!(read_h2load(&text(2), &log).is_err());
        assert!(read_h2load("", "").is_err());
    }

    #[test]
    fn oha_is_read_and_its_errors_are_failures() {
        let text = r#"{"latencyPercentiles":{"p50":0.001,"p99":0.002},"statusCodeDistribution":{"200":5},"errorDistribution":{}}"#;
        assert_eq!(read_oha(text).unwrap(), Found { answers: 5, p50: 1_000.0, p99: 2_000.0 });
        assert!(read_oha(&text.replace("\"200\"", "\"503\"")).is_err());
    }
}
