//! The admin API as the command line uses it: one request, one answer or a sentence that says what to do.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::args::{ADMIN_DEFAULT, ADMIN_ENV, AdminAddress, choose};
use super::failure::Failure;
use super::token::Token;
use crate::net::http::{self, HttpError, Request, Response, Stream, Target};

/// Longest wait for an answer of the admin API.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A way to the admin API.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    target: Target,
    /// As it was written.
    address: String,
    /// What it is let in by.
    token: Option<Token>,
    within: Duration,
}

// === impl Admin ===

impl Admin {
    /// The admin API that is meant: `--admin`, else the environment, else the default.
    pub(super) fn choose(given: &AdminAddress) -> Result<Self, Failure> {
        let environment = std::env::var_os(ADMIN_ENV);
        let address = choose(given.admin.as_ref().map(AsRef::as_ref), environment.as_deref(), ADMIN_DEFAULT);
        Ok(Self { token: Token::choose(given)?, ..Self::at(&address.to_string_lossy())? })
    }

    /// The admin API at `address`, `http://host:port` or `unix:/path`.
    pub(super) fn at(address: &str) -> Result<Self, Failure> {
        let target = Target::parse(address).map_err(|why| {
            Failure::new("the address of the admin API is wrong").detail(format!("{why}\n{WHERE_SET}"))
        })?;
        Ok(Self { target, address: address.to_owned(), token: None, within: ANSWER_WITHIN })
    }

    /// Where it is, as it was written.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What `path` says.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        self.ask(Request::get(path)).await
    }

    /// What a command answered.
    pub(super) async fn post(&self, path: &str, command: &Value) -> Result<Bytes, Failure> {
        self.ask(Request::post_json(path, command.to_string())).await
    }

    /// What `path` says, piece by piece.
    pub(super) async fn open(&self, path: &str) -> Result<Stream, Failure> {
        let request = self.authorized(Request::get(path));
        let asked = Asked::of(&request);
        let stream = http::open(&self.target, request, self.within).await;
        let stream = stream.map_err(|error| self.unreachable(&asked, &error))?;
        if (200..=299).contains(&stream.status) {
            return Ok(stream);
        }
        let whole = tokio::time::timeout(self.within, stream.whole()).await.unwrap_or(Err(HttpError::Timeout));
        let response = whole.map_err(|error| self.unreachable(&asked, &error))?;
        let status = response.status;
        match self.judge(&asked, response) {
            Err(failure) => Err(failure),
            Ok(_) => Err(Failure::new(format!("{} answered {status} to {}", self.address, asked.what))),
        }
    }

    fn authorized(&self, mut request: Request) -> Request {
        if let Some(token) = &self.token {
            request.headers.insert(AUTHORIZATION, token.header.clone());
        }
        request
    }

    async fn ask(&self, request: Request) -> Result<Bytes, Failure> {
        let request = self.authorized(request);
        let asked = Asked::of(&request);
        match http::request(&self.target, request, self.within).await {
            Ok(response) => self.judge(&asked, response),
            Err(error) => Err(self.unreachable(&asked, &error)),
        }
    }

    fn judge(&self, asked: &Asked, response: Response) -> Result<Bytes, Failure> {
        if (200..=299).contains(&response.status) {
            return Ok(response.body);
        }
        let media_type = response.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let is_problem = media_type.split(';').next().is_some_and(|t| t.trim() == "application/problem+json");
        let problem = if is_problem { Failure::of_problem(&response.body) } else { None };
        let problem = problem.map(|problem| match (response.status, &self.token) {
            (401 | 403, Some(token)) => problem.note(&format!("the token that was sent is from {}", token.source)),
            _ => problem,
        });
        Err(problem.unwrap_or_else(|| {
            let title = format!("{} answered {} to {}", self.address, response.status, asked.what);
            Failure::new(title).detail(NOT_TIDEGATE).status(response.status)
        }))
    }

    fn unreachable(&self, asked: &Asked, error: &HttpError) -> Failure {
        let address = &self.address;
        let maybe_done = if asked.changes { MAYBE_DONE } else { "" };
        match error {
            HttpError::Refused => Failure::new(format!("nothing answers at {address}"))
                .detail(format!("is tidegate running? set --admin or {ADMIN_ENV} if its admin API is elsewhere")),
            HttpError::Timeout => Failure::new(format!("no answer from {address} within {} s", self.within.as_secs()))
                .detail(format!("it is there but busy or stuck, or another program listens there{maybe_done}")),
            HttpError::TooLarge => Failure::new(format!("the answer of {address} to {} is too large", asked.what))
                .detail(error.to_string()),
            HttpError::Broken(why) => {
                Failure::new(format!("cannot talk to {address}")).detail(format!("{why}{maybe_done}"))
            }
        }
    }
}

struct Asked {
    /// Whether it is a command.
    changes: bool,
    /// Method and path.
    what: String,
}

// === impl Asked ===

impl Asked {
    fn of(request: &Request) -> Self {
        Self { changes: request.method != "GET", what: format!("{} {}", request.method, request.path) }
    }
}

const WHERE_SET: &str = "it comes from --admin, else TIDEGATE_ADMIN, else the default";
const NOT_TIDEGATE: &str = "is this tidegate's admin API, and of the same version? set --admin or TIDEGATE_ADMIN";
const MAYBE_DONE: &str = "\nit may have been done all the same: `tidegate status` shows what is true";

/// The body of a command, as far as all have the same: the reason, if one was given.
pub(super) fn with_reason(reason: Option<&str>) -> Value {
    reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}))
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new("the answer of the admin API is not understood").detail(format!("{error}\n{NOT_TIDEGATE}"))
    })
}

/// An answer for a program: as it came, on one line.
pub(super) fn json_line(body: &[u8]) -> Result<String, Failure> {
    let value: Value = read(body)?;
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    Ok(if text.contains('\n') { format!("{value}\n") } else { format!("{text}\n") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderMap, HeaderValue};

    fn admin() -> Admin {
        Admin::at("http://127.0.0.1:9900").expect("an address")
    }

    fn answer(status: u16, media_type: &str, body: &str) -> Result<Bytes, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).expect("a value"));
        let response = Response { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) };
        let asked = Asked { changes: true, what: "POST /v1/services/web/abort".to_owned() };
        admin().judge(&asked, response).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_admin_api_that_is_away_is_named_with_what_to_do() {
        let say =
            |changes, error| admin().unreachable(&Asked { changes, what: "GET /x".to_owned() }, &error).to_string();
        assert_eq!(
            say(false, HttpError::Refused),
            "nothing answers at http://127.0.0.1:9900\n  is tidegate running? set --admin or TIDEGATE_ADMIN if its admin API is elsewhere"
        );
        assert!(say(false, HttpError::Timeout).starts_with("no answer from http://127.0.0.1:9900 within 10 s\n"));
        assert!(say(false, HttpError::Broken("cut off".to_owned())).ends_with("\n  cut off"));
    }

    #[test]
    fn a_command_without_an_answer_may_have_been_done() {
        for error in [HttpError::Timeout, HttpError::Broken("cut off".to_owned())] {
            let asked = |changes| Asked { changes, what: String::new() };
            assert!(admin().unreachable(&asked(true), &error).to_string().contains("may have been done"));
            assert!(!admin().unreachable(&asked(false), &error).to_string().contains("may have been done"));
        }
    }

    #[test]
    fn problems_are_shown_and_other_refusals_are_named_by_their_status() {
        assert_eq!(answer(200, "application/json", "{}"), Ok(Bytes::from_static(b"{}")));
        let problem = r#"{"title":"Unknown service","detail":"there is no service \"wbe\"; there are: web"}"#;
        let shown = "Unknown service\n  there is no service \"wbe\"; there are: web";
        assert_eq!(answer(404, "application/problem+json; charset=utf-8", problem), Err(shown.to_owned()));
        let other = answer(404, "text/html", "<h1>no</h1>").expect_err("refused");
        assert!(other.starts_with("http://127.0.0.1:9900 answered 404 to POST /v1/services/web/abort\n"), "{other}");
        let broken = answer(500, "application/problem+json", "not json").expect_err("refused");
        assert!(broken.contains("answered 500"), "{broken}");
    }

    #[test]
    fn a_token_that_is_not_enough_is_named_by_where_it_is_from() {
        let admin = Admin { token: Token::new("0123456789abcdef", "ops.token".to_owned()).ok(), ..admin() };
        let body = Bytes::from_static(
            br#"{"title":"The token does not allow this","detail":"a command needs the role operator"}"#,
        );
        let headers: HeaderMap =
            [(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))].into_iter().collect();
        let asked = Asked { changes: true, what: String::new() };
        let failure = admin.judge(&asked, Response { status: 403, headers, body }).expect_err("refused").to_string();
        assert!(
            failure.ends_with("a command needs the role operator\n  the token that was sent is from ops.token"),
            "{failure}"
        );
        assert!(!format!("{admin:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn json_is_passed_on_as_one_line_and_nothing_else_is() {
        assert_eq!(json_line(b"{\"b\": 1, \"a\": 2}\n"), Ok("{\"b\": 1, \"a\": 2}\n".to_owned()));
        assert_eq!(json_line(b"[1,\n2]"), Ok("[1,2]\n".to_owned()));
        assert!(
            json_line(b"<html>").expect_err("refused").to_string().starts_with("the answer of the admin API is not")
        );
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_allowed_forms() {
        let why = Admin::at("127.0.0.1:9900").expect_err("no scheme").to_string();
        assert!(why.contains("http://host:port") && why.contains("unix:/path") && why.contains("--admin"), "{why}");
        let secret = Admin::at("http://me:hunter2@host:1").expect_err("user info").to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn a_reason_is_sent_only_if_given() {
        assert_eq!(with_reason(None), json!({}));
        assert_eq!(with_reason(Some("slow \"cart\"")), json!({"reason": "slow \"cart\""}));
    }

    #[tokio::test]
    async fn a_closed_port_and_a_missing_socket_are_refusals() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        for address in [format!("http://{address}"), "unix:/nonexistent/tidegate.sock".to_owned()] {
            let failure = Admin::at(&address).expect("an address").get("/v1/status").await.expect_err("refused");
            assert!(failure.to_string().starts_with(&format!("nothing answers at {address}\n")), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let admin = Admin { within: Duration::from_millis(50), ..Admin::at(&address).expect("an address") };
        let failure = admin.post("/v1/services/web/abort", &json!({})).await.expect_err("timeout");
        assert!(failure.to_string().starts_with("no answer from"), "{failure}");
    }
}
