//! pingora's server and client for HTTP/1. Neither tells of trailers.

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::{client, server};
use pingora_http::{HMap, RequestHeader};

use super::super::message::{End, Pair, Request, Requests, Response, canonical};
use super::super::pipe::Pipe;
use super::block_on;

/// The requests a server sees in `raw`. Whether a request closes the connection is noted, and not heeded.
#[must_use]
pub fn requests(raw: &[u8]) -> Requests {
    block_on(async {
        let mut stream: Stream = Box::new(Pipe::whole(raw));
        let mut ahead: Option<BytesMut> = None;
        let mut messages = Vec::new();
        let end = loop {
            let mut session = server::HttpSession::new(stream);
            session.set_pipelining_enabled(true);
            if let Some(ahead) = ahead.take() {
                session.set_pipelined_prefix(ahead);
            }
            match session.read_request().await {
                Ok(Some(_)) => {}
                Ok(None) => break End::Closed,
                Err(error) => break End::Refused(0, error.to_string()),
            }
            messages.push(head(&session));
            let message = messages.last_mut().expect("just pushed");
            let body = loop {
                match session.read_body_bytes().await {
                    Ok(Some(bytes)) => message.body.extend_from_slice(&bytes),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.to_string()),
                }
            };
            if let Err(error) = body {
                break End::Refused(0, error);
            }
            message.complete = true;
            session.set_server_keepalive(Some(0));
            match session.reuse().await {
                Ok(Some(reused)) => (stream, ahead) = reused.into_parts(),
                Ok(None) => break End::Last,
                Err(error) => break End::Refused(0, error.to_string()),
            }
        };
        Requests { messages, end }
    })
}

fn head(session: &server::HttpSession) -> Request {
    let head = session.req_header();
    Request {
        method: head.method.as_str().into(),
        target: head.raw_path().to_vec(),
        minor: u8::from(head.version == hyper::Version::HTTP_11),
        fields: pairs(&head.headers),
        keep_alive: session.will_keepalive(),
        ..Request::default()
    }
}

/// The answer a client sees in `raw` to a request of this method.
///
/// # Errors
/// It does not take it; says why.
pub fn response(method: &str, raw: &[u8]) -> Result<Response, String> {
    block_on(async {
        let mut session = client::HttpSession::new(Box::new(Pipe::answering(raw)));
        let request = RequestHeader::build(method, b"/", None).map_err(|error| error.to_string())?;
        session.write_request_header(Box::new(request)).await.map_err(|error| error.to_string())?;
        let mut interim = Vec::new();
        loop {
            session.read_response().await.map_err(|error| error.to_string())?;
            let head = session.resp_header().expect("just read");
            if !head.status.is_informational() || head.status.as_u16() == 101 {
                break;
            }
            interim.push((head.status.as_u16(), pairs(&head.headers)));
        }
        let head = session.resp_header().expect("just read");
        let mut message = Response {
            status: head.status.as_u16(),
            reason: head.get_reason_phrase().map(Into::into),
            minor: u8::from(head.version == hyper::Version::HTTP_11),
            fields: pairs(&head.headers),
            interim: Some(interim),
            ..Response::default()
        };
        // Switching protocols nobody asked for: there is no body to read.
        while message.status != 101 {
            match session.read_body_bytes().await {
                Ok(Some(bytes)) => message.body.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(_) => return Ok(message),
            }
        }
        message.complete = true;
        Ok(message)
    })
}

fn pairs(fields: &HMap) -> Vec<Pair> {
    canonical(fields.iter())
}
