//! The figures as tables for the README.

use std::fmt::Write;

use super::judges::JUDGES;
use super::traffic::Case;
use super::{Cell, Figures, Plan, RATES};

/// From this share of steady healthy rollouts taken back on, a short time to take a faulty one back says nothing.
pub(crate) const BLIND: f64 = 0.5;

/// Everything between the markers; `command` made it.
pub(crate) fn markdown(plan: &Plan, cells: &[Cell], command: &str) -> String {
    let Plan { seed, healthy, faulty, seconds } = plan;
    let mut out = format!(
        "`{command}`, seed {seed}: {healthy} healthy rollouts of each shape and {faulty} of each fault at each rate, 5 % to the candidate, \
         watched for {} minutes.\n\n![Time to take a faulty candidate back](benches/judgement/results.svg)\n\n",
        seconds / 60
    );
    out.push_str("**Healthy candidates taken back**, in percent, at 1,000 / 50 / 5 requests per second:\n\n");
    false_alarms(&mut out, cells);
    let (wrong, of) = healthy_taken_back(cells, 0);
    let _ = writeln!(
        out,
        "\nTidegate took back {wrong} of {} healthy candidates; what it promises is at most 1 in 1,000.",
        grouped(of)
    );
    out.push_str("\n**Faulty candidates**: median time until it is taken back (95 % stay within), requests failed by then, and how many were\n");
    out.push_str("missed. † where the judge takes back half of the steady healthy candidates as well. At 1,000 requests per second:\n\n");
    faults(&mut out, cells, RATES[0]);
    out.push_str("\n<details><summary>The same at 50 and at 5 requests per second</summary>\n");
    for rate in &RATES[1..] {
        let _ = writeln!(out, "\n{rate} requests per second:\n");
        faults(&mut out, cells, *rate);
    }
    out.push_str("\n</details>\n\n");
    let settings: Vec<String> = JUDGES.iter().map(|judge| format!("{}: {}", judge.name, judge.settings)).collect();
    let _ = writeln!(out, "{}.", settings.join("; "));
    out
}

fn false_alarms(out: &mut String, cells: &[Cell]) {
    let shapes: Vec<Case> = Case::ALL.into_iter().filter(|case| case.is_healthy()).collect();
    head(out, &shapes);
    for (judge, of) in JUDGES.iter().enumerate() {
        let _ = write!(out, "| {} |", of.name);
        for shape in &shapes {
            let percent =
                RATES.map(|rate| figures(cells, *shape, rate, judge).map_or("–".into(), |f| share(f.taken_back)));
            let _ = write!(out, " {} |", percent.join(" / "));
        }
        out.push('\n');
    }
}

fn faults(out: &mut String, cells: &[Cell], rate: f64) {
    let faults: Vec<Case> = Case::ALL.into_iter().filter(|case| !case.is_healthy()).collect();
    head(out, &faults);
    for (judge, of) in JUDGES.iter().enumerate() {
        let _ = write!(out, "| {} |", of.name);
        let mark = if is_blind(cells, rate, judge) { " †" } else { "" };
        for fault in &faults {
            let cell = figures(cells, *fault, rate, judge).map_or("–".into(), |figures| outcome(*fault, figures));
            let _ = write!(out, " {cell}{mark} |");
        }
        out.push('\n');
    }
}

/// Whether a judge takes back what is healthy and steady so often that its times say nothing.
pub(crate) fn is_blind(cells: &[Cell], rate: f64, judge: usize) -> bool {
    figures(cells, Case::Steady, rate, judge).is_some_and(|figures| figures.taken_back >= BLIND)
}

/// How many healthy rollouts a judge took back, of how many.
fn healthy_taken_back(cells: &[Cell], judge: usize) -> (usize, usize) {
    let healthy = cells.iter().filter(|cell| cell.case.is_healthy());
    let rollouts = healthy.flat_map(|cell| &cell.rollouts);
    rollouts.fold((0, 0), |(wrong, of), rollout| (wrong + usize::from(rollout[judge].at.is_some()), of + 1))
}

fn head(out: &mut String, cases: &[Case]) {
    let titles: Vec<String> = cases.iter().map(|case| case.title()).collect();
    let _ = writeln!(out, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(cases.len()));
}

/// The figures of one judge in one cell.
pub(crate) fn figures(cells: &[Cell], case: Case, rate: f64, judge: usize) -> Option<Figures> {
    // Rates are compared with themselves.
    let same = |cell: &&Cell| cell.case == case && (cell.rate - rate).abs() < f64::EPSILON;
    cells.iter().find(same).map(|cell| cell.figures(judge))
}

/// What a judge did about a fault, in words.
pub(crate) fn outcome(fault: Case, figures: Figures) -> String {
    let missed = 1.0 - figures.taken_back;
    let Some(median) = figures.median else {
        let how = if missed < 1.0 { format!("{} % missed", share(missed)) } else { "missed".into() };
        return format!("{how}{}", failed(fault, figures));
    };
    let p95 = figures.p95.map_or("–".into(), time);
    let missed = if missed > 0.0 { format!("; {} % missed", share(missed)) } else { String::new() };
    format!("{} ({p95}){}{missed}", time(median), failed(fault, figures))
}

/// Slow requests do not fail.
fn failed(fault: Case, figures: Figures) -> String {
    if fault == Case::Slow { String::new() } else { format!(", {}", grouped(figures.failed as usize)) }
}

/// Seconds, as precise as they are worth.
fn time(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1.0 => format!("{seconds:.2} s"),
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

/// A share in percent.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 10.0 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// With its thousands apart.
pub(crate) fn grouped(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}
