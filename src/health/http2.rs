//! One request over HTTP/2 on a connection of its own.

use bytes::{Bytes, BytesMut};
use hyper::Request;
use hyper::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::net::http::drive;

/// Largest list of response fields, in bytes.
const HEADER_LIST_MAX: u32 = 16 * 1024;

/// A response, or as much of it as was wanted.
pub(super) struct Answer {
    /// Its fields.
    pub(super) fields: HeaderMap,
    /// The beginning of its body.
    pub(super) body: BytesMut,
    /// The body was longer.
    pub(super) is_cut: bool,
    /// Absent where the body was cut.
    pub(super) trailers: Option<HeaderMap>,
}

/// Sends `request` with a body, if there is one, and reads at most `body_max` bytes of the answer's. The status, if one came, whatever
/// came after it. The caller bounds the time.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<()>,
    body: Option<Bytes>,
    body_max: usize,
) -> (Option<u16>, Result<Answer, String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEADER_LIST_MAX).max_concurrent_streams(1);
    let (sender, connection) = match builder.handshake::<S, Bytes>(stream).await {
        Ok(connected) => connected,
        Err(error) => return (None, Err(format!("no HTTP/2: {error}"))),
    };
    let mut status = None;
    let answer = drive(call(sender, request, body, body_max, &mut status), connection).await;
    (status, answer.map_err(|error| format!("the call failed: {error}")))
}

async fn call(
    sender: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    message: Option<Bytes>,
    body_max: usize,
    status: &mut Option<u16>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut sending) = sender.send_request(request, message.is_none())?;
    if let Some(message) = message {
        sending.send_data(message, true)?;
    }
    let (head, mut stream) = response.await?.into_parts();
    *status = Some(head.status.as_u16());
    let mut answer = Answer { fields: head.headers, body: BytesMut::new(), is_cut: false, trailers: None };
    while let Some(data) = stream.data().await {
        let data = data?;
        let room = body_max - answer.body.len();
        answer.body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            answer.is_cut = true;
            return Ok(answer);
        }
        // The window only matters to a body that is too large.
        let _ = stream.flow_control().release_capacity(data.len());
    }
    answer.trailers = stream.trailers().await?;
    Ok(answer)
}
