//! Heads: from the bytes of a browser and of an upstream to positions, and from positions to the bytes that leave.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tidegate::config::settings::{Limits, Underscores};
use tidegate::proxy::edits::RequestEdits;
use tidegate::proxy::h1::edit::{ResponseEdits, write_request, write_response};
use tidegate::proxy::h1::head::{HeadLimits, ScanState, parse_request, parse_response, scan_head, scan_response_head};
use tidegate::proxy::headers::{RequestHead, ResponseHead};

const REQUEST: &[u8] = b"GET /products/1234/reviews?page=2&sort=new HTTP/1.1\r\n\
Host: shop.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://shop.example.com/products/1234\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; tidegate_web=0123456789abcdef\r\n\
Connection: keep-alive\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Priority: u=0, i\r\n\
\r\n";

const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Date: Sat, 21 Nov 2026 09:18:01 GMT\r\n\
Server: origin\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 12345\r\n\
Connection: keep-alive\r\n\
Cache-Control: private, max-age=0\r\n\
ETag: \"0123456789abcdef\"\r\n\
Vary: Accept-Encoding\r\n\
\r\n";

/// Groups `head_parse` and `head_write`.
pub(crate) fn benches(c: &mut Criterion) {
    parse(c);
    write(c);
}

fn limits() -> HeadLimits {
    HeadLimits::new(&Limits::default(), Underscores::Drop)
}

/// Finds the end of the head and reads it, as a connection does.
fn read_request(raw: &[u8], head: &mut RequestHead, limits: &HeadLimits) {
    let length = scan_head(raw, &mut ScanState::default(), limits).expect("valid").expect("complete");
    parse_request(head, length, limits).expect("valid");
}

fn read_response(raw: &[u8], head: &mut ResponseHead) {
    let length = scan_response_head(raw, &mut ScanState::default()).expect("valid").expect("complete");
    parse_response(head, length, false).expect("valid");
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("head_parse");
    let limits = limits();
    for (name, raw) in [("browser", REQUEST), ("minimal", MINIMAL)] {
        let mut head = RequestHead { bytes: raw.to_vec(), ..RequestHead::default() };
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(name, |b| b.iter(|| read_request(black_box(raw), black_box(&mut head), &limits)));
    }
    let mut head = ResponseHead { bytes: RESPONSE.to_vec(), ..ResponseHead::default() };
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| b.iter(|| read_response(black_box(RESPONSE), black_box(&mut head))));
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("head_write");
    let mut out = Vec::with_capacity(4096);
    let mut head = RequestHead { bytes: REQUEST.to_vec(), ..RequestHead::default() };
    read_request(REQUEST, &mut head, &limits());
    let plain = RequestEdits {
        target: None,
        host: head.get(head.authority),
        client_ip: b"192.0.2.1",
        proto: b"https",
        trusted: false,
        request_id: b"0123456789abcdef0123456789abcdef",
        strip_header: None,
        strip_cookie: None,
        body: head.body,
        call_left: None,
        websocket: false,
    };
    let stripped = RequestEdits { strip_header: Some(b"x-canary"), strip_cookie: Some(b"tidegate_web"), ..plain };
    for (name, edits) in [("request", plain), ("request_stripped", stripped)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                write_request(black_box(&mut out), black_box(&head), black_box(&edits));
            });
        });
    }
    let mut head = ResponseHead { bytes: RESPONSE.to_vec(), ..ResponseHead::default() };
    read_response(RESPONSE, &mut head);
    let edits = ResponseEdits {
        body: head.body,
        close: false,
        keep_alive_10: false,
        no_body_head: false,
        date: None,
        set_cookie: Some(b"tidegate_web=0123456789abcdef; Path=/; HttpOnly; SameSite=Lax"),
        extra: &[],
    };
    group.bench_function("response", |b| {
        b.iter(|| {
            out.clear();
            write_response(black_box(&mut out), black_box(&head), black_box(&edits));
        });
    });
    group.finish();
}
