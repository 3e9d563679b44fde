//! The two sample upstreams of the demo: small servers on loopback that answer with their version. The candidate can be made to fail.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::fault::{Fault, SLOWER_BY};

/// Open connections of one upstream; further ones wait in the accept queue.
const CONNECTIONS_MAX: usize = 256;
/// Names the version in an answer.
pub(super) const VERSION_HEADER: &str = "x-demo-version";
/// Longer than any demo takes.
const FOREVER: Duration = Duration::from_secs(24 * 3_600);
/// What stable and candidate answer.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Both upstreams, on a thread of their own so that the load does not slow them down.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// Where stable and candidate are.
    pub(super) addresses: [SocketAddr; 2],
    fault: watch::Sender<Fault>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What one upstream answers.
#[derive(Debug)]
struct Release {
    version: &'static str,
    /// What is wrong with it at the moment.
    fault: watch::Receiver<Fault>,
    /// Requests answered since something is.
    failing: AtomicU64,
}

// === impl Upstreams ===

impl Upstreams {
    /// Starts both on free ports of the loopback interface.
    pub(super) fn start() -> io::Result<Self> {
        let (stable, candidate) = (bind()?, bind()?);
        let addresses = [stable.local_addr()?, candidate.local_addr()?];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (fault, faulty) = watch::channel(Fault::None);
        let serve = move || runtime.block_on(serve_both([stable, candidate], faulty, stopped));
        let thread = std::thread::Builder::new().name("demo-upstreams".to_owned()).spawn(serve)?;
        Ok(Self { addresses, fault, stop, thread: Some(thread) })
    }

    /// From now on the candidate suffers from `fault`.
    pub(super) fn suffer(&self, fault: Fault) {
        self.fault.send_replace(fault);
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

async fn serve_both(listeners: [StdListener; 2], faulty: watch::Receiver<Fault>, mut stopped: watch::Receiver<bool>) {
    let [stable, candidate] = listeners;
    // Nobody changes what is wrong with stable: nothing.
    let (_unchanged, healthy) = watch::channel(Fault::None);
    let releases =
        [(stable, VERSIONS[0], healthy), (candidate, VERSIONS[1], faulty)].map(|(listener, version, fault)| {
            serve(listener, Arc::new(Release { version, fault, failing: AtomicU64::new(0) }))
        });
    let [stable, candidate] = releases;
    // What is still open is closed when the runtime goes.
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = async { tokio::join!(stable, candidate); } => {}
    }
}

/// Serves until it crashes: then nothing listens any more, and what is open is cut.
async fn serve(listener: StdListener, release: Arc<Release>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut fault = release.fault.clone();
    let mut open = JoinSet::new();
    tokio::select! {
        // An error says that nobody can change it any more.
        Ok(_) = fault.wait_for(|fault| *fault == Fault::Crash) => {}
        () = accept(&listener, &release, &mut open) => {}
    }
}

async fn accept(listener: &TcpListener, release: &Arc<Release>, open: &mut JoinSet<()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let release = Arc::clone(release);
                open.spawn(async move {
                    answer(stream, release).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client is gone already: others must have their turn before the next try.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn answer(stream: TcpStream, release: Arc<Release>) {
    // Only the delay of a second small write is lost if it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let release = Arc::clone(&release);
        async move { Ok::<_, Infallible>(release.respond(&request).await) }
    });
    // A connection that breaks is the client's to notice.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

// === impl Release ===

impl Release {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let fault = *self.fault.borrow();
        let failing = if fault == Fault::None { 0 } else { self.failing.fetch_add(1, Ordering::Relaxed) };
        match fault {
            Fault::Errors if failing.is_multiple_of(2) => {
                let mut response = self.greet(request);
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return response;
            }
            Fault::Latency => tokio::time::sleep(SLOWER_BY).await,
            Fault::Hang => tokio::time::sleep(FOREVER).await,
            Fault::None | Fault::Errors | Fault::Crash => {}
        }
        self.greet(request)
    }

    fn greet(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let version = self.version;
        let text = format!("{version} says hello to {} {}\n", request.method(), request.uri().path());
        let mut response = Response::new(Full::new(Bytes::from(text)));
        let headers = response.headers_mut();
        headers.insert(VERSION_HEADER, HeaderValue::from_static(version));
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{self, HttpError, Response, Target};

    async fn ask(address: SocketAddr) -> Result<Response, HttpError> {
        let target = Target::parse(&format!("http://{address}")).expect("an address");
        http::request(&target, http::Request::get("/cart?x=1"), Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn each_answers_its_version_until_stopped() {
        let upstreams = Upstreams::start().expect("starts");
        let addresses = upstreams.addresses;
        for (address, version) in addresses.into_iter().zip(VERSIONS) {
            let response = ask(address).await.expect("an answer");
            assert_eq!(response.headers.get(VERSION_HEADER).and_then(|v| v.to_str().ok()), Some(version));
            assert_eq!(response.body, format!("{version} says hello to GET /cart\n"));
        }
        drop(upstreams);
        for address in addresses {
            assert!(std::net::TcpStream::connect(address).is_err(), "{address} is still open");
        }
    }

    #[tokio::test]
    async fn a_fault_is_the_candidates_alone() {
        let upstreams = Upstreams::start().expect("starts");
        let [stable, candidate] = upstreams.addresses;
        upstreams.suffer(Fault::Errors);
        let mut seen = Vec::new();
        for address in [candidate, candidate, stable, stable] {
            seen.push(ask(address).await.expect("an answer").status);
        }
        assert_eq!(seen, [500, 200, 200, 200]);
        upstreams.suffer(Fault::Latency);
        let began = crate::clock::now();
        assert_eq!(ask(candidate).await.map(|answer| answer.status), Ok(200));
        assert!(began.elapsed() >= SLOWER_BY);
        upstreams.suffer(Fault::Hang);
        let hangs = tokio::time::timeout(SLOWER_BY, ask(candidate)).await;
        assert!(hangs.is_err() && ask(stable).await.is_ok(), "{hangs:?}");
    }

    #[tokio::test]
    async fn who_crashes_listens_no_more_and_cuts_what_is_open() {
        let upstreams = Upstreams::start().expect("starts");
        let [stable, candidate] = upstreams.addresses;
        let mut open = TcpStream::connect(candidate).await.expect("listens");
        assert!(ask(candidate).await.is_ok());
        upstreams.suffer(Fault::Crash);
        let mut byte = [0];
        let cut = tokio::io::AsyncReadExt::read(&mut open, &mut byte).await;
        assert!(!matches!(cut, Ok(1)), "{cut:?}");
        assert!(ask(candidate).await.is_err() && ask(stable).await.is_ok());
    }
}
