//! What can be asked on the command line. A refusal names what is allowed.

mod records;
mod rollout;

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use hyper::header::{HeaderName, HeaderValue};

use crate::config;
use crate::core::id::Name;
use crate::core::weight::Weight;

use super::demo::Fault;

pub(super) use records::{Audit, History, ShowRollout};
pub(super) use rollout::{PlanStep, RolloutVerb, StartRollout, StepVerb};

/// Where the admin API is unless told otherwise.
pub(super) const ADMIN_DEFAULT: &str = "http://127.0.0.1:9900";
/// Names the admin API's address when `--admin` is not given.
pub(super) const ADMIN_ENV: &str = "TIDEGATE_ADMIN";
/// Holds the token of the admin API when `--token-file` is not given.
pub(super) const TOKEN_ENV: &str = "TIDEGATE_TOKEN";
/// The configuration file unless told otherwise.
pub(super) const CONFIG_DEFAULT: &str = "./tidegate.toml";
/// Names the configuration file when FILE is not given.
pub(super) const CONFIG_ENV: &str = "TIDEGATE_CONFIG";
/// Longest `--reason`, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 1_024;

/// A Layer-7 proxy that shifts traffic between a stable release and a candidate, and takes it back.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(super) struct Cli {
    /// Answer in JSON: the result on standard output, errors as RFC 9457 problems on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const FILE_HELP: &str = "The configuration file [default: $TIDEGATE_CONFIG, else ./tidegate.toml]";
const ADMIN_HELP: &str =
    "The admin API: http://host:port or unix:/path [default: $TIDEGATE_ADMIN, else http://127.0.0.1:9900]";
const TOKEN_HELP: &str = "A file with the token for the admin API [default: what $TIDEGATE_TOKEN holds, else none]";
const REQUEST_HELP: &str = "The request: a method (GET if left out) and a URL such as http://shop.example.com/cart";

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 wrong usage, no connection, or refused; of `rollout start --wait` also 2 aborted or
rolled back, 3 paused or out of time, 130 detached by Ctrl-C.
Colour is used on a terminal only, and never when NO_COLOR is set.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the proxy until SIGTERM or SIGINT; SIGHUP reloads the file
    Run(ConfigFile),
    /// Check a configuration file: every mistake at once, with its place
    Check(Check),
    /// Show which route, service, variant and endpoint a request would get, and why
    Explain(Explain),
    /// Show what is true now
    Status(Status),
    /// Set the candidate's share of a service's traffic
    Weight(SetWeight),
    /// Take all traffic of a service back to stable, at once
    Abort(Abort),
    /// Begin the rollout of a version, or list them
    #[command(subcommand)]
    Rollout(RolloutVerb),
    #[command(flatten)]
    Step(StepVerb),
    /// Show the rollouts that ended, the newest first: how, why, by whom
    History(History),
    /// Show who did what when, or check that nothing of it was changed
    Audit(Audit),
    /// Drain one endpoint of a service, or let it take requests again
    #[command(subcommand)]
    Endpoint(EndpointVerb),
    /// Print what a shell needs to complete commands: `. <(tidegate completions bash)`
    Completions(Completions),
    /// Watch a rollout, what goes wrong with it, and how it is taken back: everything in this one process
    Demo(Demo),
}

#[derive(Args, Debug)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(help = FILE_HELP)]
    pub(super) file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Show the settings in effect, every default filled in
    #[arg(long)]
    pub(super) print: bool,
    /// Show how long the rollout of each service takes at this many requests per second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) rps: Option<f64>,
}

#[derive(Args, Debug)]
pub(super) struct AdminAddress {
    /// The admin API.
    #[arg(long, value_name = "ADDRESS", help = ADMIN_HELP)]
    pub(super) admin: Option<String>,
    /// Where the token is.
    #[arg(long, value_name = "FILE", help = TOKEN_HELP)]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(override_usage = "tidegate explain [OPTIONS] [METHOD] <URL>")]
pub(super) struct Explain {
    /// One or two words: the method may be left out.
    #[arg(help = REQUEST_HELP, value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    pub(super) request: Vec<String>,
    /// A header of the request; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub(super) headers: Vec<String>,
    /// The address the request comes from
    #[arg(long, value_name = "IP")]
    pub(super) client_ip: Option<IpAddr>,
    #[command(flatten)]
    pub(super) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    /// Show it again and again until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(super) struct SetWeight {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(super) service: Name,
    /// The share, such as 5% or 0.01%
    #[arg(value_parser = Weight::parse, allow_hyphen_values = true)]
    pub(super) weight: Weight,
    /// Why, for the record
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(super) struct Abort {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(super) service: Name,
    /// Why, for the record
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) admin: AdminAddress,
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointVerb {
    /// Send an endpoint no new requests; what is in flight may finish until its drain timeout is over, then it is cut. Kept through reloads
    /// and releases at the same address, not through restarts
    Drain(DrainEndpoint),
    /// Send a drained endpoint requests again
    Undrain(UndrainEndpoint),
}

#[derive(Args, Debug)]
pub(super) struct DrainEndpoint {
    #[command(flatten)]
    pub(super) place: EndpointPlace,
    /// Also the last usable endpoint of stable; needs a reason
    #[arg(long, requires = "reason")]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct UndrainEndpoint {
    #[command(flatten)]
    pub(super) place: EndpointPlace,
}

#[derive(Args, Debug)]
pub(super) struct EndpointPlace {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(super) service: Name,
    /// The endpoint, such as 10.0.0.1:8080
    pub(super) endpoint: String,
    /// Why, for the record
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell
    pub(super) shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// What goes wrong with the candidate in the middle of its rollout
    #[arg(long, value_enum, default_value_t = Fault::Errors)]
    pub(super) fault: Fault,
    /// How long a whole rollout takes; one that is taken back ends sooner
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    pub(super) seconds: u64,
}

/// Why the arguments are not understood, or help that was asked for.
#[derive(Debug)]
pub(super) struct NotParsed {
    /// Whether the errors are wanted in JSON.
    pub(super) json: bool,
    /// What is wrong.
    pub(super) error: clap::Error,
}

/// Reads the arguments, the program's name first.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Cli, NotParsed> {
    // What was refused could not be read in full, so this is looked for by hand; nothing after `--` is an option.
    let json = arguments.iter().take_while(|a| *a != "--").any(|a| a == "--json");
    Cli::try_parse_from(arguments).map_err(|error| NotParsed { json, error })
}

/// What `shell` needs to complete commands.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// What was given, else what the environment says, else `default`. Empty is the same as absent.
pub(super) fn choose(given: Option<&OsStr>, environment: Option<&OsStr>, default: &str) -> OsString {
    let filled = |text: &&OsStr| !text.is_empty();
    given.filter(filled).or(environment.filter(filled)).unwrap_or(OsStr::new(default)).to_owned()
}

fn header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("a header is written as 'Name: value'")?;
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("\"{name}\" is not a header name"))?;
    HeaderValue::from_str(value.trim()).map_err(|_| format!("the value of \"{name}\" has a control character"))?;
    Ok(text.to_owned())
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1e9).contains(rate));
    rate.ok_or("a rate is a number of requests per second, such as 50 or 0.5")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::duration(text).filter(|time| !time.is_zero()).ok_or(config::DURATION_FORM)
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_BYTES_MAX {
        return Err(format!("a reason has at most {REASON_BYTES_MAX} bytes, this one has {}", text.len()));
    }
    Ok(text.to_owned())
}

// === impl EndpointVerb ===

impl EndpointVerb {
    /// Which endpoint is meant.
    pub(super) fn place(&self) -> &EndpointPlace {
        match self {
            Self::Drain(drain) => &drain.place,
            Self::Undrain(undrain) => &undrain.place,
        }
    }

    /// The word of the command line, of the API and of control.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Undrain(_) => "undrain",
        }
    }
}

// === impl Explain ===

impl Explain {
    /// Method and URL.
    pub(super) fn method_and_url(&self) -> (&str, &str) {
        match self.request.as_slice() {
            [method, url, ..] => (method, url),
            [url] => ("GET", url),
            [] => ("GET", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        let arguments = std::iter::once("tidegate").chain(line.split_whitespace()).map(OsString::from).collect();
        parse(arguments).map_err(|refused| refused.error.to_string())
    }

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_issue_is_understood() {
        for line in [
            "run",
            "run a.toml",
            "check --print a.toml --json",
            "explain http://shop.example.com/",
            "explain POST /cart --header x-canary:1 -H cookie:a=b --client-ip ::1",
            "status --watch --admin unix:/run/t.sock",
            "status --token-file ops.token",
            "completions zsh",
            "--json weight web 5% --reason go",
            "abort web --reason slow",
            "rollout start web",
            "rollout start web v2 --endpoint 10.0.0.1:80 --endpoint [::1]:80 --digest sha256:a --supersede --reason go",
            "rollout start web --steps 1%:2m,10%:5m,100%",
            "rollout list web --json",
            "rollout show web",
            "rollout show web 7 --json",
            "history",
            "history web --limit 3 --json",
            "audit --after 7 --service web",
            "audit --verify --json",
            "audit --verify --state-dir /var/lib/tidegate",
            "promote web --full --force --reason hurry",
            "promote web --step 2",
            "pause web",
            "resume web --reason fine",
            "approve web",
            "retry web --version v2 --reason fixed",
            "rollback web",
            "endpoint drain web 10.0.0.1:8080",
            "endpoint drain web [::1]:8080 --force --reason burning",
            "endpoint undrain web 10.0.0.1:8080 --json",
            "rollout start web --wait --timeout 30m",
            "demo --seconds 10",
            "demo --fault hang",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
    }

    #[test]
    fn explain_takes_get_unless_a_method_is_given() {
        let request = |line| match parsed(line).map(|cli| cli.verb) {
            Ok(Verb::Explain(explain)) => explain,
            other => panic!("{other:?}"),
        };
        assert_eq!(request("explain /a").method_and_url(), ("GET", "/a"));
        assert_eq!(request("explain PUT /a").method_and_url(), ("PUT", "/a"));
    }

    #[test]
    fn refusals_name_the_argument_and_what_is_allowed() {
        for (line, argument, allowed) in [
            ("weight web 5", "<WEIGHT>", "a weight is a share such as \"5%\" or \"0.01%\""),
            ("weight web 130%", "<WEIGHT>", "a weight is between 0% and 100%"),
            ("weight web -5%", "<WEIGHT>", "a weight is between 0% and 100%"),
            ("weight web 0.001%", "<WEIGHT>", "grain of 0.01%"),
            ("weight ../x 5%", "<SERVICE>", "1 to 63 letters"),
            ("weight web", "<WEIGHT>", "Usage: tidegate weight"),
            ("demo --seconds 9", "--seconds", "10..=3600"),
            ("demo --seconds 3601", "--seconds", "10..=3600"),
            ("demo --fault fire", "--fault", "none, errors, latency, hang, crash"),
            ("rollout start web --timeout 5m", "--wait", "Usage: tidegate rollout start"),
            ("rollout start web --wait --timeout 5", "--timeout", "\"30s\""),
            ("explain / --header nonsense", "--header", "'Name: value'"),
            ("explain / --header b@d:x", "--header", "not a header name"),
            ("explain / --client-ip home", "--client-ip", "invalid IP address"),
            ("endpoint drain web", "<ENDPOINT>", "Usage: tidegate endpoint drain"),
            ("endpoint drain web a:1 --force", "--reason", "--force"),
            ("endpoint undrain web a:1 --force", "--force", "Usage: tidegate endpoint undrain"),
            ("promote web --full --force", "--reason", "--force"),
            ("promote web --force --reason hurry", "--full", "--force"),
            ("promote web --step 0", "--step", "1..=100"),
            ("rollout start web --endpoint 10.0.0.1:80", "VERSION", "Usage: tidegate rollout start"),
            ("rollout start web -v", "-v", "Usage: tidegate rollout start"),
            ("rollout start web --steps 1%:2m,130%", "--steps", "a weight is between 0% and 100%"),
            ("rollout start web --steps 5%:", "--steps", "5%:30s"),
            ("rollout show web x", "[ID]", "invalid digit"),
            ("history --limit 0", "--limit", "1.."),
            ("audit --verify --service web", "--verify", "--service"),
            ("audit --state-dir a --admin b", "--state-dir", "--admin"),
            ("explain", "<URL>", "[METHOD] <URL>"),
            ("wieght web 5%", "wieght", "weight"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(argument) && message.contains(allowed), "{line}: {message}");
        }
        let long = parsed(&format!("abort web --reason {}", "x".repeat(REASON_BYTES_MAX + 1))).expect_err("too long");
        assert!(long.contains("at most 1024 bytes, this one has 1025"), "{long}");
    }

    #[test]
    fn what_is_given_beats_the_environment_beats_the_default_and_empty_is_absent() {
        let text = |t: &'static str| Some(OsStr::new(t));
        assert_eq!(choose(text("a"), text("b"), "c"), "a");
        assert_eq!(choose(None, text("b"), "c"), "b");
        assert_eq!(choose(None, None, "c"), "c");
        assert_eq!(choose(text(""), text(""), "c"), "c");
    }

    #[test]
    fn a_refusal_knows_whether_json_was_asked_for() {
        let json = |line: &[&str]| parse(line.iter().map(OsString::from).collect()).expect_err("refused").json;
        assert!(json(&["tidegate", "--json", "wieght"]));
        assert!(json(&["tidegate", "weight", "web", "x", "--json"]));
        assert!(!json(&["tidegate", "weight", "web", "x"]));
        assert!(!json(&["tidegate", "check", "a", "--", "--json"]));
    }

    #[test]
    fn a_token_is_never_an_argument() {
        let refused = parsed("status --token hunter2hunter2hunter2").expect_err("visible to everyone");
        assert!(refused.contains("--token-file"), "{refused}");
    }

    #[test]
    fn every_shell_is_told_every_verb() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = completions(shell);
            let rollouts = ["rollout", "promote", "pause", "resume", "approve", "retry", "rollback", "supersede"];
            let others = [
                "tidegate",
                "status",
                "weight",
                "abort",
                "endpoint",
                "completions",
                "token-file",
                "wait",
                "timeout",
                "fault",
            ];
            for word in others.into_iter().chain(rollouts) {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
