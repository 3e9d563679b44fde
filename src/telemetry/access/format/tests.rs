//! Exact lines, and what no bytes of a client can do to them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::core::assign::Assignment;
use crate::core::id::Variant;
use crate::telemetry::termination::Termination;

static ENDPOINT: Address =
    Address::Ip(SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 8_080));
static TRIED: [Address; 2] = [local(9_001), local(9_002)];
static FAILED: [Failed<'static>; 2] = [
    Failed { variant: Variant::Candidate, endpoint: &TRIED[0], how: How::Word("connect") },
    Failed { variant: Variant::Stable, endpoint: &TRIED[1], how: How::Status(503) },
];

const fn local(port: u16) -> Address {
    Address::Ip(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port))
}

pub(in crate::telemetry::access) fn record() -> Record<'static> {
    Record {
        time: Duration::from_millis(1_767_323_045_678),
        request_id: b"0123-abcd",
        listener: "public",
        tls: true,
        client: Some("203.0.113.7".parse().expect("address")),
        method: b"GET",
        host: b"shop.example.com",
        path: b"/cart/42",
        protocol: "HTTP/1.1",
        status: 200,
        termination: Termination::Complete,
        route: "routes[0]",
        service: "web",
        version: "v2",
        variant: Some(Variant::Candidate),
        assignment: Some(Assignment::Bucket),
        endpoint: Some(&ENDPOINT),
        attempts: 2,
        retries: 1,
        failed: &FAILED,
        reused: true,
        request_bytes: 0,
        response_bytes: 5_120,
        duration: Duration::from_micros(12_345),
        connect: None,
        upstream_head: Some(Duration::from_micros(11_900)),
    }
}

/// A request that never got anywhere.
fn bare() -> Record<'static> {
    Record {
        time: Duration::ZERO,
        request_id: b"",
        listener: "public",
        tls: false,
        client: None,
        method: b"",
        host: b"",
        path: b"",
        protocol: "",
        status: 0,
        termination: Termination::HeadTimeout,
        route: "",
        service: "",
        version: "",
        variant: None,
        assignment: None,
        endpoint: None,
        attempts: 0,
        retries: 0,
        failed: &[],
        reused: false,
        request_bytes: 0,
        response_bytes: 0,
        duration: Duration::from_secs(10),
        connect: None,
        upstream_head: None,
    }
}

fn shown(write: fn(&mut Vec<u8>, &Record<'_>), record: &Record<'_>) -> String {
    let mut out = Vec::new();
    write(&mut out, record);
    String::from_utf8(out).expect("always UTF-8")
}

#[test]
fn json_is_exactly_this() {
    assert_eq!(
        shown(json, &record()),
        concat!(
            r#"{"time":"2026-01-02T03:04:05.678Z","request_id":"0123-abcd","listener":"public","tls":true,"#,
            r#""client":"203.0.113.7","method":"GET","host":"shop.example.com","path":"/cart/42","protocol":"HTTP/1.1","#,
            r#""status":200,"termination":"--","route":"routes[0]","service":"web","version":"v2","variant":"candidate","#,
            r#""assignment":"bucket","endpoint":"[2001:db8::1]:8080","attempts":2,"retries":1,"#,
            r#""failed":[{"variant":"candidate","endpoint":"127.0.0.1:9001","how":"connect"},"#,
            r#"{"variant":"stable","endpoint":"127.0.0.1:9002","how":"503"}],"reused":true,"request_bytes":0,"response_bytes":5120,"duration_ms":12.345,"connect_ms":null,"#,
            r#""upstream_head_ms":11.900}"#,
            "\n"
        )
    );
    assert_eq!(
        shown(json, &bare()),
        concat!(
            r#"{"time":"1970-01-01T00:00:00.000Z","request_id":null,"listener":"public","tls":false,"client":null,"#,
            r#""method":null,"host":null,"path":null,"protocol":null,"status":0,"termination":"CT","route":null,"#,
            r#""service":null,"version":null,"variant":null,"assignment":null,"endpoint":null,"attempts":0,"retries":0,"#,
            r#""failed":[],"reused":false,"request_bytes":0,"response_bytes":0,"duration_ms":10000.000,"#,
            r#""connect_ms":null,"upstream_head_ms":null}"#,
            "\n"
        )
    );
}

#[test]
fn text_is_exactly_this() {
    assert_eq!(
        shown(text, &record()),
        "2026-01-02T03:04:05.678Z public 203.0.113.7 GET shop.example.com /cart/42 HTTP/1.1 200 -- 12.345ms \
         route=routes[0] service=web version=v2 variant=candidate assignment=bucket endpoint=[2001:db8::1]:8080 tls=1 \
         attempts=2 retries=1 reused=1 request_bytes=0 response_bytes=5120 \
         failed=candidate/127.0.0.1:9001/connect,stable/127.0.0.1:9002/503 connect_ms=- upstream_head_ms=11.900 id=0123-abcd\n"
    );
    assert_eq!(
        shown(text, &bare()),
        "1970-01-01T00:00:00.000Z public - - - - - 0 CT 10000.000ms route=- service=- version=- variant=- assignment=- \
         endpoint=- tls=0 attempts=0 retries=0 reused=0 request_bytes=0 response_bytes=0 failed=- connect_ms=- \
         upstream_head_ms=- id=-\n"
    );
}

#[test]
fn nasty_bytes_cannot_forge_a_line_or_reach_a_terminal() {
    let nasty = b"/a b\"c\\d\ne\r\tf\0g\x1b[31mh\x7fi\xffj\xc2\x9bk\xc3\xa9?token=secret";
    let record = Record { path: nasty, ..record() };
    let line = shown(text, &record);
    let path = r"/a\x20b\x22c\\d\x0ae\x0d\x09f\x00g\x1b[31mh\x7fi\xffj\xc2\x9bk\xc3\xa9";
    assert!(line.contains(&format!(" {} HTTP/1.1", path.replace(r"\x22", "\""))), "{line}");
    let line = shown(json, &record);
    let path = r#""path":"/a b\"c\\d\u000ae\u000d\u0009f\u0000g\u001b[31mh\u007fi"#;
    assert!(line.contains(path), "{line}");
    assert!(line.contains("i\u{fffd}j\\u009bk\u{e9}\",\"protocol\""), "{line}");
    for line in [shown(text, &record), shown(json, &record)] {
        assert!(!line.contains("secret") && !line.contains("token"), "{line}");
    }
}

#[test]
fn queries_and_fragments_are_never_logged() {
    for path in [&b"/p?q=1"[..], b"/p#f?q", b"/p??"] {
        assert!(shown(json, &Record { path, ..record() }).contains("\"path\":\"/p\""));
        assert!(shown(text, &Record { path, ..record() }).contains(" /p HTTP/1.1 "));
    }
}

#[test]
fn long_texts_are_cut() {
    let path = vec![b'a'; TEXT_MAX + 1];
    let record = Record { path: &path, ..record() };
    for line in [shown(text, &record), shown(json, &record)] {
        assert_eq!(
            line.bytes().filter(|&b| b == b'a').count(),
            TEXT_MAX + line.replace(&"a".repeat(TEXT_MAX), "").matches('a').count()
        );
        assert!(line.contains(&"a".repeat(TEXT_MAX)) && !line.contains(&"a".repeat(TEXT_MAX + 1)));
    }
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        ".{0,6}".prop_map(String::into_bytes),
        Just(b"\xc2\x80\xc2\x9f\xe2\x80\xa8\"\\".to_vec()),
        proptest::sample::select(vec![b"\n".to_vec(), b"\xc2".to_vec(), b"\xf0\x9f\x98".to_vec(), b"\x7f".to_vec()]),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// What JSON shows of `bytes`.
fn lossy(bytes: &[u8]) -> Value {
    if bytes.is_empty() { Value::Null } else { Value::String(String::from_utf8_lossy(bytes).into_owned()) }
}

proptest! {
    #[test]
    fn every_json_line_parses_to_what_went_in(
        method in nasty(), host in nasty(), path in nasty(), id in nasty(),
        listener in ".*", route in ".*", status: u16, request_bytes: u64, us in 0_u64..1 << 40,
    ) {
        let record = Record {
            method: &method, host: &host, path: &path, request_id: &id, listener: &listener, route: &route,
            status, request_bytes, duration: Duration::from_micros(us), ..record()
        };
        let line = shown(json, &record);
        let whole = line.ends_with("}\n") && line.lines().count() == 1;
        prop_assert!(whole, "{}", line);
        prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control), "{}", line);
        let value: Value = serde_json::from_str(&line).expect("JSON");
        for (name, bytes) in [
            ("method", &method[..]), ("host", &host), ("path", without_query(&path)), ("request_id", &id),
            ("listener", listener.as_bytes()), ("route", route.as_bytes()),
        ] {
            prop_assert_eq!(&value[name], &lossy(bytes), "{}", name);
        }
        prop_assert_eq!(&value["status"], &Value::from(status));
        prop_assert_eq!(&value["request_bytes"], &Value::from(request_bytes));
        let ms = value["duration_ms"].as_f64().expect("a number");
        prop_assert!((ms * 1e3 - f64::from(u32::try_from(us >> 20).expect("small")) * 1_048_576.0
            - f64::from(u32::try_from(us & 0xf_ffff).expect("small"))).abs() < 1.0);
    }

    #[test]
    fn every_text_line_has_the_same_words_and_gives_the_bytes_back(
        method in nasty(), host in nasty(), path in nasty(), id in nasty(),
    ) {
        let record = Record { method: &method, host: &host, path: &path, request_id: &id, ..record() };
        let line = shown(text, &record);
        let body = line.strip_suffix('\n').expect("a line feed");
        prop_assert!(body.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", body);
        let words: Vec<_> = body.split(' ').collect();
        prop_assert_eq!(words.len(), 26);
        for (at, bytes) in [(3, &method[..]), (4, &host), (5, without_query(&path)), (25, &id)] {
            let word = words[at].strip_prefix("id=").filter(|_| at == 25).unwrap_or(words[at]);
            let expected = if bytes.is_empty() { b"-" } else { bytes };
            prop_assert_eq!(unescape(word), expected);
        }
    }
}

fn unescape(word: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), word.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after.first()) {
            (b'\\', Some(b'\\')) => {
                out.push(b'\\');
                &after[1..]
            }
            (b'\\', _) => {
                let digits = std::str::from_utf8(&after[1..3]).expect("ASCII");
                out.push(u8::from_str_radix(digits, 16).expect("hex"));
                &after[3..]
            }
            _ => {
                out.push(byte);
                after
            }
        };
    }
    out
}

#[test]
fn unix_sockets_are_paths_escaped_like_everything_else() {
    let endpoint = Address::Unix("/run/a b\"\u{7f}".into());
    let record = Record { endpoint: Some(&endpoint), ..record() };
    assert!(shown(json, &record).contains(r#""endpoint":"unix:/run/a b\"\u007f","#), "{}", shown(json, &record));
    assert!(shown(text, &record).contains(r#" endpoint=unix:/run/a\x20b"\x7f tls"#), "{}", shown(text, &record));
}
