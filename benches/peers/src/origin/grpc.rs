//! HTTP/2 with prior knowledge: answers a unary gRPC call with the message it was sent.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::{Pool, Served};

/// Calls at once on one connection.
const STREAMS_MAX: u32 = 1_000;
/// Receive window of a stream and of a connection, in bytes.
const WINDOW: u32 = 1 << 20;
/// Largest message.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

type Failure = Box<dyn std::error::Error>;

pub(super) async fn accept(listener: TcpListener, pool: Pool, served: Arc<Served>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let served = Arc::clone(&served);
        tokio::task::spawn_local(async move {
            // The proxy sees a broken connection and says so.
            let _ = connection(stream, pool, served).await;
        });
    }
}

async fn connection(stream: TcpStream, pool: Pool, served: Arc<Served>) -> Result<(), h2::Error> {
    let mut connection = Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let served = Arc::clone(&served);
        tokio::task::spawn_local(async move {
            if answer(request, respond, pool).await.is_ok() {
                served.count(pool);
            }
        });
    }
    Ok(())
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, pool: Pool) -> Result<(), Failure> {
    let echo = (request.uri().path() == "/echo").then(|| fields(request.headers()));
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
        if message.len() > MESSAGE_BYTES_MAX {
            return Err("a message too large".into());
        }
    }
    if let Some(fields) = echo {
        message = fields;
    }
    let response =
        Response::builder().header("content-type", "application/grpc").header("x-pool", pool.name()).body(())?;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(message.into(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}

/// The fields as HTTP/1.1 would write them.
fn fields(fields: &HeaderMap) -> Vec<u8> {
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
        [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()
    };
    fields.iter().flat_map(line).collect()
}
