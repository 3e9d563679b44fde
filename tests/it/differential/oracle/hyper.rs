//! hyper's server and client for HTTP/1.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Version};
use hyper_util::rt::TokioIo;

use super::super::message::{End, Pair, Request, Requests, Response, canonical};
use super::super::pipe::Pipe;
use super::block_on;

/// Most fields it takes: more than our own codec does, so that ours decides.
const FIELDS_MAX: usize = 256;

/// The requests a server sees in `raw`.
#[must_use]
pub fn requests(raw: &[u8]) -> Requests {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&seen);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let sink = Rc::clone(&sink);
        async move {
            collect_request(request, &sink).await;
            Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.half_close(true).max_headers(FIELDS_MAX).auto_date_header(false);
    let served = block_on(server.serve_connection(TokioIo::new(Pipe::whole(raw)), service));
    let end = match served {
        Ok(()) => End::Closed,
        Err(error) => End::Refused(0, error.to_string()),
    };
    Requests { messages: seen.take(), end }
}

async fn collect_request(request: hyper::Request<Incoming>, sink: &RefCell<Vec<Request>>) {
    let (head, mut body) = request.into_parts();
    let at = sink.borrow().len();
    sink.borrow_mut().push(Request {
        method: head.method.as_str().into(),
        target: head.uri.path_and_query().map_or_else(|| b"/".to_vec(), |target| target.as_str().into()),
        minor: minor(head.version),
        fields: pairs(&head.headers),
        trailers: Some(Vec::new()),
        ..Request::default()
    });
    loop {
        let frame = body.frame().await;
        let message = &mut sink.borrow_mut()[at];
        match frame {
            None => break message.complete = true,
            Some(Err(_)) => break,
            Some(Ok(frame)) => take(frame, &mut message.body, &mut message.trailers),
        }
    }
}

/// The answer a client sees in `raw` to a request of this method, its interim responses left out.
///
/// # Errors
/// It does not take it; says why.
pub fn response(method: &str, raw: &[u8]) -> Result<Response, String> {
    block_on(async {
        let mut client = hyper::client::conn::http1::Builder::new();
        client.max_headers(FIELDS_MAX);
        let io = TokioIo::new(Pipe::answering(raw));
        let (mut sender, connection) = client.handshake(io).await.map_err(|error| error.to_string())?;
        let request = hyper::Request::builder().method(method).uri("/").header("host", "a");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request"));
        let exchange = async {
            let answer = answer.await.map_err(|error| format!("{error:?}"))?;
            Ok(collect_response(answer).await)
        };
        let (answered, _) = tokio::join!(exchange, connection);
        answered
    })
}

async fn collect_response(response: hyper::Response<Incoming>) -> Response {
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
    let (head, mut body) = response.into_parts();
    let mut message = Response {
        status: head.status.as_u16(),
        reason: reason.or_else(|| head.status.canonical_reason().map(Into::into)),
        minor: minor(head.version),
        fields: pairs(&head.headers),
        trailers: Some(Vec::new()),
        ..Response::default()
    };
    loop {
        match body.frame().await {
            None => break message.complete = true,
            Some(Err(_)) => break,
            Some(Ok(frame)) => take(frame, &mut message.body, &mut message.trailers),
        }
    }
    message
}

fn take(frame: hyper::body::Frame<Bytes>, body: &mut Vec<u8>, trailers: &mut Option<Vec<Pair>>) {
    match frame.into_data() {
        Ok(data) => body.extend_from_slice(&data),
        Err(frame) => *trailers = frame.into_trailers().ok().map(|fields| pairs(&fields)),
    }
}

fn pairs(fields: &HeaderMap) -> Vec<Pair> {
    canonical(fields.iter())
}

fn minor(version: Version) -> u8 {
    u8::from(version == Version::HTTP_11)
}
