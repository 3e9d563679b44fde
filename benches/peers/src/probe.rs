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
}

/// Sends `path` `times` times over one connection, with `arguments` for curl.
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
    Ok(Answer { text: String::from_utf8_lossy(&bytes).into_owned() })
}

// === impl Answer ===

impl Answer {
    /// The values of all lines `name: value`, whatever the case of the name.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.text.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// How many answers have status 200.
    #[must_use]
    pub fn good(&self) -> usize {
        // A status line follows the body before it without a line end.
        let starts = |rest: &&str| rest.starts_with("1.1 200 ") || rest.starts_with("2 200");
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
