//! Requests by hand, through curl, for the check before a run.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use crate::failure::{Failure, While};
use crate::load::{Load, Protocol};
use crate::peer::{Instance, Places, in_path};
use crate::process::{Child, Program};
use crate::tool::grpc_arguments;

/// Longest for one call of curl.
const CALL: Duration = Duration::from_secs(10);

/// Answers of one call, each as its head and body in one text, in order.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Head, body and trailers as curl shows them.
    pub text: String,
    /// The version of HTTP that was asked for.
    pub version: &'static str,
}

/// Sends `path` `times` times, with `arguments` for curl; over one connection, except with prior knowledge of HTTP/2, where curl 7.88 fails
/// to use one twice.
///
/// # Errors
/// When curl fails; an error status is no failure here.
pub fn ask(
    load: &Load,
    instance: &Instance,
    places: &Places,
    path: &str,
    times: usize,
    arguments: &[&str],
) -> Result<Answer, Failure> {
    let single = matches!(load.protocol, Protocol::H2c | Protocol::Grpc);
    let (calls, each) = if single { (times, 1) } else { (1, times) };
    let mut text = String::new();
    for _ in 0..calls {
        text.push_str(&call(load, instance, places, path, each, arguments)?);
    }
    Ok(Answer { text, version: if load.protocol.is_http2() { "2" } else { "1.1" } })
}

fn call(
    load: &Load,
    instance: &Instance,
    places: &Places,
    path: &str,
    times: usize,
    arguments: &[&str],
) -> Result<String, Failure> {
    let (stdout, stderr) = (places.dir.join("curl.out"), places.dir.join("curl.err"));
    for file in [&stdout, &stderr] {
        let _ = fs::remove_file(file);
    }
    let mut command: Vec<OsString> = vec![in_path("curl").into()];
    command.extend(["-q", "-sS", "-k", "-i", "--noproxy", "*", "--max-time", "8"].map(Into::into));
    command.push(
        match load.protocol {
            Protocol::Plain | Protocol::Tls => "--http1.1",
            Protocol::H2 => "--http2",
            Protocol::H2c | Protocol::Grpc => "--http2-prior-knowledge",
        }
        .into(),
    );
    if load.protocol == Protocol::Grpc {
        for argument in grpc_arguments(places)? {
            // curl has another name for the file it sends.
            match argument.to_str() {
                Some("-d") => command.push("--data-binary".into()),
                Some(file) if file.starts_with('/') => command.push(format!("@{file}").into()),
                _ => command.push(argument),
            }
        }
    }
    command.extend(arguments.iter().map(Into::into));
    command.extend((0..times).map(|_| instance.url(load.protocol, path).into()));
    let program = Program { name: "curl", core: places.load_core, command: &command, stdout: &stdout, stderr: &stderr };
    Child::start(&program)?.finish(CALL)?;
    let bytes = fs::read(&stdout).doing("reading an answer")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// === impl Answer ===

impl Answer {
    /// The values of all lines `name: value`, whatever the case of the name.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.text.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// How many answers have status 200, in the version that was asked for.
    #[must_use]
    pub fn good(&self) -> usize {
        // A status line follows the body before it without a line end.
        let starts = |rest: &&str| rest.strip_prefix(self.version).is_some_and(|rest| rest.starts_with(" 200"));
        self.text.split("HTTP/").filter(starts).count()
    }

    /// The first lines, for a message.
    #[must_use]
    pub fn start(&self) -> String {
        self.text.chars().take(200).collect::<String>().replace(['\r', '\n'], " ")
    }

    /// `NAME=VALUE` of the first cookie that is issued.
    #[must_use]
    pub fn cookie(&self) -> Option<String> {
        let value = *self.values("set-cookie").first()?;
        Some(value.split(';').next()?.trim().to_owned())
    }
}
