//! `tidegate explain`: where a request would go, and why.

use std::fmt::Write;

use serde::Deserialize;

use super::args::Explain;
use super::client::{self, Admin};
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{Align, Cell, Paint, Tone, clean, columns, escape_query};
use crate::core::weight::GRAINS;

/// What would happen to the request. What another version adds is left out, what it lacks is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Explained {
    /// The generation it is true of.
    generation: u64,
    /// The route: `routes[3]`
    route: Option<String>,
    /// The status the proxy would answer by itself.
    refused: Option<u16>,
    service: Option<String>,
    /// `stable` or `candidate`
    variant: Option<String>,
    version: Option<String>,
    /// `forced`, `sticky`, `bucket`
    assignment: Option<String>,
    /// The bucket of its key; absent when one is drawn anew.
    bucket: Option<u16>,
    /// The weight of the candidate.
    weight: Option<String>,
    endpoints: Vec<Endpoint>,
    /// Each decision with its reason, in the order they are made.
    because: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    address: String,
    in_flight: u64,
    /// `unknown`, `ready`, `not_ready`
    health: String,
    /// Why it is left alone, if it is.
    outlier: Option<Outlier>,
    /// Since when it is drained.
    drained_since_ms: Option<u64>,
    /// It stays only until another endpoint is ready.
    leaving: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outlier {
    /// `ejected`, `trial`
    state: String,
}

/// Asks where the request would go.
pub(super) async fn perform(admin: &Admin, request: &Explain, terminal: Terminal) -> Result<(), Failure> {
    let body = admin.get(&path(request)).await?;
    let text = if terminal.json {
        client::json_line(&body)?
    } else {
        let (method, url) = request.method_and_url();
        client::read::<Explained>(&body)?.render(&format!("{method} {url}"), terminal.paint)
    };
    say(&text)
}

fn path(request: &Explain) -> String {
    let (method, url) = request.method_and_url();
    let mut path = format!("/v1/explain?method={}&url={}", escape_query(method), escape_query(url));
    let headers = request.headers.iter().map(|header| ("header", header.clone()));
    let client_ip = request.client_ip.iter().map(|ip| ("client_ip", ip.to_string()));
    for (name, value) in headers.chain(client_ip) {
        // Writing into a String does not fail.
        let _ = write!(path, "&{name}={}", escape_query(&value));
    }
    path
}

// === impl Explained ===

impl Explained {
    fn render(&self, request: &str, paint: Paint) -> String {
        let rows: Vec<Vec<Cell>> = [
            ("route", self.route.clone()),
            ("service", self.service.clone()),
            ("variant", self.variant()),
            ("endpoints", self.endpoints()),
            ("generation", Some(self.generation.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(vec![Cell::new(Tone::Faint, name), Cell::plain(value?)]))
        .collect();
        let mut text = format!("{} -> {}\n", paint.paint(Tone::Strong, &clean(request)), self.outcome(paint));
        text.push_str(&columns(paint, &[Align::Left, Align::Left], &rows));
        if !self.because.is_empty() {
            // Writing into a String does not fail.
            let _ = writeln!(text, "\n{}", paint.paint(Tone::Strong, "why"));
        }
        for reason in &self.because {
            let _ = writeln!(text, "- {}", clean(reason));
        }
        text
    }

    /// The end of it, in a word or two.
    fn outcome(&self, paint: Paint) -> String {
        match (&self.service, self.refused) {
            (_, Some(status)) => paint.paint(Tone::Bad, &format!("refused with {status}")).into_owned(),
            (Some(service), None) => {
                let variant = self.variant.as_deref().unwrap_or_default();
                let version = self.version.as_deref().unwrap_or_default();
                clean(format!("{service} {variant} {version}").trim_end()).into_owned()
            }
            (None, None) => paint.paint(Tone::Bad, "no route takes it").into_owned(),
        }
    }

    /// The variant and how it was chosen.
    fn variant(&self) -> Option<String> {
        let variant = self.variant.as_ref()?;
        let mut text = variant.clone();
        if let Some(version) = &self.version {
            let _ = write!(text, " {version}");
        }
        if let Some(assignment) = &self.assignment {
            let _ = write!(text, ", {assignment}");
        }
        if let Some(bucket) = self.bucket {
            let _ = write!(text, " {bucket} of {GRAINS}");
        }
        if let Some(weight) = &self.weight {
            let _ = write!(text, ", candidate at {weight}");
        }
        Some(text)
    }

    fn endpoints(&self) -> Option<String> {
        let shown = self.endpoints.iter().map(|e| format!("{} ({} in flight{})", e.address, e.in_flight, e.state()));
        Some(shown.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// What keeps requests away from it, or will; nothing if it is simply ready.
    fn state(&self) -> String {
        let health = Some(self.health.replace('_', " ")).filter(|health| !matches!(health.as_str(), "" | "ready"));
        let outlier = self.outlier.as_ref().map(|outlier| match outlier.state.as_str() {
            "trial" => "on trial: takes a single request".to_owned(),
            state => state.to_owned(),
        });
        let drained = self.drained_since_ms.map(|_| "drained".to_owned());
        let leaving = self.leaving.then(|| "leaves when another is ready".to_owned());
        let said = [health, outlier, drained, leaving].into_iter().flatten();
        said.fold(String::new(), |text, state| text + ", " + &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::AdminAddress;
    use serde_json::{Value, json};

    fn shown(answer: Value) -> String {
        serde_json::from_value::<Explained>(answer).expect("an answer").render("GET /cart", Paint(false))
    }

    #[test]
    fn the_request_is_escaped_into_the_query() {
        let request = Explain {
            request: vec!["POST".to_owned(), "http://a.example/cart?x=1&y=ü".to_owned()],
            headers: vec!["cookie: a=b; c=d".to_owned(), "x-canary:1".to_owned()],
            client_ip: Some("::1".parse().expect("an address")),
            admin: AdminAddress { admin: None, token_file: None },
        };
        assert_eq!(
            path(&request),
            "/v1/explain?method=POST&url=http%3A%2F%2Fa.example%2Fcart%3Fx%3D1%26y%3D%C3%BC\
             &header=cookie%3A%20a%3Db%3B%20c%3Dd&header=x-canary%3A1&client_ip=%3A%3A1"
        );
    }

    #[test]
    fn an_explanation_ends_with_its_reasons() {
        let answer = json!({
            "generation": 12, "route": "routes[3]", "service": "web", "variant": "candidate", "version": "v2", "assignment": "bucket",
            "bucket": 123, "weight": "5%",
            "endpoints": [{"address": "10.0.1.1:8080", "in_flight": 3}, {"address": "10.0.1.2:8080", "in_flight": 0}],
            "because": ["routes[3] takes it: longer prefix than routes[0]", "bucket 123 is below 500"],
        });
        insta::assert_snapshot!(shown(answer), @r"
        GET /cart -> web candidate v2
        route       routes[3]
        service     web
        variant     candidate v2, bucket 123 of 10000, candidate at 5%
        endpoints   10.0.1.1:8080 (3 in flight), 10.0.1.2:8080 (0 in flight)
        generation  12

        why
        - routes[3] takes it: longer prefix than routes[0]
        - bucket 123 is below 500
        ");
    }

    #[test]
    fn endpoints_show_what_keeps_requests_away_from_them() {
        let answer = json!({"generation": 1, "endpoints": [
            {"address": "a:1", "in_flight": 3, "health": "ready"},
            {"address": "b:1", "in_flight": 0, "health": "ready", "outlier": {"state": "ejected"}},
            {"address": "c:1", "in_flight": 1, "health": "ready", "outlier": {"state": "trial"}},
            {"address": "d:1", "in_flight": 0, "health": "not_ready", "drained_since_ms": 7},
            {"address": "e:1", "in_flight": 0, "health": "ready", "leaving": true},
        ]});
        let shown = shown(answer);
        let line = shown.lines().find(|line| line.starts_with("endpoints")).expect("a line");
        assert_eq!(
            line,
            "endpoints   a:1 (3 in flight), b:1 (0 in flight, ejected), c:1 (1 in flight, on trial: takes a single request), \
             d:1 (0 in flight, not ready, drained), e:1 (0 in flight, leaves when another is ready)"
        );
    }

    #[test]
    fn a_request_that_goes_nowhere_says_so() {
        let refused =
            shown(json!({"generation": 1, "refused": 404, "because": ["no route has host x"], "service": null}));
        assert_eq!(refused, "GET /cart -> refused with 404\ngeneration  1\n\nwhy\n- no route has host x\n");
        assert_eq!(shown(json!({})), "GET /cart -> no route takes it\ngeneration  0\n");
    }

    #[test]
    fn text_from_the_api_cannot_steer_the_terminal() {
        let evil = "\u{1b}[2J";
        let text = shown(json!({
            "route": evil, "service": evil, "variant": evil, "version": evil, "assignment": evil, "weight": evil,
            "endpoints": [{"address": evil, "health": evil, "outlier": {"state": evil}}], "because": [evil],
        }));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
