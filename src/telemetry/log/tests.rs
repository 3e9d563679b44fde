//! What is shown at which level, and that a stuck writer stops nobody.

use std::sync::Mutex;

use super::*;
use crate::telemetry::sink::tests::{Gate, Gated};

fn lines() -> (Lines, Gate) {
    let (output, gate) = Gated::closed();
    (Lines(Arc::new(Sink::start("test", QUEUE_LINES_MAX, Some(output), None).expect("a thread"))), gate)
}

/// What a log that begins at `level` shows of `say`, which may change it.
fn shown(level: LevelFilter, overrides: Option<&str>, format: Format, say: impl FnOnce(&Log)) -> String {
    let (lines, mut gate) = lines();
    gate.go = None;
    let overrides = super::overrides(overrides.map(str::to_owned)).expect("good directives");
    let overridden = overrides.is_some();
    let (subscriber, handles) = subscriber(level, overrides, layer(format, false, lines.clone()));
    let log = Log { lines: Some(lines), handles: Some(handles), overridden };
    tracing::subscriber::with_default(subscriber, || {
        let _overridden = log.set_level(level);
        say(&log);
    });
    assert!(log.close());
    gate.written()
}

/// One line per target and level.
fn everything() {
    tracing::error!(target: "tidegate::x", "ours error");
    tracing::warn!(target: "tidegate::x", "ours warn");
    tracing::info!(target: "tidegate::x", "ours info");
    tracing::debug!(target: "tidegate::x", "ours debug");
    tracing::error!(target: "pingora_core::y", "pingora error");
    tracing::warn!(target: "pingora_core::y", "pingora warn");
    tracing::warn!(target: "h2::z", "other warn");
    tracing::trace!(target: "h2::z", "other trace");
}

fn words(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.split(": ").last().unwrap_or(line)).collect()
}

#[test]
fn levels_show_ours_and_keep_others_quiet() {
    let at = |level| shown(level, None, Format::Text, |_| everything());
    assert_eq!(words(&at(LevelFilter::INFO)), ["ours error", "ours warn", "ours info", "pingora error", "other warn"]);
    assert_eq!(words(&at(LevelFilter::ERROR)), ["ours error", "pingora error"]);
    let trace = at(LevelFilter::TRACE);
    assert_eq!(words(&trace), ["ours error", "ours warn", "ours info", "ours debug", "pingora error", "other warn"]);
}

#[test]
fn the_level_changes_at_a_reload() {
    let log = shown(LevelFilter::ERROR, None, Format::Text, |log| {
        tracing::info!(target: "tidegate::x", "hidden");
        assert!(log.set_level(LevelFilter::DEBUG));
        tracing::debug!(target: "tidegate::x", "shown");
        assert!(log.set_level(LevelFilter::WARN));
        tracing::info!(target: "tidegate::x", "hidden again");
    });
    assert_eq!(words(&log), ["shown"]);
}

#[test]
fn the_format_changes_at_a_reload() {
    let log = shown(LevelFilter::INFO, None, Format::Text, |log| {
        tracing::info!(target: "tidegate::x", "as text");
        assert!(log.set_format(Some(Format::Json)));
        tracing::info!(target: "tidegate::x", "as json");
    });
    let lines: Vec<&str> = log.lines().collect();
    assert!(!lines[0].starts_with('{') && lines[1].starts_with('{') && lines[1].contains("\"as json\""), "{log}");
}

#[test]
fn the_environment_wins_over_the_file_and_its_reloads() {
    let log = shown(LevelFilter::ERROR, Some("warn,pingora_core=info"), Format::Text, |log| {
        assert!(!log.set_level(LevelFilter::TRACE));
        everything();
    });
    assert_eq!(words(&log), ["ours error", "ours warn", "pingora error", "pingora warn", "other warn"]);
}

#[test]
fn bad_directives_are_refused_with_what_is_allowed() {
    for bad in ["tidegate=loud", "a=b=c", &"x,".repeat(DIRECTIVES_MAX)] {
        let complaint = overrides(Some(bad.to_owned())).expect_err(bad);
        assert!(complaint.starts_with("TIDEGATE_LOG is ignored: "), "{complaint}");
    }
    assert!(overrides(Some("  ".into())).expect("unset").is_none());
    assert!(overrides(None).expect("unset").is_none());
}

#[test]
fn json_lines_are_json_with_the_fields_on_top() {
    let log = shown(LevelFilter::INFO, None, Format::Json, |_| {
        tracing::info!(target: "tidegate::x", service = "web", "a \"quoted\"\nmessage");
    });
    let line: serde_json::Value = serde_json::from_str(&log).expect("one JSON object");
    assert_eq!((&line["message"], &line["service"]), (&"a \"quoted\"\nmessage".into(), &"web".into()));
    assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"tidegate::x".into()));
}

#[test]
fn a_stuck_writer_costs_lines_and_no_time() {
    let (lines, mut gate) = lines();
    let mut out = &lines;
    out.write_all(b"first\n").expect("never fails");
    gate.entered.recv().expect("the writer is stuck in the first line");
    for _ in 0..QUEUE_LINES_MAX + 7 {
        out.write_all(b"more\n").expect("never fails");
    }
    let log = Log { lines: Some(lines.clone()), handles: None, overridden: false };
    assert_eq!(log.dropped(), 7);
    gate.go = None;
    assert!(log.close());
    assert_eq!(gate.written().lines().count(), 1 + QUEUE_LINES_MAX);
}

#[test]
fn initialising_twice_keeps_the_first() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("lock");
    let first = Log::init(LevelFilter::ERROR, Some(Format::Text)).expect("starts");
    let second = Log::init(LevelFilter::TRACE, None).expect("starts");
    assert!(first.handles.is_some() && second.handles.is_none());
    assert!(!second.set_level(LevelFilter::TRACE));
    assert_eq!((second.dropped(), second.close()), (0, true));
}
