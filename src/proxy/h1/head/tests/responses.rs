//! Responses: the upstream is believed no more than the client.

use super::*;
use crate::proxy::headers::ResponseHead;

fn read(raw: &[u8], request_is_head: bool) -> Result<ResponseHead, BadResponse> {
    let read_cut = |cuts: &[usize]| {
        let mut state = ScanState::default();
        for cut in cuts.iter().copied().chain([raw.len()]) {
            if let Some(length) = scan_response_head(&raw[..cut], &mut state)? {
                let mut head = ResponseHead { bytes: raw.to_vec(), ..ResponseHead::default() };
                return parse_response(&mut head, length, request_is_head).map(|()| head);
            }
        }
        panic!("incomplete: {}", raw.escape_ascii());
    };
    let whole = read_cut(&[]);
    for cut in (0..raw.len()).step_by(raw.len() / 300 + 1) {
        assert_eq!(
            format!("{:?}", read_cut(&[cut]).ok()),
            format!("{:?}", whole.as_ref().ok()),
            "{}",
            raw.escape_ascii()
        );
    }
    whole
}

#[test]
fn bad() {
    for raw in [
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 O\x1bK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html></html>\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX(: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\n",
    ] {
        assert!(read(raw.as_bytes(), false).is_err(), "accepted: {}", raw.escape_debug());
    }
    let head = |length: usize| {
        let rest = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(length - rest)).into_bytes()
    };
    assert!(read(&head(RESPONSE_HEAD_MAX), false).is_ok());
    assert!(read(&head(RESPONSE_HEAD_MAX + 1), false).is_err());
    let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count)).into_bytes();
    assert!(read(&fields(RESPONSE_FIELDS_MAX), false).is_ok());
    assert!(read(&fields(RESPONSE_FIELDS_MAX + 1), false).is_err());
}

#[test]
fn good() {
    use BodyLength::{Chunked, Exact, None, UntilClose};
    for (start, lines, head, body, keep_alive) in [
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", false, Exact(5), true),
        ("HTTP/1.1 200 OK", "Content-Length: 0\r\n", false, None, true),
        ("HTTP/1.1 200 ", "Content-Length: 5\r\nConnection: close\r\n", false, Exact(5), false),
        ("HTTP/1.1 200", "Transfer-Encoding: Chunked\r\n", false, Chunked, true),
        ("HTTP/1.1 200 OK", "", false, UntilClose, false),
        ("HTTP/1.1 200 OK", "", true, None, true),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", true, None, true),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", true, None, true),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", false, None, true),
        ("HTTP/1.1 304 Not Modified", "", false, None, true),
        ("HTTP/1.1 204 No Content", "", false, None, true),
        ("HTTP/1.1 204 No Content", "Content-Length: 0\r\n", false, None, true),
        ("HTTP/1.1 204 No Content", "Content-Length: 5\r\n", false, None, false),
        ("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\r\n", false, None, false),
        ("HTTP/1.1 100 Continue", "", false, None, true),
        ("HTTP/1.1 103 Early Hints", "Link: </a>\r\n", false, None, true),
        ("HTTP/1.1 101 Switching Protocols", "Connection: upgrade\r\nUpgrade: websocket\r\n", false, None, false),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\n", false, Exact(5), false),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\n", false, Exact(5), true),
        ("HTTP/1.1 599 Any \t\u{e9} thing: at all ", "Content-Length: 1\r\n", false, Exact(1), true),
    ] {
        let raw = format!("{start}\r\n{lines}\r\n");
        let read = read(raw.as_bytes(), head).unwrap_or_else(|bad| panic!("{bad}: {}", raw.escape_debug()));
        assert_eq!((read.body, read.keep_alive), (body, keep_alive), "{}", raw.escape_debug());
        assert_eq!(read.status.to_string(), start[9..12]);
        assert_eq!(read.get(read.reason), start.get(13..).unwrap_or_default().as_bytes());
    }
}

#[test]
fn underscores_and_nominated_fields() {
    let raw = b"HTTP/1.1 200 OK\r\nX_Y: 1\r\nConnection: x-a\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n";
    let head = read(raw, false).unwrap();
    assert_eq!(head.field(b"x_y"), Some(&b"1"[..]));
    assert_eq!(head.field(b"x-a"), None);
    assert_eq!(head.known(Known::ContentLength), Some(&b"0"[..]));
}
