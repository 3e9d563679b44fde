//! Heads that come in parts: the same as those that come as text, and refused for the same reasons.

use super::*;

type Line<'a> = (&'a str, &'a str);

fn parts<'a>(method: &'a str, target: &'a str, authority: Option<&'a str>) -> Parts<'a> {
    Parts {
        method: method.as_bytes(),
        target: target.as_bytes(),
        authority: authority.map(str::as_bytes),
        default_port: 80,
        ended: false,
    }
}

fn read_parts(parts: &Parts<'_>, fields: &[Line<'_>], limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let mut head = RequestHead::default();
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    parse_parts(&mut head, parts, fields, limits).map(|()| head)
}

/// What a head says, wherever its text lies.
fn meaning(head: &RequestHead) -> impl PartialEq + std::fmt::Debug + use<> {
    let text = |span| String::from_utf8_lossy(head.get(span)).into_owned();
    let fields: Vec<_> = head.fields.iter().map(|f| (f.known, text(f.name), text(f.value))).collect();
    let places = (text(head.method), text(head.target), text(head.path), head.query.map(text), text(head.authority));
    (places, fields, head.body, head.keep_alive, head.websocket, head.expect_continue, head.te_trailers)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,12}".prop_filter("not one of a connection", |name| {
            !matches!(name.as_str(), "connection" | "upgrade" | "te" | "host" | "expect" | "keep-alive")
        }),
        proptest::sample::select(vec!["cookie", "x-forwarded-for", "x_under", "trailer", "x-tidegate-a", "forwarded"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn the_same_request_is_the_same_head(
        method in "[A-Z]{1,8}",
        path in "/[a-z0-9%./\\\\~]{0,20}(\\?[a-z0-9=&{}|^]{0,10})?",
        host in "[a-zA-Z0-9.-]{1,12}(:[0-9]{1,5})?",
        lines in proptest::collection::vec((name(), "([!-~]([ -~]{0,10}[!-~])?)?"), 0..6),
        length in proptest::option::of(0u32..100),
    ) {
        let mut fields: Vec<Line<'_>> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let digits = length.map(|length| length.to_string());
        if let Some(digits) = &digits {
            fields.push(("content-length", digits));
        }
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in &fields {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        let split = Parts { ended: length.is_none(), ..parts(&method, &path, Some(&host)) };
        match (read(text.as_bytes()), read_parts(&split, &fields, &limits())) {
            (Ok(whole), Ok(split)) => prop_assert_eq!(meaning(&whole), meaning(&split)),
            (whole, split) => prop_assert_eq!(whole.err().map(|r| r.status), split.err().map(|r| r.status)),
        }
    }
}

#[test]
fn authorities_and_hosts_agree() {
    let agree = |authority, host: &[Line<'_>]| {
        read_parts(&parts("GET", "/", authority), host, &limits()).map(|head| head.get(head.authority).to_vec())
    };
    assert_eq!(agree(Some("a:80"), &[]), Ok(b"a:80".to_vec()));
    assert_eq!(agree(None, &[("host", "a")]), Ok(b"a".to_vec()));
    assert_eq!(agree(Some("a:80"), &[("x", "y"), ("host", "A")]), Ok(b"A".to_vec()));
    for (authority, host) in [
        (None, &[][..]),
        (Some("a"), &[("host", "b")]),
        (Some("a"), &[("host", "a:443")]),
        (Some("a"), &[("host", "a"), ("host", "a")]),
        (Some("a"), &[("host", "")]),
        (Some("u@a"), &[]),
        (Some("u@a"), &[("host", "a")]),
        (Some("a/b"), &[]),
        (Some(""), &[("host", "a")]),
    ] {
        assert_eq!(agree(authority, host).err().map(|r| r.status), Some(400), "{authority:?} {host:?}");
    }
    let head = read_parts(&parts("GET", "/", Some("a")), &[("x", "y"), ("host", "A")], &limits()).unwrap();
    let names: Vec<_> = head.fields.iter().map(|field| head.get(field.name)).collect();
    assert_eq!(names, [&b"host"[..], b"x"], "one Host, in front");
}

#[test]
fn what_http_2_forbids_is_refused() {
    let status = |parts: &Parts<'_>, fields: &[Line<'_>], limits: &HeadLimits| {
        read_parts(parts, fields, limits).err().map(|refusal| refusal.status)
    };
    let get = parts("GET", "/", Some("a"));
    for field in [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("x", " a"),
        ("x", "a\t"),
        ("content-length", "+1"),
        ("content-length", "0x1"),
        ("content-length", "1,1"),
    ] {
        assert_eq!(status(&get, &[field], &limits()), Some(400), "{field:?}");
    }
    assert_eq!(status(&get, &[("content-length", "1"), ("content-length", "1")], &limits()), Some(400));
    assert_eq!(status(&Parts { ended: true, ..get }, &[("content-length", "1")], &limits()), Some(400));
    for (method, target, expected) in [
        ("CONNECT", "", 405),
        ("TRACE", "/", 405),
        ("GET", "", 400),
        ("GET", "*", 400),
        ("GET", "a", 400),
        ("GET", "http://a/", 400),
        ("GET", "/a#b", 400),
        ("GET", "/a b", 400),
        ("GET", "/%2e%2E", 400),
        ("GET", "/%00", 400),
        ("GET", "/\\", 400),
    ] {
        assert_eq!(status(&parts(method, target, Some("a")), &[], &limits()), Some(expected), "{method} {target}");
    }
    // Four pseudo-header fields with 38 bytes of text, two fields of one byte.
    let small = HeadLimits { max_head: 38 + 2 + 6 * 32, max_line: 16, max_fields: 2, ..limits() };
    assert_eq!(status(&parts("GET", "/123456789abc", Some("a")), &[], &small), None);
    assert_eq!(status(&parts("GET", "/123456789abcd", Some("a")), &[], &small), Some(414));
    assert_eq!(status(&get, &[("a", ""), ("b", "")], &small), None);
    assert_eq!(status(&get, &[("a", ""), ("b", "x")], &small), Some(431));
    assert_eq!(status(&get, &[("a", ""), ("b", ""), ("c", "")], &small), Some(431));
    assert_eq!(status(&get, &[("a", &"x".repeat(60))], &small), Some(431));
    let strict = HeadLimits { underscores: Underscores::Reject, ..limits() };
    assert_eq!(status(&get, &[("a_b", "")], &strict), Some(400));
}

#[test]
fn bodies_are_as_long_as_length_and_stream_say() {
    let body = |ended, length: &[Line<'_>]| {
        read_parts(&Parts { ended, ..parts("POST", "/", Some("a")) }, length, &limits()).unwrap().body
    };
    assert_eq!(body(true, &[]), BodyLength::None);
    assert_eq!(body(true, &[("content-length", "0")]), BodyLength::None);
    assert_eq!(body(false, &[]), BodyLength::Chunked);
    assert_eq!(body(false, &[("content-length", "0")]), BodyLength::None);
    assert_eq!(body(false, &[("content-length", "7")]), BodyLength::Exact(7));
    let waits = [("expect", "100-continue"), ("te", "trailers")];
    let head = read_parts(&parts("POST", "/", Some("a")), &waits, &limits()).unwrap();
    assert!(head.expect_continue && head.te_trailers && head.keep_alive && !head.websocket);
    assert_eq!(head.version, HttpVersion::Http2);
}
