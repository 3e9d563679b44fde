//! grpc.health.v1 against a server on the h2 crate.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::{GET, QUICK};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::until;

/// What the server answers: the serving status, or a call that fails.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const UNKNOWN_SERVICE: u8 = 5;

/// Heads and messages that came.
type Seen = Arc<Mutex<Vec<(Request<()>, Bytes)>>>;

struct Server {
    address: String,
    answer: Arc<AtomicU8>,
    seen: Seen,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("as the test set it up");
    let address = listener.local_addr().expect("as the test set it up").to_string();
    let (answer, seen) = (Arc::new(AtomicU8::new(SERVING)), Arc::new(Mutex::new(Vec::new())));
    let (answers, requests) = (Arc::clone(&answer), Arc::clone(&seen));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&requests)));
        }
    });
    Server { address, answer, seen, task }
}

async fn serve(stream: TcpStream, answer: Arc<AtomicU8>, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
        // The connection has to be polled while the body comes.
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            seen.lock().expect("as the test set it up").push((Request::from_parts(head, ()), message.into()));
            let response = Response::builder().header("content-type", "application/grpc");
            let status = answer.load(Ordering::Relaxed);
            if status == UNKNOWN_SERVICE {
                let failed = response.header("grpc-status", "5").header("grpc-message", "unknown service");
                let _ = respond.send_response(failed.body(()).expect("as the test set it up"), true);
                return;
            }
            let mut stream = respond
                .send_response(response.body(()).expect("as the test set it up"), false)
                .expect("as the test set it up");
            stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).expect("as the test set it up");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        });
    }
}

#[tokio::test]
async fn a_grpc_server_says_itself_whether_it_serves() {
    let (server, app) = (start().await, Upstream::start(Behaviour::version("v1")).await);
    let port = server.address.rsplit(':').next().expect("as the test set it up");
    let lines = format!(
        "kind = \"grpc\"\npath = \"shop.Cart\"\nport = {port}\nhost = \"cart.internal\"\nheaders = [{{ name = \"x-probe\", value = \"1\" }}]"
    );
    let health = |c: crate::harness::config::Config| {
        let c = c.set("services.web.outlier", super::CALM);
        c.set("services.web.health", QUICK).set("services.web.health", &lines)
    };
    let proxy = Proxy::start(|c| health(c.web(&[&app.address()], &[]))).await;
    proxy.admin.until_health(&app.address(), "ready").await;
    {
        let seen = server.seen.lock().expect("as the test set it up");
        let (head, message) = &seen[0];
        assert_eq!(head.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(
            (head.method().as_str(), head.uri().authority().expect("as the test set it up").as_str()),
            ("POST", "cart.internal")
        );
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers"), ("x-probe", "1")] {
            assert_eq!(head.headers()[name], value);
        }
        assert!(head.headers()["user-agent"].to_str().expect("as the test set it up").starts_with("tidegate-probe/"));
        assert_eq!(&message[..], [&[0, 0, 0, 0, 11, 0x0a, 9][..], b"shop.Cart"].concat());
    }
    for (answer, told) in
        [(NOT_SERVING, "NOT_SERVING instead of SERVING"), (UNKNOWN_SERVICE, "grpc-status 5: unknown service")]
    {
        server.answer.store(answer, Ordering::Relaxed);
        let endpoint = proxy.admin.until_health(&app.address(), "not_ready").await;
        assert_eq!(endpoint["probe"]["error"], told, "{endpoint}");
        assert_eq!(proxy.ask(GET).await.status, 503);
        server.answer.store(SERVING, Ordering::Relaxed);
        proxy.admin.until_health(&app.address(), "ready").await;
    }
    let asked = server.seen.lock().expect("as the test set it up").len();
    until("probes to go on", || server.seen.lock().expect("as the test set it up").len() > asked + 2).await;
}
