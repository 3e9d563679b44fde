//! What would happen to a request, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::AdminState;
use super::problem::Problem;
use crate::control::status::EndpointStatus;

/// Header fields one question may have.
const HEADERS_MAX: usize = 100;
/// What a question may hold.
const KEYS: &str = "allowed are: method, url, header (repeatable), client_ip";

/// Answers a question; the error is a sentence about what is wrong with it.
pub type Explainer = Arc<dyn Fn(&Question) -> Result<Explained, String> + Send + Sync>;

/// A request to explain. Nothing in it is checked but its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The method, `GET` if not given.
    pub method: String,
    /// Whether it comes over TLS.
    pub tls: bool,
    /// The host of the URL; `None` if that is only a path: then a `Host` among the headers counts.
    pub host: Option<String>,
    /// Path and query.
    pub target: String,
    /// Header fields, in order.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub client_ip: Option<IpAddr>,
}

/// What would happen to the request.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Explained {
    /// The generation it is true of.
    pub generation: u64,
    /// The route: `routes[3]`; absent: no route takes it.
    pub route: Option<String>,
    /// The status the proxy would answer by itself, if it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u16>,
    /// The service.
    pub service: Option<String>,
    /// `stable` or `candidate`.
    pub variant: Option<&'static str>,
    /// The version of that variant.
    pub version: Option<String>,
    /// How the variant is chosen: `forced`, `sticky`, `bucket`.
    pub assignment: Option<&'static str>,
    /// The bucket of its key, in `0..10000`; absent without a key: then a new one is drawn for each request.
    pub bucket: Option<u16>,
    /// The weight of the candidate.
    pub weight: Option<String>,
    /// Where it could go, each as in the status.
    pub endpoints: Vec<EndpointStatus>,
    /// Each decision with its reason, in the order they are made.
    pub because: Vec<String>,
}

/// What would happen to a request, and why
#[utoipa::path(get, path = "/v1/explain", tag = "read",
    params(("url" = String, Query, description = "http://host/path, https://host/path or /path"),
        ("method" = Option<String>, Query, description = "GET if left out"),
        ("header" = Option<Vec<String>>, Query, description = "A field, `Name: value`; may be given several times"),
        ("client_ip" = Option<String>, Query, description = "Who asks")),
    responses((status = 200, description = "Each decision with its reason", body = Explained)))]
pub(super) async fn explain(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Explained>, Problem> {
    let Query(pairs) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let question = question(pairs).map_err(Problem::invalid)?;
    (state.explain)(&question).map(Json).map_err(Problem::invalid)
}

fn question(pairs: Vec<(String, String)>) -> Result<Question, String> {
    let (mut method, mut url, mut client_ip, mut headers) = (None, None, None, Vec::new());
    for (key, value) in pairs {
        let slot = match key.as_str() {
            "method" => &mut method,
            "url" => &mut url,
            "client_ip" => &mut client_ip,
            "header" if headers.len() == HEADERS_MAX => return Err(format!("header: at most {HEADERS_MAX}")),
            "header" => {
                headers.push(field(&value)?);
                continue;
            }
            _ => return Err(format!("there is no parameter {key:?}; {KEYS}")),
        };
        if slot.replace(value).is_some() {
            return Err(format!("{key} is given twice; {KEYS}"));
        }
    }
    let url = url.ok_or("url is missing: http://host/path, https://host/path or /path")?;
    let (tls, host, target) = split(&url)?;
    let client_ip = client_ip.map(|text| text.parse().map_err(|_| format!("client_ip: {text:?} is not an IP address")));
    let client_ip = client_ip.transpose()?;
    Ok(Question { method: method.unwrap_or_else(|| "GET".to_owned()), tls, host, target, headers, client_ip })
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("header: {text:?} is not \"Name: value\""))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Whether it is TLS, the host if there is one, path and query.
fn split(url: &str) -> Result<(bool, Option<String>, String), String> {
    let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ if url.starts_with('/') => return Ok((false, None, url.to_owned())),
        _ => return Err(format!("url: {url:?} is neither http://host/path, https://host/path nor /path")),
    };
    let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.is_empty() {
        return Err(format!("url: {url:?} has no host"));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((tls, Some(host.to_owned()), format!("{slash}{target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&str, &str)]) -> Result<Question, String> {
        question(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_question_is_taken_apart() {
        let asked = ask(&[
            ("url", "https://shop.example.com?x=1"),
            ("header", "X-A: b:c"),
            ("header", "X-B:"),
            ("client_ip", "::1"),
        ]);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Question {
            method: "GET".to_owned(),
            tls: true,
            host: Some("shop.example.com".to_owned()),
            target: "/?x=1".to_owned(),
            headers: vec![header("X-A", "b:c"), header("X-B", "")],
            client_ip: Some(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        };
        assert_eq!(asked, Ok(expected));
        assert_eq!(ask(&[("url", "/a?b")]).map(|q| (q.host, q.target)), Ok((None, "/a?b".to_owned())));
    }

    #[test]
    fn a_bad_question_is_told_what_is_allowed() {
        for (pairs, message) in [
            (&[][..], "url is missing"),
            (&[("url", "ftp://x")][..], "is neither http://host/path"),
            (&[("url", "http:///x")][..], "has no host"),
            (&[("url", "/"), ("url", "/")][..], "url is given twice"),
            (&[("url", "/"), ("ip", "1")][..], "allowed are: method, url"),
            (&[("url", "/"), ("client_ip", "x")][..], "\"x\" is not an IP address"),
            (&[("url", "/"), ("header", "x")][..], "is not \"Name: value\""),
        ] {
            let error = ask(pairs).expect_err(message);
            assert!(error.contains(message), "{error}");
        }
        let many: Vec<_> = std::iter::repeat_n(("header", "a: b"), HEADERS_MAX + 1).collect();
        assert_eq!(ask(&many), Err("header: at most 100".to_owned()));
    }
}
