//! `tidegate status`: once, or again and again until Ctrl-C.

mod limits;
mod model;
mod render;
mod rollouts;

use std::time::Duration;

use hyper::body::Bytes;

pub(super) use self::model::Progress;
use self::model::Status;
use super::client::{self, Admin};
use super::failure::Failure;
use super::terminal::{Terminal, report, say};
use super::text::{Paint, Tone, ago};
use crate::clock;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Cursor to the top left, and everything after it erased (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[J";
const PATH: &str = "/v1/status";

/// What is shown of one look, and when the admin API last answered.
#[derive(Debug, Default)]
struct Watched {
    /// The last answer in text, and when it came, in milliseconds since 1970.
    last: Option<(String, u64)>,
    /// What was shown last, without what changes by itself.
    shown: Option<String>,
}

/// What to write after a look.
#[derive(Debug, PartialEq)]
enum Said {
    /// Nothing changed.
    Nothing,
    /// An answer.
    Out(String),
    /// There was none.
    Failed(Failure),
}

/// Shows the status once.
pub(super) async fn once(admin: &Admin, terminal: Terminal) -> Result<(), Failure> {
    let body = admin.get(PATH).await?;
    let text = show(&body, admin.address(), now_ms(), terminal.json, terminal.paint)?;
    say(&text)
}

/// Shows the status every second until Ctrl-C. The first look must succeed; later ones may fail, which is shown.
pub(super) async fn watch(admin: &Admin, terminal: Terminal) -> Result<(), Failure> {
    // Before the first look, so that no Ctrl-C is missed.
    let mut stop = Box::pin(tokio::signal::ctrl_c());
    let mut watched = Watched::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = async {
            ticks.tick().await;
            admin.get(PATH).await
        };
        let looked = tokio::select! {
            biased;
            _ = &mut stop => return Ok(()),
            looked = look => looked,
        };
        if watched.last.is_none() {
            looked.as_ref().map_err(Clone::clone)?;
        }
        match watched.next(looked, admin.address(), now_ms(), terminal) {
            Said::Nothing => {}
            Said::Out(text) => say(&text)?,
            Said::Failed(failure) => report(&failure, terminal.json),
        }
    }
}

fn show(body: &Bytes, address: &str, now_ms: u64, json: bool, paint: Paint) -> Result<String, Failure> {
    if json {
        return client::json_line(body);
    }
    Ok(render::render(&client::read::<Status>(body)?, address, now_ms, paint))
}

fn now_ms() -> u64 {
    u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX)
}

// === impl Watched ===

impl Watched {
    /// What to write after one more look. A terminal is redrawn; elsewhere only changes are written.
    fn next(&mut self, looked: Result<Bytes, Failure>, address: &str, now_ms: u64, terminal: Terminal) -> Said {
        let looked = looked.and_then(|body| show(&body, address, now_ms, terminal.json, terminal.paint));
        let (text, failure) = match looked {
            Ok(text) => {
                self.last = Some((text.clone(), now_ms));
                (text, None)
            }
            Err(failure) => (failure.to_string(), Some(failure)),
        };
        if terminal.redraws() {
            let text = if failure.is_some() { self.stale(&text, now_ms, terminal.paint) } else { text };
            return Said::Out(format!("{REDRAW}{text}"));
        }
        if self.shown.as_ref() == Some(&text) {
            return Said::Nothing;
        }
        self.shown = Some(text.clone());
        match failure {
            Some(failure) => Said::Failed(failure),
            None if terminal.json => Said::Out(text),
            None => Said::Out(format!("{text}\n")),
        }
    }

    /// The last answer under the reason why it is not a new one.
    fn stale(&self, why: &str, now_ms: u64, paint: Paint) -> String {
        let (last, at_ms) = self.last.clone().unwrap_or_default();
        format!("{}: {why}\n  what follows was true {}\n\n{last}", paint.paint(Tone::Bad, "STALE"), ago(now_ms, at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Bytes {
        Bytes::from_static(br#"{"generation": 7, "services": []}"#)
    }

    #[test]
    fn a_watch_on_a_terminal_redraws_and_marks_what_is_stale() {
        let terminal = Terminal { json: false, interactive: true, paint: Paint(false) };
        let mut watched = Watched::default();
        let mut out = |looked, now| match watched.next(looked, "a", now, terminal) {
            Said::Out(text) => text,
            other => panic!("{other:?}"),
        };
        let first = out(Ok(body()), 5_000);
        assert!(first.starts_with(REDRAW) && first.contains("generation 7"), "{first:?}");
        let failed = out(Err(Failure::new("nothing answers")), 9_000);
        assert!(failed.contains("STALE: nothing answers\n  what follows was true 4s ago"), "{failed:?}");
        assert!(failed.contains("generation 7"), "{failed:?}");
    }

    #[test]
    fn a_watch_into_a_pipe_writes_changes_only_and_failures_elsewhere() {
        let terminal = Terminal { json: true, interactive: false, paint: Paint(false) };
        let mut watched = Watched::default();
        let mut next = |looked| watched.next(looked, "a", 0, terminal);
        let line = Said::Out("{\"generation\": 7, \"services\": []}\n".to_owned());
        assert_eq!(next(Ok(body())), line);
        assert_eq!(next(Ok(body())), Said::Nothing);
        assert_eq!(next(Err(Failure::new("away"))), Said::Failed(Failure::new("away")));
        assert_eq!(next(Err(Failure::new("away"))), Said::Nothing);
        assert_eq!(next(Ok(body())), line);
    }
}
