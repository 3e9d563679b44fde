//! What every request has to pass, on every bind: a page in a browser on this machine is not an operator.
//!
//! Host defeats DNS rebinding; Origin and the content type on POST defeat cross-site requests, which a browser sends without asking
//! only with the media types of forms.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::auth::{Caller, Refusals, is_open, needed};
use super::problem::{Denial, Problem};
use super::serve::{Connection, Reach};
use super::{AdminState, Bounds};
use crate::clock;

/// What the checks go by.
#[derive(Clone)]
pub(super) struct Guard {
    state: AdminState,
    refusals: Arc<Refusals>,
}

/// The checks, in front of every route.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Connection>().map(|connection| connection.peer);
    let mut response = match guard.checked(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if let (Some(Denial(why)), Some(peer)) = (response.extensions_mut().remove::<Denial>(), peer) {
        guard.refusals.note(clock::now(), peer, &why);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(state: AdminState) -> Self {
        Self { state, refusals: Arc::default() }
    }

    async fn checked(&self, mut request: Request) -> Result<Request, Problem> {
        let connection = request.extensions().get::<Connection>().cloned();
        let connection = connection.ok_or_else(|| Problem::internal("a request without a connection"))?;
        let caller = self.caller(&connection, &request)?;
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        if request.method() != Method::POST {
            return Ok(request);
        }
        media_type(request.headers())?;
        let (parts, body) = request.into_parts();
        let body = whole(self.state.bounds, &parts.headers, body).await?;
        Ok(Request::from_parts(parts, body))
    }

    /// Who asks, if this page and this program may ask at all; `None` where anyone may.
    fn caller(&self, connection: &Connection, request: &Request) -> Result<Option<Caller>, Problem> {
        let settings = self.state.control.settings();
        let (headers, path) = (request.headers(), request.uri().path());
        let host = host(headers, request.uri())?;
        let caller = Caller::of(connection, &settings.admin, headers)?;
        if !is_ours(host, connection.reach(), caller.as_ref().is_ok_and(Caller::has_token)) {
            return Err(Problem::foreign_host(allowed_hosts(connection.reach())));
        }
        origin(headers, host)?;
        let caller = match caller {
            Err(_) if is_open(path) => return Ok(None),
            caller => caller?,
        };
        caller.may(needed(request.method()), "a command")?;
        Ok(Some(caller))
    }
}

/// The host asked for.
fn host<'a>(headers: &'a HeaderMap, uri: &Uri) -> Result<&'a str, Problem> {
    let host = one(headers, &HOST)?.ok_or_else(|| Problem::bad_request("a request has a Host header"))?;
    if uri.authority().is_some_and(|authority| authority.as_str() != host) {
        return Err(Problem::bad_request("the Host header and the request target name different hosts"));
    }
    Ok(host)
}

/// Whether a request for `host` can only come from someone who means us. A page whose name was bound to our address has that name in `Host`
/// and no token; an address as `Host` is nobody's name.
fn is_ours(host: &str, reach: Reach, has_token: bool) -> bool {
    match reach {
        Reach::Unix => true,
        Reach::Loopback => is_loopback(host),
        Reach::Network => has_token || is_loopback(host) || is_address(host),
    }
}

const fn allowed_hosts(reach: Reach) -> &'static str {
    match reach {
        Reach::Unix | Reach::Loopback => {
            "the Host header must be localhost, 127.0.0.1 or [::1], with or without a port"
        }
        Reach::Network => "without a token the Host header must be an IP address or localhost, with or without a port",
    }
}

fn is_loopback(host: &str) -> bool {
    without_port(host).is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost") || IpAddr::from_str(name).is_ok_and(|ip| ip.is_loopback())
    })
}

fn is_address(host: &str) -> bool {
    without_port(host).is_some_and(|name| IpAddr::from_str(name).is_ok())
}

/// The name or address of `host`, without brackets and port.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(address, _)| address.contains(':'))?,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let is_port = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && u16::from_str(p).is_ok();
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// A page that says where it comes from must come from here. Browsers say so with every request of a page but the simplest; of those they say
/// whether the page is a foreign one (W3C Fetch Metadata). Following a link is no request of a page.
fn origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let Some(origin) = one(headers, &ORIGIN)? else {
        let says = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
        if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
            return Err(Problem::foreign_origin("a page from elsewhere asks, as the Sec-Fetch-Site header says"));
        }
        return Ok(());
    };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(Problem::foreign_origin("the Origin header, if there is one, must name the host of the request"))
}

fn media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let essence = one(headers, &CONTENT_TYPE)?.map(|value| value.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Problem::media_type("a POST needs Content-Type: application/json, also without a body"))
}

/// The whole body, in time and within its limit.
async fn whole(bounds: Bounds, headers: &HeaderMap, body: Body) -> Result<Body, Problem> {
    let announced = one(headers, &CONTENT_LENGTH)?.and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bounds.body_bytes as u64) {
        return Err(Problem::too_large(bounds.body_bytes));
    }
    let body = tokio::time::timeout(bounds.body, Limited::new(body, bounds.body_bytes).collect()).await;
    let seconds = bounds.body.as_secs_f32();
    let body = body.map_err(|_| Problem::too_slow(format!("a body arrives within {seconds} s")))?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::too_large(bounds.body_bytes)
        } else {
            Problem::bad_request("the body broke off or is malformed")
        }
    })?;
    Ok(Body::from(body.to_bytes()))
}

/// The value of a header that may be there once.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("more than one {name} header")));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| Problem::bad_request(format!("the {name} header holds bytes outside ASCII")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_this_machine_by_name_or_address_is_loopback() {
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9900", "127.8.8.8", "[::1]", "[::1]:80"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "localhost.",
            "localhost.evil.com",
            "evil.com",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "[::1]x",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "localhost:+80",
            "[::2]",
            "0.0.0.0",
            "user@localhost",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_needs_a_token_where_other_machines_come_from() {
        for host in ["tidegate.internal", "evil.example:9900", "10.0.0.1.nip.io"] {
            assert!(!is_ours(host, Reach::Network, false) && is_ours(host, Reach::Network, true), "{host}");
            assert!(!is_ours(host, Reach::Loopback, false) && !is_ours(host, Reach::Loopback, true), "{host}");
            assert!(is_ours(host, Reach::Unix, false), "{host}");
        }
        for host in ["10.0.0.1", "10.0.0.1:9900", "[fd00::1]:9900", "localhost"] {
            assert!(is_ours(host, Reach::Network, false), "{host}");
        }
        assert!(!is_ours("10.0.0.1", Reach::Loopback, true));
    }

    proptest! {
        #[test]
        fn no_host_panics(host in "\\PC{0,40}") {
            let _ = is_loopback(&host);
        }
    }
}
