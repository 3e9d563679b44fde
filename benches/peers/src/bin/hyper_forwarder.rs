//! Yardstick: a plain HTTP/1.1 forwarder on hyper's server and client, one event loop, keep-alive connections to the origin. No split, no
//! affinity, no metrics, no fields added: what a program pays for hyper alone. `hyper-forwarder LISTEN ORIGIN`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// Idle connections to the origin, the last used on top.
type Idle = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

fn main() -> Result<(), Failure> {
    let mut addresses = std::env::args().skip(1).map(|text| text.parse::<SocketAddr>());
    let (Some(listen), Some(origin)) = (addresses.next().transpose()?, addresses.next().transpose()?) else {
        return Err("usage: hyper-forwarder LISTEN ORIGIN".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(listen, origin))
}

async fn serve(listen: SocketAddr, origin: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    let idle = Idle::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let idle = Rc::clone(&idle);
        let service = service_fn(move |request| forward(Rc::clone(&idle), origin, request));
        tokio::task::spawn_local(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away ends its connection and nothing else.
            let _ = connection.await;
        });
    }
}

async fn forward(
    idle: Idle,
    origin: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    // Hop by hop: without it the origin would close its connection together with the client's.
    request.headers_mut().remove(CONNECTION);
    let reused = idle.borrow_mut().pop().filter(SendRequest::is_ready);
    let mut sender = match reused {
        Some(sender) => sender,
        None => connect(origin).await?,
    };
    let response = sender.send_request(request).await?;
    tokio::task::spawn_local(async move {
        // Ready again when the response has been read to its end.
        if sender.ready().await.is_ok() {
            idle.borrow_mut().push(sender);
        }
    });
    Ok(response)
}

async fn connect(origin: SocketAddr) -> Result<SendRequest<Incoming>, Failure> {
    let stream = TcpStream::connect(origin).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
