//! Tidegate side by side with other proxies. `peers --help`; see the library for the method.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use peers::args::Args;
use peers::failure::{Failure, While};
use peers::measure::Bench;
use peers::origin::Origin;
use peers::peer::{Peer, Places, in_path};
use peers::results::Results;
use peers::{plot, process, report};

/// A directory that is removed when it is dropped.
struct Scratch(PathBuf);

// === impl Scratch ===

impl Scratch {
    /// In memory where the system has a place for that, so that logs cost no disk.
    fn new() -> Result<Self, Failure> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = base.join(format!("tidegate-peers-{}", std::process::id()));
        fs::create_dir_all(&dir).doing("making a directory")?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).doing("making a directory")?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {e}", self.0.display());
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == process::CHILD) {
        eprintln!("{}", process::become_child(arguments));
        return ExitCode::FAILURE;
    }
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; false when some proxy failed under some load.
fn run(args: &Args) -> Result<bool, Failure> {
    process::heed_signals()?;
    process::raise_files();
    let allowed = process::cores().doing("asking for processors")?;
    let (proxy_core, load_core) = choose(args, &allowed)?;
    process::pin_current_thread(load_core).doing("binding to a processor")?;
    let scratch = Scratch::new()?;
    let places = places(args, &scratch.0, proxy_core, load_core)?;
    certificate(&scratch.0)?;
    let origin = Origin::start(load_core).doing("starting the origin")?;
    let bench = Bench { args, places: &places, origin: &origin };
    let mut results = head(args, &places, allowed.len());
    for kind in args.loads() {
        results.loads.push(bench.load(kind)?);
    }
    println!("{}", report::terminal(&results));
    if !args.print_only {
        write(args, &results)?;
    }
    Ok(results.failures().next().is_none())
}

fn choose(args: &Args, cores: &[usize]) -> Result<(usize, usize), Failure> {
    let proxy = args.proxy_core.or_else(|| cores.first().copied());
    let load = args.load_core.or_else(|| cores.iter().copied().find(|core| Some(*core) != proxy));
    match (proxy, load) {
        (Some(proxy), Some(load)) if proxy != load => Ok((proxy, load)),
        _ => Err(Failure("two processors are needed: one for the proxy, one for load and origin".into())),
    }
}

fn places(args: &Args, dir: &Path, proxy_core: usize, load_core: usize) -> Result<Places, Failure> {
    let here = std::env::current_dir()?;
    let yardsticks =
        std::env::current_exe()?.parent().map(Path::to_owned).ok_or_else(|| Failure("no directory".into()))?;
    Ok(Places {
        dir: dir.to_owned(),
        tidegate: here.join(&args.tidegate),
        yardsticks,
        tools: here.join(&args.tools),
        proxy_core,
        load_core,
    })
}

/// A certificate for all proxies: ECDSA on P-256, as most sites have.
fn certificate(dir: &Path) -> Result<(), Failure> {
    let made =
        rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).doing("making a certificate")?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let write = |file: &str, text: &str| fs::write(dir.join(file), text).doing("writing a certificate");
    write("cert.pem", &certificate)?;
    write("key.pem", &key)?;
    write("both.pem", &format!("{certificate}{key}"))
}

fn head(args: &Args, places: &Places, cores: usize) -> Results {
    let kernel = release(&said(Path::new("uname"), &["-srm"]));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Results {
        date: said(Path::new("date"), &["-u", "+%F"]),
        command: args.command.clone().unwrap_or_else(|| format!("peers {}", arguments.join(" "))),
        machine: format!("{cores} processors, {kernel}"),
        versions: versions(places),
        interval: "order statistics of the sign test, at least 95 %",
        pairs: args.pairs,
        seconds: args.seconds,
        loads: Vec::new(),
    }
}

fn versions(places: &Places) -> BTreeMap<String, String> {
    let oha = places.tools.join("bin/oha");
    let programs = [
        ("Tidegate", Peer::Tidegate.program(places), "--version"),
        ("HAProxy", Peer::Haproxy.program(places), "-v"),
        ("nginx", Peer::Nginx.program(places), "-v"),
        ("Envoy", Peer::Envoy.program(places), "--version"),
        ("wrk", in_path("wrk"), "-v"),
        ("h2load", in_path("h2load"), "--version"),
        ("oha", if oha.exists() { oha } else { in_path("oha") }, "--version"),
    ];
    let mut versions = BTreeMap::from([("pingora".to_owned(), "0.9.1".to_owned())]);
    for (name, program, argument) in programs {
        versions.insert(name.into(), version(&said(&program, &[argument])));
    }
    versions
}

/// What `uname` says, its release without what whoever built it added.
fn release(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let mut parts = word.split(['.', '-']);
        match (parts.next(), parts.next()) {
            (Some(major), Some(minor)) if major.bytes().all(|byte| byte.is_ascii_digit()) => format!("{major}.{minor}"),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The first word with a digit and a dot in what a program says about itself, without what its packager added.
fn version(text: &str) -> String {
    let words = text.split([' ', '/', '\n']).map(|word| word.trim_start_matches(|c: char| !c.is_ascii_digit()));
    let found = words
        .filter(|word| word.contains('.'))
        .map(|word| word.split(['-', '+', '[', '~']).next().unwrap_or(word))
        .next();
    found.unwrap_or("missing").to_owned()
}

/// What a program says, on either output; empty when there is no such program.
fn said(program: &Path, arguments: &[&str]) -> String {
    Command::new(program).args(arguments).output().map_or_else(
        |_| String::new(),
        |output| {
            [output.stdout, output.stderr]
                .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
                .join(" ")
                .trim()
                .into()
        },
    )
}

fn write(args: &Args, results: &Results) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(results).doing("writing the results")?;
    fs::write(args.out.join("results.json"), json + "\n").doing("writing results.json")?;
    fs::write(args.out.join("results.svg"), plot::svg(results)).doing("writing results.svg")?;
    let page = fs::read_to_string(&args.readme).doing("reading the README")?;
    fs::write(&args.readme, report::replace(&page, &report::markdown(results))?).doing("writing the README")
}

#[cfg(test)]
mod tests {
    use super::{release, version};

    #[test]
    fn kernels_are_named_by_their_release_alone() {
        assert_eq!(release("Linux 6.1.44-1-amd64 x86_64"), "Linux 6.1 x86_64");
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, expected) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6.12"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright", "4.1.0"),
            ("", "missing"),
        ] {
            assert_eq!(version(text), expected);
        }
    }
}
