//! The command line: argv in, exit code out. Client verbs are requests to the admin API; nothing is decided here.

mod args;
mod audit;
mod check;
mod client;
mod command;
mod demo;
mod endpoint;
mod explain;
mod failure;
mod follow;
mod history;
mod launch;
mod rollout;
mod status;
mod terminal;
mod text;
mod token;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;

use self::args::{Cli, NotParsed, RolloutVerb, Verb};
use self::client::Admin;
use self::failure::Failure;
use self::terminal::{Terminal, complain, report};

/// Exit code of wrong usage, of no connection, and of everything that was refused. 2 and 3 belong to the ends of rollouts.
const FAILED: u8 = 1;

/// Does what `arguments` ask for, the program's name first. Answers go to standard output, errors to standard error.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::parse(arguments.into_iter().collect()) {
        Ok(cli) => cli,
        Err(not_parsed) => return explain_usage(&not_parsed),
    };
    let terminal = Terminal::detect(cli.json);
    perform(cli, terminal).unwrap_or_else(|failure| {
        report(&failure, terminal.json);
        ExitCode::from(FAILED)
    })
}

fn perform(cli: Cli, terminal: Terminal) -> Result<ExitCode, Failure> {
    match cli.verb {
        Verb::Run(config) => launch::run(&check::choose_file(&config)),
        Verb::Check(check) => check::perform(&check, terminal).map(|()| ExitCode::SUCCESS),
        Verb::Completions(asked) => terminal::say(&args::completions(asked.shell)).map(|()| ExitCode::SUCCESS),
        Verb::Demo(demo) => demo::perform(&demo, terminal),
        Verb::Explain(request) => {
            let admin = Admin::choose(&request.admin)?;
            block_on(explain::perform(&admin, &request, terminal))
        }
        Verb::Status(status) => {
            let admin = Admin::choose(&status.admin)?;
            if status.watch {
                block_on(status::watch(&admin, terminal))
            } else {
                block_on(status::once(&admin, terminal))
            }
        }
        Verb::Weight(weight) => {
            let admin = Admin::choose(&weight.admin)?;
            block_on(command::weight(&admin, &weight, terminal))
        }
        Verb::Endpoint(verb) => {
            let place = verb.place();
            let admin = Admin::choose(&place.admin)?;
            block_on(endpoint::perform(&admin, &verb, terminal))
        }
        Verb::Abort(abort) => {
            let admin = Admin::choose(&abort.admin)?;
            block_on(command::abort(&admin, &abort, terminal))
        }
        Verb::Rollout(RolloutVerb::Start(start)) if start.wait => {
            let admin = Admin::choose(&start.admin)?;
            let command = rollout::start_body(&start);
            let wanted = follow::Wanted { service: start.service.as_str(), command, timeout: start.timeout };
            runtime()?.block_on(follow::start(&admin, &wanted, terminal)).map(ExitCode::from)
        }
        Verb::Rollout(verb) => {
            let admin = Admin::choose(verb.admin())?;
            block_on(rollout::rollout(&admin, &verb, terminal))
        }
        Verb::History(asked) => {
            let admin = Admin::choose(&asked.admin)?;
            block_on(history::history(&admin, &asked, terminal))
        }
        Verb::Audit(asked) => block_on(audit::perform(&asked, terminal)),
        Verb::Step(verb) => {
            let admin = Admin::choose(&verb.place().admin)?;
            block_on(rollout::perform(&admin, &verb, terminal))
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    runtime()?.block_on(work).map(|()| ExitCode::SUCCESS)
}

/// A runtime on the calling thread.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new("cannot start an event loop").detail(error.to_string()))
}

/// Help that was asked for is an answer; everything else is wrong usage.
fn explain_usage(not_parsed: &NotParsed) -> ExitCode {
    let error = &not_parsed.error;
    if not_parsed.json && error.use_stderr() {
        complain(&usage_problem(error).to_json().to_string());
    } else {
        // There is nowhere left to tell if that fails.
        let _ = error.print();
    }
    ExitCode::from(usage_exit(error.kind()))
}

fn usage_exit(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        // clap's own 2 belongs to an aborted rollout.
        _ => FAILED,
    }
}

fn usage_problem(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let (title, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let detail = rest.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    Failure::new(title.trim_start_matches("error: ")).detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> clap::Error {
        let words = std::iter::once("tidegate").chain(line.split_whitespace());
        args::parse(words.map(OsString::from).collect()).expect_err(line).error
    }

    #[test]
    fn wrong_usage_exits_with_1_and_asked_for_help_with_0() {
        for line in ["", "nonsense", "weight web", "weight web 5", "--nonsense", "check a b", "demo --seconds x"] {
            assert_eq!(usage_exit(refused(line).kind()), 1, "{line}");
        }
        for line in ["--help", "help", "weight --help", "--version"] {
            assert_eq!(usage_exit(refused(line).kind()), 0, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_a_problem_for_a_program() {
        let problem = usage_problem(&refused("weight web 130%")).to_json();
        assert!(problem["title"].as_str().is_some_and(|t| t.starts_with("invalid value '130%'")), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("--help")), "{problem}");
        assert_eq!(problem["type"], "about:blank");
    }
}
