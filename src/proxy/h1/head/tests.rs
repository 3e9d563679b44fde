//! What is refused and what is accepted, each head split in every way that matters.

use proptest::prelude::*;

use super::*;
use crate::config::settings::Limits;
use crate::proxy::headers::{BodyLength, HttpVersion, Known, RequestHead};

mod accepted;
mod parts;
mod refused;
mod responses;

pub(super) fn limits() -> HeadLimits {
    HeadLimits::new(&Limits::default(), Underscores::Drop)
}

/// Reads a request that arrives up to each of `cuts` in turn, then whole.
fn read_cut(raw: &[u8], cuts: &[usize], limits: &HeadLimits) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut state = ScanState::default();
    for cut in cuts.iter().copied().chain([raw.len()]) {
        if let Some(length) = scan_head(&raw[..cut], &mut state, limits)? {
            let mut head = RequestHead { bytes: raw.to_vec(), ..RequestHead::default() };
            parse_request(&mut head, length, limits)?;
            return Ok(Some((head, length)));
        }
    }
    Ok(None)
}

fn read(raw: &[u8]) -> Result<RequestHead, Refusal> {
    read_cut(raw, &[], &limits()).map(|read| read.expect("a complete head").0)
}

/// The same, and sure that the answer does not depend on where the head is split.
fn read_split(raw: &[u8], limits: &HeadLimits) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let whole = read_cut(raw, &[], limits);
    let outcome = |read: &Result<Option<(RequestHead, usize)>, Refusal>| match read {
        Ok(read) => Ok(read.as_ref().map(|(head, length)| (format!("{head:?}"), *length))),
        Err(refusal) => Err(refusal.status),
    };
    let every: Vec<usize> = (0..raw.len()).collect();
    assert_eq!(outcome(&read_cut(raw, &every, limits)), outcome(&whole), "byte by byte: {}", raw.escape_ascii());
    let step = raw.len() / 300 + 1;
    for cut in every.into_iter().step_by(step) {
        assert_eq!(outcome(&read_cut(raw, &[cut], limits)), outcome(&whole), "cut at {cut}: {}", raw.escape_ascii());
    }
    whole
}

/// One empty line in front is tolerated; when it was thrown away before the scan, none is left to tolerate.
#[test]
fn one_empty_line_however_it_arrives() {
    let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(scan_head(head, &mut ScanState::default(), &limits()), Ok(Some(head.len())));
    for length in 1..=head.len() {
        let refused = scan_head(&head[..length], &mut ScanState::after_empty_line(), &limits());
        assert_eq!(refused.map_err(|refusal| refusal.status), Err(400), "{length} bytes");
    }
    let plain = &head[2..];
    assert_eq!(scan_head(plain, &mut ScanState::after_empty_line(), &limits()), Ok(Some(plain.len())));
    assert_eq!(scan_head(b"\r\n\r", &mut ScanState::default(), &limits()).map_err(|r| r.status), Err(400));
}

proptest! {
    #[test]
    fn garbage_never_panics(raw in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let _ = read_cut(&raw, &[cut.min(raw.len())], &limits());
        // Parsing does not rely on scanning for its safety.
        for length in [raw.len(), cut.min(raw.len())] {
            let _ = parse_request(&mut RequestHead { bytes: raw.clone(), ..RequestHead::default() }, length, &limits());
            let mut head = crate::proxy::headers::ResponseHead { bytes: raw.clone(), ..Default::default() };
            let _ = parse_response(&mut head, length, false);
        }
    }

    #[test]
    fn near_heads_never_panic_and_never_smuggle(start in proptest::sample::select(vec![
        "", "GET / HTTP/1.1\r\nHost: a\r\n", "POST http://a?b HTTP/1.1\r\nhost:A\r\n", "\r\nPOST /a?b HTTP/1.0\r\n",
    ]), parts in proptest::collection::vec(prop_oneof![
        Just("GET / HTTP/1.1\r\n"), Just("POST /a?b HTTP/1.0\r\n"), Just("Host: a\r\n"), Just("Content-Length: 5\r\n"),
        Just("Transfer-Encoding: chunked\r\n"), Just("Connection: x, close\r\n"), Just("\r\n"), Just("\n"), Just("\r"), Just(" "),
        Just("\t"), Just(":"), Just("GET http://a"), Just(" HTTP/1.1\r\n"), Just("X: y"), Just("%2e"), Just("\0"), Just(","),
    ], 0..14), cut in 0usize..200) {
        let raw = [start, &parts.concat(), "\r\n\r\n"].concat();
        if let Ok(Some((head, length))) = read_cut(raw.as_bytes(), &[cut.min(raw.len())], &limits()) {
            let count = |known| head.all_known(known).count();
            prop_assert!(raw[..length].ends_with("\r\n\r\n"));
            prop_assert!(count(Known::ContentLength) + count(Known::TransferEncoding) <= 1);
            prop_assert!(count(Known::Host) == 1 || head.version == HttpVersion::Http10);
            prop_assert_eq!(head.body == BodyLength::Chunked, count(Known::TransferEncoding) == 1);
            // Another parser reads the same from it.
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut other = httparse::Request::new(&mut fields);
            prop_assert!(other.parse(&raw.as_bytes()[..length]).unwrap().is_complete());
            prop_assert_eq!(other.method.unwrap().as_bytes(), head.get(head.method));
            let others = other.headers.iter().map(|field| (field.name.as_bytes(), field.value));
            let ours = head.fields.iter().map(|field| (head.get(field.name), head.get(field.value)));
            prop_assert!(others.eq(ours));
        }
    }

    #[test]
    fn any_split_of_a_head_reads_the_same(cuts in proptest::collection::vec(0usize..160, 0..8)) {
        let raw = b"\r\nPOST http://shop.example:80/a/b?c=%20d HTTP/1.1\r\nHost: shop.example\r\nX-A:  b \r\nContent-Length: 7\r\n\r\n1234567GET";
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(raw.len())).collect();
        cuts.sort_unstable();
        let (head, length) = read_cut(raw, &cuts, &limits()).unwrap().unwrap();
        prop_assert_eq!(length, raw.len() - 10);
        prop_assert_eq!(head.get(head.target), b"/a/b?c=%20d");
        prop_assert_eq!(head.field(b"x-a"), Some(&b"b"[..]));
        prop_assert_eq!(head.body, BodyLength::Exact(7));
    }
}
