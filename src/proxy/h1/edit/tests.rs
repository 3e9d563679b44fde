//! What leaves: everything end-to-end in its order, nothing of the hop, and framing of our own.

use proptest::prelude::*;

use super::*;
use crate::config::settings::{Limits, Underscores};
use crate::proxy::edits::{REQUEST_ID_MAX, RequestEdits};
use crate::proxy::h1::head::{HeadLimits, parse_request, parse_response};
use crate::proxy::headers::{BodyLength, Field, HttpVersion, Known, RequestHead, ResponseHead, Span};

fn limits() -> HeadLimits {
    HeadLimits::new(&Limits::default(), Underscores::Keep)
}

fn request(raw: &str) -> RequestHead {
    let mut head = RequestHead { bytes: raw.as_bytes().to_vec(), ..RequestHead::default() };
    parse_request(&mut head, raw.len(), &limits()).unwrap_or_else(|refusal| panic!("{refusal}: {raw}"));
    head
}

fn response(raw: &str, request_is_head: bool) -> ResponseHead {
    let mut head = ResponseHead { bytes: raw.as_bytes().to_vec(), ..ResponseHead::default() };
    parse_response(&mut head, raw.len(), request_is_head).unwrap_or_else(|bad| panic!("{bad}: {raw}"));
    head
}

fn edits(head: &RequestHead) -> RequestEdits<'_> {
    RequestEdits {
        target: None,
        host: head.get(head.authority),
        client_ip: b"192.0.2.1",
        proto: b"http",
        trusted: false,
        request_id: b"id-1",
        strip_header: None,
        strip_cookie: None,
        body: head.body,
        call_left: None,
        websocket: head.websocket,
    }
}

fn written(head: &RequestHead, edits: &RequestEdits<'_>) -> String {
    let mut out = b"before".to_vec();
    write_request(&mut out, head, edits);
    String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
}

/// What a request with `lines` after `Host` goes out with after `Host`, forwarding fields of ours left out.
fn forwarded(lines: &str) -> String {
    let head = request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    let out = written(&head, &edits(&head));
    let ours = [
        "x-forwarded-for: 192.0.2.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: a\r\n",
        "forwarded: for=192.0.2.1;host=a;proto=http\r\n",
        "x-request-id: id-1\r\n",
    ];
    let out = ours.iter().fold(out, |out, line| out.replacen(line, "", 1));
    out.strip_prefix("POST / HTTP/1.1\r\nhost: a\r\n").expect("our first lines").to_owned()
}

#[test]
fn a_request_as_a_whole() {
    let head = request(
        "GET /a?b HTTP/1.0\r\nUser-Agent:x\r\nhOST: Shop:80\r\nAccept: \t*/* \r\nConnection: keep-alive\r\nX-Empty:\r\nCookie: c=d\r\n\r\n",
    );
    assert_eq!(
        written(&head, &edits(&head)),
        "GET /a?b HTTP/1.1\r\nhost: Shop:80\r\nUser-Agent: x\r\nAccept: */*\r\nX-Empty:\r\nCookie: c=d\r\n\
         x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: Shop:80\r\n\
         forwarded: for=192.0.2.1;host=\"Shop:80\";proto=http\r\nx-request-id: id-1\r\n\r\n"
    );
}

#[test]
fn what_concerns_one_hop_stays_behind() {
    for (lines, left) in [
        ("Connection: close, x-a\r\nX-A: 1\r\nX-B: 2\r\n", "X-B: 2\r\ncontent-length: 0\r\n\r\n"),
        (
            "Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nProxy-Authenticate: x\r\n",
            "content-length: 0\r\n\r\n",
        ),
        ("Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: x\r\n", "content-length: 0\r\n\r\n"),
        ("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n", "content-length: 0\r\n\r\n"),
        ("TE: gzip\r\n", "content-length: 0\r\n\r\n"),
        ("TE: trailers, gzip\r\nConnection: te\r\n", "te: trailers\r\nconnection: te\r\ncontent-length: 0\r\n\r\n"),
        ("Content-Length: 007\r\nExpect: 100-Continue\r\n", "content-length: 7\r\nexpect: 100-continue\r\n\r\n"),
        (
            "X: y\r\ntransfer-encoding: CHUNKED\r\nTrailer: a\r\n",
            "X: y\r\nTrailer: a\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        ("Trailer: a\r\nExpect: 100-continue\r\n", "content-length: 0\r\n\r\n"),
        (
            "X-Tidegate-Variant: candidate\r\nx-tidegate-: x\r\nX-Tidegat: y\r\n",
            "X-Tidegat: y\r\ncontent-length: 0\r\n\r\n",
        ),
        ("Forwarded: for=x\r\nX-Forwarded-Port: 1\r\nX-Forwarded-For: x\r\n", "content-length: 0\r\n\r\n"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n", "content-length: 0\r\n\r\n"),
    ] {
        assert_eq!(forwarded(lines), left, "{lines}");
    }
    let get = request("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(!written(&get, &edits(&get)).contains("content-length"));
}

#[test]
fn forwarding_fields_of_trusted_proxies_are_appended_to() {
    let head = request(
        "GET / HTTP/1.1\r\nHost: a:81\r\nX-Forwarded-For: 10.0.0.1,10.0.0.2\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 443\r\nx-forwarded-for: 10.0.0.3\r\nForwarded: for=b, for=c\r\n\r\n",
    );
    let trusted = RequestEdits { trusted: true, client_ip: b"2001:db8::1", ..edits(&head) };
    assert_eq!(
        written(&head, &trusted),
        "GET / HTTP/1.1\r\nhost: a:81\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\nX-Forwarded-Port: 443\r\n\
         x-forwarded-for: 10.0.0.1, 10.0.0.2, 10.0.0.3, 2001:db8::1\r\n\
         forwarded: for=10.0.0.1, for=b, for=c, for=\"[2001:db8::1]\";host=\"a:81\";proto=http\r\nx-request-id: id-1\r\n\r\n"
    );
    let unix = RequestEdits { client_ip: b"", ..trusted };
    let out = written(&head, &unix);
    assert!(out.contains("x-forwarded-for: 10.0.0.1, 10.0.0.2, 10.0.0.3\r\n") && out.contains(", for=unknown;host"));

    let plain = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let out = written(&plain, &RequestEdits { trusted: true, ..edits(&plain) });
    assert!(out.contains("x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\n"));
    assert!(out.contains("\r\nforwarded: for=192.0.2.1;host=a;proto=http\r\n"));
    let out = written(&plain, &RequestEdits { client_ip: b"", ..edits(&plain) });
    assert!(!out.contains("x-forwarded-for"));
}

/// Traefik CVE-2024-45410: what the proxy sets is not for the client to nominate; and what it nominates otherwise does not come back.
#[test]
fn nominated_request_ids_are_replaced() {
    assert_eq!(forwarded("X-Request-Id: mine\r\nConnection: x-request-id\r\n"), "content-length: 0\r\n\r\n");
}

#[test]
fn request_ids() {
    let long = "i".repeat(REQUEST_ID_MAX);
    for (id, kept) in [
        ("abc-1", true),
        (long.as_str(), true),
        ("", false),
        ("a b", false),
        ("\u{e9}", false),
        (&format!("{long}i"), false),
    ] {
        let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: {id}\r\nX-Request-ID: second\r\n\r\n"));
        let out = written(&head, &edits(&head));
        assert_eq!(out.contains(&format!("X-Request-ID: {id}\r\n")), kept, "{id}");
        assert_eq!(out.to_ascii_lowercase().matches("x-request-id").count(), 1, "{id}");
        assert!(kept || out.contains("X-Request-ID: second\r\n"));
    }
    let head = request("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: a b\r\n\r\n");
    assert!(written(&head, &edits(&head)).contains("\r\nx-request-id: id-1\r\n"));
}

#[test]
fn one_field_and_one_cookie_can_be_left_out() {
    for (cookies, left) in [
        ("Cookie: a=1; t=x; b=2\r\n", "cookie: a=1; b=2\r\n"),
        ("Cookie: t=x;a=1 ;; b = 2; t=y\r\n", "cookie: a=1; b = 2\r\n"),
        ("Cookie: t=x\r\n", ""),
        ("Cookie: T=x; tt=y;z\r\n", "Cookie: T=x; tt=y;z\r\n"),
        ("Cookie: a=1\r\nX: y\r\nCookie: t=1\r\nCookie: b=2\r\n", "cookie: a=1; b=2\r\nX: y\r\n"),
        ("Cookie: a=1\r\nX: y\r\nCookie: b=2\r\n", "cookie: a=1; b=2\r\nX: y\r\n"),
    ] {
        let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}X-Canary: 1\r\nx-canary: 2\r\n\r\n"));
        let edits = RequestEdits { strip_cookie: Some(b"t"), strip_header: Some(b"x-canary"), ..edits(&head) };
        let out = written(&head, &edits);
        let copied = &out["GET / HTTP/1.1\r\nhost: a\r\n".len()..out.find("x-forwarded-for").unwrap()];
        assert_eq!(copied, left, "{cookies}");
    }
}

#[test]
fn the_time_of_a_call_is_what_is_left_of_it() {
    let head = request("POST / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 1S\r\nX: y\r\ngrpc-timeout: 2S\r\n\r\n");
    assert!(written(&head, &edits(&head)).contains("grpc-timeout: 1S\r\nX: y\r\ngrpc-timeout: 2S\r\n"));
    let left = Some(std::time::Duration::from_millis(70));
    let out = written(&head, &RequestEdits { call_left: left, ..edits(&head) });
    assert!(out.contains("X: y\r\ngrpc-timeout: 70000000n\r\n"), "{out}");
    assert_eq!(out.matches("grpc-timeout").count(), 1, "{out}");
}

#[test]
fn the_path_can_be_resolved_and_the_host_replaced() {
    let head = request("GET /a/../b%20?c=.. HTTP/1.1\r\nHost: a\r\n\r\n");
    let out = written(&head, &RequestEdits { target: Some(b"/b%20"), host: b"10.0.0.1:80", ..edits(&head) });
    assert!(out.starts_with("GET /b%20?c=.. HTTP/1.1\r\nhost: 10.0.0.1:80\r\nx-forwarded"));
    assert!(out.contains("x-forwarded-host: a\r\n"));
    let head = request("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(written(&head, &edits(&head)).starts_with("OPTIONS * HTTP/1.1\r\nhost: a\r\n"));
    let head = request("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(written(&head, &edits(&head)).starts_with("GET /?b HTTP/1.1\r\nhost: a\r\n"));
}

#[test]
fn a_websocket_handshake_goes_on_in_canonical_form() {
    let head = request(
        "GET /c HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket, h2c\r\nConnection: Upgrade, keep-alive\r\nTE: trailers\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: p\r\n\r\n",
    );
    assert!(head.websocket);
    let out = written(&head, &edits(&head));
    assert!(out.contains(
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: p\r\n"
    ));
    assert!(out.ends_with("\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n") && !out.contains("te:"));
}

/// Heads that come from HTTP/2 lie in their buffer in some other way.
#[test]
fn heads_that_are_no_lines_are_written_field_by_field() {
    let mut head = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    head.version = HttpVersion::Http2;
    for (name, value) in [("x", "y"), ("cookie", "a=1"), ("z", ""), ("cookie", "b=2")] {
        let mut push = |text: &str| {
            let start = u32::try_from(head.bytes.len()).unwrap();
            head.bytes.extend_from_slice(text.as_bytes());
            Span { start, end: u32::try_from(head.bytes.len()).unwrap() }
        };
        // The value before the name.
        let (value, name_span) = (push(value), push(name));
        head.fields.push(Field { known: Known::of(name.as_bytes()), name: name_span, value });
    }
    assert!(
        written(&head, &edits(&head))
            .starts_with("GET / HTTP/1.1\r\nhost: a\r\nx: y\r\ncookie: a=1; b=2\r\nz:\r\nx-forwarded")
    );
}

fn answer(raw: &str, head_request: bool, edits: &ResponseEdits<'_>) -> String {
    let mut out = Vec::new();
    let head = response(raw, head_request);
    write_response(&mut out, &head, &ResponseEdits { body: edits.body, ..*edits });
    String::from_utf8(out).unwrap()
}

const PLAIN: ResponseEdits<'static> = ResponseEdits {
    body: BodyLength::None,
    close: false,
    keep_alive_10: false,
    no_body_head: false,
    date: None,
    set_cookie: None,
    extra: &[],
};

#[test]
fn responses() {
    use BodyLength::{Chunked, Exact, None, UntilClose};
    let hop = "Connection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: x\r\nX-Tidegate-Variant: x\r\n";
    for (raw, body, head, expected) in [
        (
            format!("HTTP/1.1 200 Fine\r\n{hop}X:y\r\nContent-Length: 05\r\n\r\n"),
            Exact(5),
            false,
            "200 Fine\r\nX: y\r\ncontent-length: 5\r\n\r\n",
        ),
        ("HTTP/1.0 404\r\nContent-Length: 0\r\n\r\n".into(), None, false, "404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n".into(),
            Chunked,
            false,
            "200 OK\r\nTrailer: a\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n".into(),
            UntilClose,
            false,
            "200 OK\r\nconnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: y\r\n\r\n".into(),
            Chunked,
            false,
            "200 OK\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n".into(),
            None,
            true,
            "200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), None, true, "200 OK\r\n\r\n"),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into(),
            None,
            true,
            "304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n".into(), None, false, "204 No Content\r\n\r\n"),
        ("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n".into(), None, false, "299 \r\ncontent-length: 0\r\n\r\n"),
    ] {
        let edits = ResponseEdits { body, no_body_head: head, ..PLAIN };
        assert_eq!(answer(&raw, head, &edits), format!("HTTP/1.1 {expected}"), "{raw}");
    }
}

#[test]
fn what_is_added_to_responses() {
    let edits = ResponseEdits {
        close: true,
        keep_alive_10: true,
        date: Some(b"today"),
        set_cookie: Some(b"t=x; Path=/"),
        extra: &[(b"x-tidegate-variant", b"stable")],
        ..PLAIN
    };
    assert_eq!(
        answer("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n", false, &edits),
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\ndate: today\r\nset-cookie: t=x; Path=/\r\nx-tidegate-variant: stable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    let edits = ResponseEdits { keep_alive_10: true, date: Some(b"today"), ..PLAIN };
    assert_eq!(
        answer("HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n", false, &edits),
        "HTTP/1.1 200 OK\r\nDate: then\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        answer(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: p\r\n\r\n",
            false,
            &PLAIN
        ),
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
}

#[test]
fn interim_responses_and_replies() {
    let mut out = Vec::new();
    write_interim(
        &mut out,
        &response("HTTP/1.1 103\r\nLink: </a>\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false),
    );
    assert_eq!(String::from_utf8(out).unwrap(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let mut out = Vec::new();
    let reply = ReplyHead {
        status: 503,
        content_type: b"text/plain",
        content_length: 12,
        close: true,
        date: Some(b"today"),
        extra: &[(b"retry-after", b"1")],
    };
    write_reply(&mut out, &reply);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 503 Service Unavailable\r\ndate: today\r\ncontent-type: text/plain\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 12\r\n\r\n"
    );
}

/// Names of fields that never leave, whatever they say.
const HOP: &[&str] = &[
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "upgrade",
    "http2-settings",
    "x-tidegate-x",
    "connection",
    "te",
];

proptest! {
    #[test]
    fn what_is_written_says_what_was_read(
        method in "(GET|POST|PUT|[A-Z]{1,8}-?[a-z]?)",
        path in "(/[a-zA-Z0-9._~!$&'()*+,;=:@|^{}-]{0,8}){1,4}",
        query in proptest::option::of("[a-z0-9=&/?%]{0,12}"),
        fields in proptest::collection::vec(("[a-wyzA-WYZ][a-z0-9-]{8}", "([!-~][ -~\t]{0,20}[!-~])?"), 0..8),
        hop in proptest::collection::vec((proptest::sample::select(HOP), "[a-z0-9-]{0,6}"), 0..4),
        body in prop_oneof![Just(BodyLength::None), (1..u64::MAX).prop_map(BodyLength::Exact), Just(BodyLength::Chunked)],
    ) {
        prop_assume!(method != "TRACE" && method != "CONNECT");
        let target = format!("{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default());
        let mut raw = format!("{method} {target} HTTP/1.1\r\nHost: Shop:81\r\n");
        let mut pairs = hop.into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in &fields {
            raw.push_str(&pairs.next().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default());
            raw.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
        }
        let nominated: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).filter(|name| name.ends_with('7')).collect();
        let mut framing = Vec::new();
        push_framing(&mut framing, body);
        raw.extend(["Connection: ", &nominated.join(","), "\r\n", str::from_utf8(&framing).unwrap(), "\r\n"]);
        let first = request(&raw);
        let out = written(&first, &edits(&first));
        let second = request(&out);
        prop_assert_eq!(second.get(second.method), method.as_bytes());
        prop_assert_eq!(second.get(second.target), target.as_bytes());
        prop_assert_eq!(second.get(second.authority), b"Shop:81");
        prop_assert_eq!(second.body, body);
        prop_assert!(second.keep_alive);
        let ours = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id", "content-length", "transfer-encoding"];
        let text = |span| String::from_utf8(second.get(span).to_vec()).unwrap();
        let left: Vec<_> = second.fields.iter().map(|field| (text(field.name), text(field.value)))
            .filter(|(name, _)| !ours.contains(&name.as_str())).collect();
        let expected: Vec<_> = fields.iter()
            .filter(|(name, _)| !nominated.iter().any(|other| other.eq_ignore_ascii_case(name))).cloned().collect();
        prop_assert_eq!(left, expected);
    }
}
