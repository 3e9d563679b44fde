//! What a rollout looks like.

use std::time::Duration;

use super::*;
use crate::cli::follow::{Look, News};
use crate::clock;

const PLAIN: Terminal = Terminal { json: false, interactive: false, paint: Paint(false) };
const JSON: Terminal = Terminal { json: true, ..PLAIN };

fn rollout(value: Value) -> Rollout {
    serde_json::from_value(value).expect("a rollout")
}

fn progressing() -> Rollout {
    rollout(
        json!({"id": 7, "version": "v2", "phase": "progressing", "step": 1, "steps": 4, "weight": "25%", "hold_left_ms": 4_000}),
    )
}

fn abort() -> Event {
    Event {
        actor: "gate/error-rate".to_owned(),
        what: "abort".to_owned(),
        from: Some("25%".to_owned()),
        to: Some("0%".to_owned()),
        detail: Some("error-rate: candidate 31 of 31".to_owned()),
        ..Event::default()
    }
}

fn evidence() -> Value {
    let side = |events: u32, exposed: u32| json!({"events": events, "exposed": exposed, "rate": f64::from(events) / f64::from(exposed)});
    let test = |metric: &str, candidate: Value| json!({"metric": metric, "candidate": candidate, "stable": side(1, 900), "log_e": 0.1});
    json!({"running": true, "report": {"log_e": 1.725, "bound": 6.9,
        "tests": [test("error-rate", side(3, 300)), test("client-errors", side(0, 300))]}})
}

fn story() -> (Story, Instant) {
    let start = clock::now();
    let mut story = Story::new("web", progressing(), start);
    let mut look = Look { rollout: Rollout { hold_left_ms: Some(1_000), ..progressing() }, evidence: None };
    look.evidence = serde_json::from_value(evidence()).ok();
    story.take(News::Look(Box::new(look)), start).expect("an answer");
    (story, start + Duration::from_secs(12))
}

#[test]
fn the_picture_shows_the_hold_the_evidence_and_both_rates() {
    let (story, now) = story();
    insta::assert_snapshot!(picture(&story, now, Paint(false)).trim_start(), @r"
    web: v2 progressing at 25%, step 2 of 4  (12s)
      hold      [##################......] 1s left
      evidence  [######..................] 1.7 of 6.9 nats
      error-rate     v2 3 of 300 (1%)  stable 1 of 900 (0.11%)
      client-errors  v2 0 of 300 (0%)  stable 1 of 900 (0.11%)
    ");
    let coloured = picture(&story, now, Paint(true));
    assert!(coloured.contains("[\x1b[32m##################\x1b[0m......]"), "{coloured:?}");
}

#[test]
fn a_line_says_what_happened_who_did_it_and_why() {
    let (story, now) = story();
    let screen = Screen::new(PLAIN);
    let said = |told: Told| screen.line(&story, &told, now);
    assert_eq!(
        said(Told::Event(abort())),
        "   12.0s web: abort 25% -> 0% by gate/error-rate\n          error-rate: candidate 31 of 31\n"
    );
    assert_eq!(said(Told::Changed(progressing())), "   12.0s web: v2 progressing at 25%, step 2 of 4\n");
    let away = said(Told::Away(Failure::new("nothing answers")));
    assert_eq!(away, "   12.0s web: nothing answers\n  it is tried again\n");
    let line: Value = serde_json::from_str(&Screen::new(JSON).line(&story, &Told::Event(abort()), now)).expect("JSON");
    assert_eq!(
        (&line["what"], &line["actor"], &line["to"]),
        (&json!("abort"), &json!("gate/error-rate"), &json!("0%"))
    );
}

#[test]
fn every_end_is_said_with_what_can_be_done_about_it() {
    let (mut story, now) = story();
    let ends = |story: &Story, outcome| end(story, outcome, now, Paint(false));
    assert_eq!(
        ends(&story, Outcome::Timeout),
        "web: v2 progressing at 25%, step 2 of 4, and the 12s are over; it goes on\n"
    );
    story.rollout =
        rollout(json!({"version": "v2", "phase": "paused", "reason": "approval", "steps": 4, "weight": "25%"}));
    assert_eq!(
        ends(&story, Outcome::Paused),
        "web: v2 paused (approval) at 25%, step 1 of 4, after 12s\n  `tidegate approve web` lets the next step begin\n"
    );
    story.rollout = rollout(json!({"version": "v2", "phase": "succeeded", "steps": 4, "weight": "100%"}));
    assert_eq!(ends(&story, Outcome::Succeeded), "web: v2 succeeded after 12s, it is stable now\n");
    story.rollout = rollout(json!({"version": "v2", "phase": "aborted", "reason": "harmful", "weight": "0%"}));
    assert_eq!(ends(&story, Outcome::Ended), "web: v2 aborted (harmful) after 12s\n");
    story.learn(Some(abort()));
    assert_eq!(
        ends(&story, Outcome::Ended),
        "web: v2 aborted (harmful) by gate/error-rate after 12s\n  error-rate: candidate 31 of 31\n"
    );
    let json = end_json(&story, Outcome::Ended, now);
    assert_eq!(
        (&json["outcome"], &json["exit"], &json["by"]),
        (&json!("aborted"), &json!(2), &json!("gate/error-rate"))
    );
    let text = detached(&story, "unix:/run/t.sock");
    assert!(
        text.contains("goes on") && text.contains("--watch --admin unix:/run/t.sock") && text.contains("abort web")
    );
}

#[test]
fn a_picture_is_erased_by_as_many_lines_as_it_has() {
    let mut screen = Screen::new(Terminal { interactive: true, ..PLAIN });
    assert_eq!(screen.erase(), "");
    let (story, now) = story();
    screen.drawn = picture(&story, now, Paint(false)).lines().count();
    assert_eq!(screen.drawn, 6);
    assert_eq!((screen.erase().as_str(), screen.erase().as_str()), ("\x1b[6F\x1b[J", ""));
}
