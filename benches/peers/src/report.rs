//! The figures as tables: for the terminal, and between the markers of the README.

use std::fmt::Write;

use crate::failure::Failure;
use crate::load::{Kind, Measure};
use crate::page;
use crate::peer::Peer;
use crate::results::{LoadResult, PeerResult, Results};
use crate::stats::Median;

/// The name of the markers on the page.
const MARKERS: &str = "peers";

/// Everything, for the terminal.
#[must_use]
pub fn terminal(results: &Results) -> String {
    let mut out = format!("\n{}; {}\n", results.machine, results.date);
    for load in &results.loads {
        let unit = unit(load.measure);
        let _ = writeln!(out, "\n{} ({unit}; ratio: Tidegate / peer, median of pairs [95 % interval])", load.title);
        let _ = writeln!(
            out,
            "  {:<16}{:>24}{:>24}  {:<18}{:>11}{:>9}{:>9}{:>9}{:>10}",
            "", "value", "ratio", "wanted", "requests/s", "p50 us", "p99 us", "RSS MiB", "syscalls"
        );
        for peer in &load.peers {
            let _ = writeln!(out, "{}", row(peer, load.measure));
        }
    }
    for (load, peer, reason) in results.failures() {
        let _ = writeln!(out, "\nFAILED: {}, {}: {reason}", load.title, peer.peer.title());
    }
    out
}

fn row(peer: &PeerResult, measure: Measure) -> String {
    let name = peer.peer.title();
    if let Some(reason) = peer.not_suited {
        return format!("  {name:<16}  {reason}");
    }
    let mut row = format!("  {name:<16}");
    let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    let of = |median: Option<Median>| median.map(|median| median.median);
    let wanted = match (peer.goal, peer.reached) {
        (Some(goal), reached) => {
            let high = goal.high.map_or(String::new(), |high| format!(" [{high}]"));
            let word = match reached {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "?",
            };
            format!("<= {:.2}{high} {word}", goal.median)
        }
        (None, _) => String::new(),
    };
    let _ = write!(row, "{:>24}{:>24}  {wanted:<18}", interval(peer.value, 2), interval(peer.ratio, 3));
    let timed = |value| if measure == Measure::BytesPerConnection { None } else { value };
    let _ = write!(row, "{:>11}", number(timed(of(peer.rate)), 0));
    let _ = write!(row, "{:>9}{:>9}", number(timed(of(peer.p50)), 0), number(timed(of(peer.p99)), 0));
    let _ = write!(row, "{:>9}", number(peer.resident.map(|bytes| bytes as f64 / f64::from(1 << 20)), 1));
    let _ = write!(row, "{:>10}", number(peer.calls, 2));
    if peer.failure.is_some() {
        row.push_str("  FAILED, see below");
    }
    if let Some(reason) = &peer.calls_failure {
        let _ = write!(row, "  (no system calls: {reason})");
    }
    row
}

/// The section of the README.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut out = format!(
        "`{}`, {}; {}. {} pairs of {} s per load. Proxy on one processor, load and origin on another.\n\n",
        results.command, results.date, results.machine, results.pairs, results.seconds
    );
    let _ = writeln!(out, "![CPU per request beside Tidegate's](benches/peers/results.svg)\n");
    out.push_str("CPU per request (the last rows: what they name). Under each peer: Tidegate's over the peer's, median and 95 % interval; below 1 Tidegate\n");
    out.push_str("is cheaper. The last two only forward: no split, no cookie, no added fields.\n\n");
    let peers = peers(results);
    out.push_str("| load | Tidegate |");
    for peer in &peers {
        let _ = write!(out, " {} |", peer.title());
    }
    out.push_str("\n|---|---|");
    out.push_str(&"---|".repeat(peers.len()));
    out.push('\n');
    for load in &results.loads {
        let title = if load.measure == Measure::P99 { format!("{}: p99", load.title) } else { load.title.to_owned() };
        let _ = write!(out, "| {title} | {} |", own(load));
        for peer in &peers {
            let _ =
                write!(out, " {} |", load.peers.iter().find(|result| result.peer == *peer).map_or("–".into(), beside));
        }
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&details(results));
    for (load, peer, reason) in results.failures() {
        let _ = writeln!(out, "- Failed: {}, {}: {}", load.title, peer.peer.title(), one_line(reason));
    }
    let versions: Vec<String> = results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(out, "\nEvery run: [results.json](benches/peers/results.json). {}.", versions.join(", "));
    out
}

/// Everything else that was measured, folded away.
fn details(results: &Results) -> String {
    let mut out = String::from("<details><summary>Requests per second, latency, memory and system calls</summary>\n\n");
    out.push_str("| load | proxy | requests/s | p50 | p99 | memory | system calls per request |\n|---|---|---|---|---|---|---|\n");
    let timed = results.loads.iter().filter(|load| load.measure != Measure::BytesPerConnection);
    for (load, peer) in timed.flat_map(|load| load.peers.iter().map(move |peer| (load, peer))) {
        let (Some(rate), Some(p50), Some(p99)) = (peer.rate, peer.p50, peer.p99) else { continue };
        let memory =
            peer.resident.map_or("–".into(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
        let calls = peer.calls.map_or("–".into(), |calls| format!("{calls:.1}"));
        let (title, name) = (load.title, peer.peer.title());
        let (rate, p50, p99) = (rate.median, p50.median, p99.median);
        let _ = writeln!(out, "| {title} | {name} | {rate:.0} | {p50:.0} µs | {p99:.0} µs | {memory} | {calls} |");
    }
    out.push_str("\n</details>\n\n");
    out
}

/// The page with `section` between its markers.
///
/// # Errors
/// When the markers are not there, each once and in order.
pub fn replace(page: &str, section: &str) -> Result<String, Failure> {
    page::replace(page, MARKERS, section).map_err(Failure)
}

fn peers(results: &Results) -> Vec<Peer> {
    let there = |peer: &Peer| results.loads.iter().any(|load| load.peers.iter().any(|result| result.peer == *peer));
    Peer::ALL.into_iter().filter(|peer| *peer != Peer::Tidegate && there(peer)).collect()
}

/// Tidegate's own value.
fn own(load: &LoadResult) -> String {
    let value = load.tidegate().and_then(|result| if result.failure.is_some() { None } else { result.value });
    match (value, load.measure) {
        (None, _) => "failed".into(),
        (Some(value), Measure::CpuPerRequest) => format!("{:.1} µs", value.median),
        (Some(value), Measure::P99) => format!("{:.0} µs", value.median),
        (Some(value), Measure::BytesPerConnection) => format!("{:.1} KiB", value.median / 1_024.0),
    }
}

/// A peer's cell.
fn beside(result: &PeerResult) -> String {
    if result.not_suited.is_some() {
        return "–".into();
    }
    if result.failure.is_some() {
        return "failed".into();
    }
    match result.ratio {
        Some(Median { median, low: Some(low), high: Some(high), .. }) => format!("{median:.2} ({low:.2}–{high:.2})"),
        Some(ratio) => format!("{:.2}", ratio.median),
        None => "–".into(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/").chars().take(300).collect()
}

fn interval(median: Option<Median>, digits: usize) -> String {
    match median {
        Some(Median { median, low: Some(low), high: Some(high), .. }) => {
            format!("{median:.digits$} [{low:.digits$}, {high:.digits$}]")
        }
        Some(median) => format!("{:.digits$} (n={})", median.median, median.n),
        None => "-".into(),
    }
}

fn unit(measure: Measure) -> &'static str {
    match measure {
        Measure::CpuPerRequest => "us of CPU per request",
        Measure::P99 => "p99 in us",
        Measure::BytesPerConnection => "bytes per idle connection",
    }
}

/// Loads whose CPU per request is drawn.
#[must_use]
pub fn drawn(results: &Results) -> Vec<&LoadResult> {
    results.loads.iter().filter(|load| load.measure == Measure::CpuPerRequest && load.load != Kind::Idle).collect()
}
