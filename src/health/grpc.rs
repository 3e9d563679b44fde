//! grpc.health.v1 over HTTP/2: one unary `Check` on a connection of its own.
//!
//! The two messages have one field each, so they are written and read by hand:
//! `HealthCheckRequest { string service = 1 }`, `HealthCheckResponse { ServingStatus status = 1 }`.

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2;

/// The method that is called.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";
/// Largest message that is read, in bytes: a response has two.
const MESSAGE_MAX: usize = 4 * 1024;
/// Bytes before a message: a flag and the length.
const PREFIX: usize = 5;
/// `ServingStatus` by number.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Asks over `stream` whether `service` serves; `headers` go with the request. The caller bounds the time. The HTTP status, if one came.
pub(super) async fn check<S>(
    stream: S,
    uri: Uri,
    headers: HeaderMap,
    service: &str,
) -> (Option<u16>, Result<(), String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let (status, answer) = http2::exchange(stream, request, Some(encode(service)), MESSAGE_MAX).await;
    let verdict = match (status, answer) {
        (Some(status), _) if status != 200 => Err(format!("status {status} instead of 200")),
        (_, Err(why)) => Err(why),
        (_, Ok(answer)) if answer.is_cut => Err(format!("the answer is larger than {MESSAGE_MAX} bytes")),
        // A call that fails at once has its status in the head.
        (_, Ok(answer)) => judge(answer.trailers.as_ref().unwrap_or(&answer.fields), &answer.body),
    };
    (status, verdict)
}

/// What status and message of a call say.
fn judge(fields: &HeaderMap, message: &[u8]) -> Result<(), String> {
    let text = |name: &str| fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status").as_deref() {
        Some("0") => {}
        Some(code) => {
            let why = text("grpc-message").map(|why| format!(": {}", why.chars().take(200).collect::<String>()));
            return Err(format!("grpc-status {code}{}", why.unwrap_or_default()));
        }
        None => return Err("the answer has no grpc-status".to_owned()),
    }
    match decode(message) {
        Some(SERVING) => Ok(()),
        Some(status) => {
            let name = usize::try_from(status).ok().and_then(|at| STATUSES.get(at));
            Err(format!("{} instead of SERVING", name.map_or_else(|| status.to_string(), ToString::to_string)))
        }
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// A `HealthCheckRequest` with its prefix.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// The status in a `HealthCheckResponse` with its prefix: 0 if the field is left out, `None` if it is no such message.
fn decode(framed: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = framed.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != rest.len() {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut rest)?,
            // Fields of later versions are skipped, by their wire type.
            (_, 0) => drop(take_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Base 128, least significant group first, at most ten bytes.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_as_protobuf_has_them() {
        assert_eq!(&encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(300);
        assert_eq!(&encode(&long)[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn statuses_are_read_and_other_fields_skipped() {
        let framed = |message: &[u8]| {
            let length = u8::try_from(message.len()).expect("short");
            [&[0, 0, 0, 0, length][..], message].concat()
        };
        for (message, status) in [
            (&[][..], Some(0)),
            (&[8, 1], Some(1)),
            (&[8, 2, 8, 1], Some(1)),
            (&[0x12, 2, 7, 7, 8, 1, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x28, 0x80, 1], Some(1)),
            (&[8], None),
            (&[8, 0x80], None),
            (&[0x0b], None),
            (&[0x12, 9, 1], None),
        ] {
            assert_eq!(decode(&framed(message)), status, "{message:?}");
        }
        assert_eq!(decode(&[0, 0, 0, 0]), None);
        assert_eq!(decode(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed, though nobody asked for it");
        assert_eq!(decode(&[0, 0, 0, 0, 3, 8, 1]), None);
    }

    #[test]
    fn only_serving_passes() {
        let fields = |status: &str, message: &str| {
            let mut fields = HeaderMap::new();
            fields.insert("grpc-status", status.parse().expect("value"));
            fields.insert("grpc-message", message.parse().expect("value"));
            fields
        };
        let serving = [0, 0, 0, 0, 2, 8, 1];
        assert_eq!(judge(&fields("0", ""), &serving), Ok(()));
        assert_eq!(judge(&fields("0", ""), &[0, 0, 0, 0, 2, 8, 2]), Err("NOT_SERVING instead of SERVING".into()));
        assert_eq!(judge(&fields("5", "unknown service"), &[]), Err("grpc-status 5: unknown service".into()));
        assert_eq!(judge(&HeaderMap::new(), &serving), Err("the answer has no grpc-status".into()));
    }

    proptest! {
        #[test]
        fn varints_read_back_and_nothing_panics(value: u64, junk in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut bytes = BytesMut::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(take_varint(&mut &bytes[..]), Some(value));
            decode(&junk);
        }
    }
}
