//! Any split of a stream yields the same payload, nothing but exact framing is accepted, and what is written is read back.

use proptest::prelude::*;

use super::*;
use crate::config::settings::{Limits, Underscores};
use crate::proxy::h1::head::HeadLimits;
use crate::proxy::headers::{BodyLength, Known, Trailers};

fn limits() -> HeadLimits {
    HeadLimits::new(&Limits::default(), Underscores::Drop)
}

/// What a stream decoded to.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    payload: Vec<u8>,
    trailers: Vec<(String, String)>,
    /// Bytes that belong to the message.
    consumed: usize,
    end: bool,
}

/// Decodes `stream`, which arrives up to each of `cuts` in turn, then whole.
fn decode(body: BodyLength, stream: &[u8], cuts: &[usize]) -> Result<Decoded, FramingError> {
    let mut decoder = Decoder::new(body, limits());
    let mut decoded = Decoded::default();
    for cut in cuts.iter().copied().chain([stream.len()]) {
        while !decoded.end {
            let rest = &stream[decoded.consumed..cut.max(decoded.consumed)];
            let step = decoder.decode(rest)?;
            assert!(step.skip + step.payload <= rest.len());
            decoded.payload.extend_from_slice(&rest[step.skip..step.skip + step.payload]);
            decoded.consumed += step.skip + step.payload;
            decoded.end = step.end;
            assert_eq!(decoder.is_end(), step.end);
            if step.skip + step.payload == 0 {
                break;
            }
        }
    }
    decoded.trailers = text(
        decoder
            .trailers()
            .fields
            .iter()
            .map(|field| (field.name.of(&decoder.trailers().bytes), field.value.of(&decoder.trailers().bytes))),
    );
    Ok(decoded)
}

fn text<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pairs.map(|(name, value)| (text(name), text(value))).collect()
}

/// The same, and sure that the answer does not depend on how the stream arrives.
fn decode_split(body: BodyLength, stream: &[u8]) -> Result<Decoded, FramingError> {
    let whole = decode(body, stream, &[]);
    let every: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(decode(body, stream, &every), whole, "byte by byte: {}", stream.escape_ascii());
    for cut in (0..stream.len()).step_by(stream.len() / 300 + 1) {
        assert_eq!(decode(body, stream, &[cut]), whole, "cut at {cut}: {}", stream.escape_ascii());
    }
    whole
}

#[test]
fn bodies_without_chunks() {
    for (body, stream, payload, end) in [
        (BodyLength::None, "GET", "", true),
        (BodyLength::Exact(0), "GET", "", true),
        (BodyLength::Exact(3), "abcGET", "abc", true),
        (BodyLength::Exact(3), "ab", "ab", false),
        (BodyLength::Exact(u64::MAX), "ab", "ab", false),
        (BodyLength::UntilClose, "abcGET", "abcGET", false),
    ] {
        let decoded = decode_split(body, stream.as_bytes()).unwrap();
        assert_eq!((decoded.payload, decoded.end), (payload.as_bytes().to_vec(), end));
        assert_eq!(decoded.consumed, payload.len());
    }
}

#[test]
fn chunks() {
    for (stream, payload) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", "hello!"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("0000000000000002\r\n\r\n\r\n0000000000000000\r\n\r\n", "\r\n"),
        ("1;a\r\nx\r\n0;b=\"c;\u{e9}\";\t d \r\n\r\n", "x"),
        ("1 \t;a\r\nx\r\n0 ;\r\n\r\n", "x"),
    ] {
        for after in ["", "GET / HTTP/1.1\r\n\r\n", "\r\n"] {
            let decoded = decode_split(BodyLength::Chunked, format!("{stream}{after}").as_bytes()).unwrap();
            assert_eq!(decoded.payload, payload.as_bytes());
            assert_eq!((decoded.end, decoded.consumed), (true, stream.len()), "{}", stream.escape_debug());
            assert!(decoded.trailers.is_empty());
        }
        for length in 0..stream.len() {
            assert!(!decode(BodyLength::Chunked, &stream.as_bytes()[..length], &[]).unwrap().end);
        }
    }
}

#[test]
fn bad_chunks() {
    for stream in [
        "\r\n",
        "\n",
        " 5\r\n",
        "\t5\r\n",
        ";a\r\n",
        "+5\r\n",
        "-1\r\n",
        "x\r\n",
        "0x5\r\n",
        "5 5\r\n",
        "5 \r\n",
        "5\t\r\n",
        "5,\r\n",
        "5.\r\n",
        "5h\r\n",
        "G\r\n",
        "5\n",
        "5\rx",
        "5\r\r\n",
        "00000000000000005\r\n",
        "10000000000000000\r\n",
        "5;a\n",
        "5;a\rb\r\n",
        "5;a\0\r\n",
        "5;\x7f\r\n",
        "5;\x01\r\n",
        "5 ;\x0b\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "1\r\nab\r\n",
        "1\r\na0\r\n\r\n",
        "1\r\na\r\n\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\n \r\n",
        "\u{b2}\r\n",
        "0\n\r\n",
        "5_0\r\n",
    ] {
        let error = decode_split(BodyLength::Chunked, stream.as_bytes()).expect_err(stream);
        assert_eq!(error.status, 400);
    }
}

#[test]
fn size_lines_are_bounded() {
    let line = |length: usize| format!("0;{}\r\n\r\n", "a".repeat(length - 2));
    assert!(decode(BodyLength::Chunked, line(CHUNK_LINE_MAX).as_bytes(), &[]).unwrap().end);
    assert!(decode(BodyLength::Chunked, line(CHUNK_LINE_MAX + 1).as_bytes(), &[]).is_err());
    // Each line is short enough, all of them are not.
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(1023));
    assert!(decode(BodyLength::Chunked, chunk.repeat(16).as_bytes(), &[]).is_ok());
    assert!(decode(BodyLength::Chunked, chunk.repeat(17).as_bytes(), &[]).is_err());
}

#[test]
fn trailers_are_fields() {
    let raw = "1\r\nx\r\n0\r\nGrpc-Status:  0 \r\nX-Other: a\r\netag: \"e\"\r\nX-Checksum-Crc32: 1\r\nX_U: 1\r\n\r\n";
    let decoded = decode_split(BodyLength::Chunked, format!("{raw}GET").as_bytes()).unwrap();
    assert_eq!((decoded.end, decoded.consumed), (true, raw.len()));
    let names: Vec<_> = decoded.trailers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Grpc-Status", "X-Other", "etag", "X-Checksum-Crc32"]);
    for (status, trailers) in [
        (400, "X : y\r\n\r\n".to_owned()),
        (400, "X: y\r\n z\r\n\r\n".to_owned()),
        (400, " X: y\r\n\r\n".to_owned()),
        (400, "X\r\n\r\n".to_owned()),
        (400, ": y\r\n\r\n".to_owned()),
        (400, "X: y\n\r\n".to_owned()),
        (400, "X: \0\r\n\r\n".to_owned()),
        (400, "X: a\rb\r\n\r\n".to_owned()),
        (431, "X: y\r\n".repeat(101) + "\r\n"),
        (431, format!("X: {}\r\n\r\n", "a".repeat(32 * 1024))),
        (431, "X: y\r\n".repeat(32 * 1024)),
    ] {
        let error = decode_split(BodyLength::Chunked, format!("0\r\n{trailers}").as_bytes()).expect_err(&trailers);
        assert_eq!(error.status, status, "{error}: {trailers:.40}");
    }
}

#[test]
fn trailers_about_framing_are_read_and_left_behind() {
    for trailer in ["Content-Length: 5", "transfer-encoding: chunked", "Host: a", "Connection: close"] {
        let raw = format!("0\r\n{trailer}\r\netag: \"x\"\r\n\r\n");
        let decoded = decode_split(BodyLength::Chunked, raw.as_bytes()).expect(trailer);
        let mut out = Vec::new();
        Encoder::new(BodyLength::Chunked).finish(&mut out, Some(&parsed(raw.as_bytes()))).expect("nothing promised");
        assert_eq!((decoded.end, out.as_slice()), (true, &b"0\r\netag: \"x\"\r\n\r\n"[..]), "{trailer}");
    }
}

/// The trailers of a message without payload.
fn parsed(raw: &[u8]) -> Trailers {
    let mut decoder = Decoder::new(BodyLength::Chunked, limits());
    let mut rest = raw;
    while !decoder.is_end() {
        let step = decoder.decode(rest).expect("valid");
        rest = &rest[step.skip..];
    }
    decoder.trailers().clone()
}

#[test]
fn the_end_of_the_connection_ends_only_what_has_no_other_end() {
    for (body, stream, complete) in [
        (BodyLength::None, "", true),
        (BodyLength::UntilClose, "abc", true),
        (BodyLength::Exact(3), "abc", true),
        (BodyLength::Exact(3), "ab", false),
        (BodyLength::Chunked, "0\r\n\r\n", true),
        (BodyLength::Chunked, "", false),
        (BodyLength::Chunked, "0\r\n\r", false),
        (BodyLength::Chunked, "0\r\nx: y\r\n", false),
    ] {
        let mut decoder = Decoder::new(body, limits());
        let mut rest = stream.as_bytes();
        while !rest.is_empty() {
            let step = decoder.decode(rest).unwrap();
            rest = &rest[step.skip + step.payload..];
        }
        assert_eq!(decoder.eof().is_ok(), complete, "{body:?} {stream:?}");
        assert_eq!(decoder.is_end(), complete);
    }
}

#[test]
fn payload_is_framed_as_promised() {
    let mut exact = Encoder::new(BodyLength::Exact(5));
    assert_eq!(exact.frame(3).unwrap().as_slice(), b"");
    assert_eq!(exact.finish(&mut Vec::new(), None), Err(EncodeError::Short(2)));
    assert_eq!(exact.frame(3).unwrap_err(), EncodeError::Overrun);
    assert!(exact.frame(2).is_ok() && exact.finish(&mut Vec::new(), None).is_ok());
    assert_eq!(exact.frame(1).unwrap_err(), EncodeError::Overrun);

    let mut none = Encoder::new(BodyLength::None);
    assert_eq!(none.frame(1).unwrap_err(), EncodeError::Overrun);
    assert!(none.frame(0).is_ok() && none.finish(&mut Vec::new(), None).is_ok());

    let mut until_close = Encoder::new(BodyLength::UntilClose);
    assert_eq!(until_close.frame(usize::MAX).unwrap().as_slice(), b"");
    let mut out = Vec::new();
    until_close.finish(&mut out, None).unwrap();
    assert!(out.is_empty());
}

/// cloudflare/pingora#935: an empty piece at the end wrote the last chunk twice.
#[test]
fn empty_pieces_and_second_ends_write_nothing() {
    let mut encoder = Encoder::new(BodyLength::Chunked);
    let mut out = Vec::new();
    for length in [0, 31, 0, 1] {
        out.extend_from_slice(encoder.frame(length).unwrap().as_slice());
        out.resize(out.len() + length, b'x');
    }
    encoder.finish(&mut out, None).unwrap();
    encoder.finish(&mut out, None).unwrap();
    assert_eq!(out, [b"1f\r\n", &[b'x'; 31][..], b"\r\n1\r\nx\r\n0\r\n\r\n"].concat());
    assert!(encoder.frame(0).unwrap().as_slice().is_empty());
    assert_eq!(encoder.frame(1).unwrap_err(), EncodeError::Overrun);
}

#[test]
fn the_largest_prefix_fits() {
    let mut encoder = Encoder::new(BodyLength::Chunked);
    assert_eq!(encoder.frame(usize::MAX).unwrap().as_slice(), b"ffffffffffffffff\r\n");
    assert_eq!(encoder.frame(usize::MAX).unwrap().as_slice(), b"\r\nffffffffffffffff\r\n");
    assert_eq!(encoder.complete(), b"\r\n");
    assert_eq!(encoder.complete(), b"");
    assert_eq!(encoder.frame(16).unwrap().as_slice(), b"10\r\n");
}

fn trailers(pairs: &[(&str, &str)]) -> Trailers {
    let lines: String = pairs.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let mut decoder = Decoder::new(BodyLength::Chunked, limits());
    decoder.decode(format!("0\r\n{lines}\r\n").as_bytes()).unwrap();
    let found = decoder.trailers();
    Trailers { bytes: found.bytes.clone(), fields: found.fields.clone() }
}

#[test]
fn only_listed_trailers_are_forwarded() {
    let all = [
        ("grpc-status", "0"),
        ("Grpc-Message", "fine"),
        ("Server-Timing", "a"),
        ("Content-Digest", "b"),
        ("repr-digest", "c"),
        ("Digest", "d"),
        ("content-md5", "e"),
        ("ETag", "f"),
        ("X-Checksum-Sha1", "g"),
        ("x-amz-checksum-crc32", "h"),
        ("Set-Cookie", "no"),
        ("Authorization", "no"),
        ("X-Forwarded-For", "no"),
        ("grpc", "no"),
        ("etags", "no"),
        ("x-tidegate-variant", "no"),
    ];
    let mut out = Vec::new();
    Encoder::new(BodyLength::Chunked).finish(&mut out, Some(&trailers(&all))).unwrap();
    let expected: String = all[..10].iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    assert_eq!(String::from_utf8(out).unwrap(), format!("0\r\n{expected}\r\n"));
    // There is no place for them but after chunks.
    let mut out = Vec::new();
    Encoder::new(BodyLength::None).finish(&mut out, Some(&trailers(&all))).unwrap();
    assert!(out.is_empty());
    assert!(trailers(&all).fields.iter().any(|field| field.known == Known::SetCookie));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()), 0..8),
        cuts in proptest::collection::vec(0usize..5000, 0..8),
        with_trailers in any::<bool>(),
    ) {
        let payload = pieces.iter().flat_map(|(piece, _)| piece).copied().collect::<Vec<u8>>();
        for body in [BodyLength::Chunked, BodyLength::Exact(payload.len() as u64), BodyLength::UntilClose] {
            let mut encoder = Encoder::new(body);
            let mut stream = Vec::new();
            for (piece, flush) in &pieces {
                stream.extend_from_slice(encoder.frame(piece.len()).unwrap().as_slice());
                stream.extend_from_slice(piece);
                if *flush {
                    stream.extend_from_slice(encoder.complete());
                }
            }
            let trailers = trailers(&[("grpc-status", "0")]);
            encoder.finish(&mut stream, with_trailers.then_some(&trailers)).unwrap();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&stream.len())).collect();
            cuts.sort_unstable();
            let decoded = decode(body, &stream, &cuts).unwrap();
            prop_assert_eq!(&decoded.payload, &payload);
            prop_assert_eq!(decoded.consumed, stream.len());
            prop_assert_eq!(decoded.end, body != BodyLength::UntilClose);
            prop_assert_eq!(decoded.trailers.len(), usize::from(with_trailers && body == BodyLength::Chunked));
        }
    }

    #[test]
    fn garbage_never_panics_and_splits_agree(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "5\r\nhello\r\n", "0\r\n", "\r\n", "\r", "\n", ";a=b", " ", "x: y\r\n", "ffffffffffffffff\r\n", "1", "\u{ff}\0", "a",
        ]), 0..10),
        cuts in proptest::collection::vec(0usize..80, 0..6),
    ) {
        let stream = parts.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode(BodyLength::Chunked, &stream, &cuts).ok(), decode(BodyLength::Chunked, &stream, &[]).ok());
    }
}
