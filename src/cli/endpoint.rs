//! `tidegate endpoint drain` and `undrain`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::EndpointVerb;
use super::client::{self, Admin, with_reason};
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{Paint, Tone, clean};

/// What is true after the command.
#[derive(Debug, Deserialize)]
struct Answer {
    service: String,
    endpoint: String,
    drained: bool,
    #[serde(default)]
    in_flight: u64,
    /// Whether every worker has acknowledged.
    #[serde(default)]
    settled: bool,
}

/// Drains or undrains an endpoint.
pub(super) async fn perform(admin: &Admin, verb: &EndpointVerb, terminal: Terminal) -> Result<(), Failure> {
    let place = verb.place();
    let path = format!("/v1/services/{}/endpoints/{}/{}", place.service, segment(&place.endpoint), verb.word());
    let body = admin.post(&path, &command(verb)).await?;
    let text =
        if terminal.json { client::json_line(&body)? } else { client::read::<Answer>(&body)?.render(terminal.paint) };
    say(&text)
}

fn command(verb: &EndpointVerb) -> Value {
    let mut command = with_reason(verb.place().reason.as_deref());
    if let EndpointVerb::Drain(drain) = verb
        && drain.force
    {
        command["force"] = json!(true);
    }
    command
}

/// `text` as one segment of a path (RFC 3986 section 3.3).
fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

// === impl Answer ===

impl Answer {
    fn render(&self, paint: Paint) -> String {
        let (service, endpoint) = (clean(&self.service), clean(&self.endpoint));
        let now = match (self.drained, self.in_flight) {
            (false, _) => "takes requests as its health allows".to_owned(),
            (true, 0) => "drained, nothing in flight".to_owned(),
            (true, n) => format!("drained, {n} in flight have until the drain timeout to finish"),
        };
        let mut text = format!("{}: {endpoint} {now}\n", paint.paint(Tone::Strong, &service));
        if !self.settled {
            text.push_str(&paint.paint(Tone::Notable, "  not every worker has acknowledged in time"));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_is_now_true() {
        let shown = |drained, in_flight, settled| {
            let answer = json!({"service": "web", "endpoint": "10.0.0.1:80", "generation": 3, "drained": drained,
                "in_flight": in_flight, "settled": settled});
            serde_json::from_value::<Answer>(answer).expect("an answer").render(Paint(false))
        };
        assert_eq!(shown(true, 0, true), "web: 10.0.0.1:80 drained, nothing in flight\n");
        assert_eq!(
            shown(true, 3, true),
            "web: 10.0.0.1:80 drained, 3 in flight have until the drain timeout to finish\n"
        );
        assert_eq!(shown(false, 0, true), "web: 10.0.0.1:80 takes requests as its health allows\n");
        assert!(shown(true, 0, false).ends_with("\n  not every worker has acknowledged in time\n"));
    }

    #[test]
    fn an_endpoint_is_one_segment_of_the_path() {
        assert_eq!(segment("10.0.0.1:8080"), "10.0.0.1:8080");
        assert_eq!(segment("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(segment("unix:/run/a b"), "unix:%2Frun%2Fa%20b");
    }
}
