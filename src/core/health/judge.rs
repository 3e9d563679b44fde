//! Whether an answer is what was expected, and if not, why.

use std::time::Duration;

use serde_json::Value;

use super::Probe;
use super::wanted::Expect;

/// Most characters of a body or a value that are repeated.
pub const SHOWN_MAX: usize = 256;

/// The answer to an HTTP probe.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Its body, or the first part of it.
    pub body: &'a [u8],
    /// The body was longer than what was read of it.
    pub is_cut: bool,
}

/// Judges the answer to `probe`. Of strict probes the body counts, too.
///
/// # Errors
/// What is wrong with it.
pub fn answer(expect: &Expect, probe: Probe, answer: Answer<'_>) -> Result<(), String> {
    let Answer { status, body, is_cut } = answer;
    if !expect.status.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
        let ranges: Vec<String> = expect.status.iter().map(range).collect();
        return Err(format!("status {status} instead of {}", ranges.join(", ")));
    }
    if !probe.is_strict() {
        return Ok(());
    }
    if !expect.body.is_empty() && memchr::memmem::find(body, expect.body.as_bytes()).is_none() {
        return Err(format!("the body does not contain {:?}", expect.body));
    }
    if expect.json.is_empty() {
        return Ok(());
    }
    if is_cut {
        return Err(format!("the body is longer than {} bytes, too long to be checked as JSON", body.len()));
    }
    let document: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    expect.json.iter().try_for_each(|assertion| assertion.check(&document, SHOWN_MAX))
}

/// Judges the time until the answer to `probe`.
///
/// # Errors
/// That it took too long.
pub fn latency(expect: &Expect, probe: Probe, took: Duration) -> Result<(), String> {
    if probe.is_strict() && !expect.max_latency.is_zero() && took > expect.max_latency {
        return Err(format!("answered after {took:.0?}, later than max_latency {:?}", expect.max_latency));
    }
    Ok(())
}

/// A range as it is written in the file.
#[must_use]
pub fn range((low, high): &(u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// The beginning of a body for people: text on one line, without controls.
#[must_use]
pub fn head_of(body: &[u8]) -> Option<String> {
    // Four bytes per character at most.
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_MAX)]);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then(|| line.chars().take(SHOWN_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::super::json::{Assertion, Path, Scalar};
    use super::*;

    fn judge(expect: &Expect, probe: Probe, status: u16, body: &str) -> Result<(), String> {
        answer(expect, probe, Answer { status, body: body.as_bytes(), is_cut: false })
    }

    #[test]
    fn status_counts_for_all_and_the_body_for_strict_probes() {
        let json = vec![Assertion { path: Path::parse("$.ok").expect("a path"), value: Scalar::Bool(true) }];
        let expect = Expect { status: vec![(200, 204), (401, 401)], body: "ok".into(), json, ..Expect::default() };
        assert_eq!(judge(&expect, Probe::Readiness, 204, "{\"ok\": true}"), Ok(()));
        assert_eq!(judge(&expect, Probe::Liveness, 401, "nonsense"), Ok(()));
        for (probe, status, body, wrong) in [
            (Probe::Liveness, 205, "", "status 205 instead of 200-204, 401"),
            (Probe::Deep, 200, "fine", "the body does not contain \"ok\""),
            (Probe::Readiness, 200, "ok", "the body is not JSON"),
            (Probe::Readiness, 200, "{\"ok\": 1}", "$.ok is 1 instead of true"),
        ] {
            let found = judge(&expect, probe, status, body).expect_err(wrong);
            assert!(found.starts_with(wrong), "{found}");
        }
        let cut = Answer { status: 200, body: b"{\"ok\":", is_cut: true };
        assert!(answer(&expect, Probe::Readiness, cut).expect_err("cut").contains("longer than 6 bytes"));
    }

    #[test]
    fn latency_counts_where_it_is_bounded() {
        let expect = Expect { max_latency: Duration::from_millis(50), ..Expect::default() };
        let (fast, slow) = (Duration::from_millis(50), Duration::from_millis(51));
        assert_eq!(latency(&expect, Probe::Readiness, fast), Ok(()));
        assert!(latency(&expect, Probe::Deep, slow).expect_err("slow").contains("51ms"));
        assert_eq!(latency(&expect, Probe::Startup, slow), Ok(()));
        assert_eq!(latency(&Expect::default(), Probe::Readiness, slow), Ok(()));
    }

    #[test]
    fn the_head_of_a_body_is_one_clean_line() {
        assert_eq!(head_of(b" a\r\n\x1b[31mb\xff "), Some("a [31mb\u{fffd}".to_owned()));
        assert_eq!(head_of(b" \n"), None);
        assert_eq!(head_of("é".repeat(4_000).as_bytes()).map(|head| head.chars().count()), Some(SHOWN_MAX));
    }
}
