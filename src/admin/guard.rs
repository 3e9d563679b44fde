//! What every request has to pass, on every bind: a page in a browser on this machine is not an operator.
//!
//! Host defeats DNS rebinding; Origin and the content type on POST defeat cross-site requests, which a browser sends without asking
//! only with the media types of forms.

use std::net::IpAddr;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Bounds;
use super::problem::Problem;
use super::serve::Peer;

/// The checks, in front of every route.
pub(super) async fn guard(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let mut response = match checked(bounds, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn checked(bounds: Bounds, request: Request) -> Result<Request, Problem> {
    let local = matches!(request.extensions().get::<Peer>(), Some(Peer::Unix));
    let host = host(request.headers(), request.uri(), local)?;
    origin(request.headers(), host)?;
    if request.method() != Method::POST {
        return Ok(request);
    }
    media_type(request.headers())?;
    let (parts, body) = request.into_parts();
    let body = whole(bounds, &parts.headers, body).await?;
    Ok(Request::from_parts(parts, body))
}

/// The host asked for. Over TCP it must be a name or address of this machine that no foreign page can resolve to.
fn host<'a>(headers: &'a HeaderMap, uri: &Uri, local: bool) -> Result<&'a str, Problem> {
    let host = one(headers, &HOST)?.ok_or_else(|| Problem::bad_request("a request has a Host header"))?;
    if uri.authority().is_some_and(|authority| authority.as_str() != host) {
        return Err(Problem::bad_request("the Host header and the request target name different hosts"));
    }
    if local || is_loopback(host) {
        return Ok(host);
    }
    Err(Problem::foreign_host("the Host header must be localhost, 127.0.0.1 or [::1], with or without a port"))
}

fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.contains(':') => (address, port),
            _ => return false,
        },
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && u16::from_str(p).is_ok());
    port && (name.eq_ignore_ascii_case("localhost") || IpAddr::from_str(name).is_ok_and(|ip| ip.is_loopback()))
}

/// A page that says where it comes from must come from here.
fn origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let Some(origin) = one(headers, &ORIGIN)? else { return Ok(()) };
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
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
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

    proptest! {
        #[test]
        fn no_host_panics(host in "\\PC{0,40}") {
            let _ = is_loopback(&host);
        }
    }
}
