//! The two sample upstreams of the demo: small servers on loopback that answer with their version.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Open connections of one upstream; further ones wait in the accept queue.
const CONNECTIONS_MAX: usize = 256;
/// Names the version in an answer.
pub(super) const VERSION_HEADER: &str = "x-demo-version";
/// What stable and candidate answer.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Both upstreams, on a thread of their own so that the load does not slow them down.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// Where stable and candidate are.
    pub(super) addresses: [SocketAddr; 2],
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Starts both on free ports of the loopback interface.
    pub(super) fn start() -> io::Result<Self> {
        let (stable, candidate) = (bind()?, bind()?);
        let addresses = [stable.local_addr()?, candidate.local_addr()?];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let serve = move || runtime.block_on(serve_both([stable, candidate], stopped));
        let thread = std::thread::Builder::new().name("demo-upstreams".to_owned()).spawn(serve)?;
        Ok(Self { addresses, stop, thread: Some(thread) })
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic over there was already printed; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

fn bind() -> io::Result<StdListener> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve_both(listeners: [StdListener; 2], mut stopped: watch::Receiver<bool>) {
    let [stable, candidate] = listeners;
    // What is still open is closed when the runtime goes.
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = async { tokio::join!(serve(stable, VERSIONS[0]), serve(candidate, VERSIONS[1])); } => {}
    }
}

async fn serve(listener: StdListener, version: &'static str) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    answer(stream, version).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client is gone already: others must have their turn before the next try.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn answer(stream: TcpStream, version: &'static str) {
    // Only the delay of a second small write is lost if it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(response(&request, version)) });
    // A connection that breaks is the client's to notice.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn response(request: &Request<Incoming>, version: &'static str) -> Response<Full<Bytes>> {
    let text = format!("{version} says hello to {} {}\n", request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(version));
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{self, Target};
    use std::time::Duration;

    #[tokio::test]
    async fn each_answers_its_version_until_stopped() {
        let upstreams = Upstreams::start().expect("starts");
        let addresses = upstreams.addresses;
        for (address, version) in addresses.into_iter().zip(VERSIONS) {
            let target = Target::parse(&format!("http://{address}")).expect("an address");
            let request = http::Request::get("/cart?x=1");
            let response = http::request(&target, request, Duration::from_secs(5)).await.expect("an answer");
            assert_eq!(response.headers.get(VERSION_HEADER).and_then(|v| v.to_str().ok()), Some(version));
            assert_eq!(response.body, format!("{version} says hello to GET /cart\n"));
        }
        drop(upstreams);
        for address in addresses {
            assert!(std::net::TcpStream::connect(address).is_err(), "{address} is still open");
        }
    }
}
