//! What a gRPC call says of itself in HTTP: that it is one, how long it may take, how it ended.
//!
//! Source: "gRPC over HTTP2" (PROTOCOL-HTTP2) and the status codes of gRPC.

use std::time::Duration;

use super::h1::bytes::push_decimal;

/// Most digits in a `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;
/// Largest number in one.
const TIMEOUT_MAX: u64 = 99_999_999;

/// Whether a `Content-Type` is that of gRPC; gRPC-Web, which says its status in the body, is another.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let Some((name, rest)) = content_type.split_at_checked(NAME.len()) else { return false };
    name.eq_ignore_ascii_case(NAME) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
}

/// How long a call may take, from a `grpc-timeout`; `None` when it is not one, and then there is no limit.
#[must_use]
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Appends what [`timeout`] reads, in the finest unit that holds it, rounded down: nobody is given more time than there is.
pub fn push_timeout(out: &mut Vec<u8>, left: Duration) {
    let fits = |number: u128| u64::try_from(number).ok().filter(|number| *number <= TIMEOUT_MAX);
    let seconds = left.as_secs();
    let finer = [(left.as_nanos(), b'n'), (left.as_micros(), b'u'), (left.as_millis(), b'm'), (seconds.into(), b'S')];
    let found = finer.into_iter().find_map(|(number, unit)| Some((fits(number)?, unit)));
    let (number, unit) = found.unwrap_or(((seconds / 3_600).min(TIMEOUT_MAX), b'H'));
    push_decimal(out, number.max(1));
    out.push(unit);
}

/// Whether a `grpc-status` says that the server failed, not the call: unknown, deadline exceeded, resource exhausted, unimplemented,
/// internal, unavailable, data loss. None at all is "unknown" to every client.
#[must_use]
pub fn is_bad(status: Option<&[u8]>) -> bool {
    !matches!(status, Some(b"0" | b"1" | b"3" | b"5" | b"6" | b"7" | b"9" | b"10" | b"11" | b"16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_grpc() {
        for text in ["application/grpc", "application/grpc+proto", "Application/GRPC; charset=x"] {
            assert!(is_grpc(text.as_bytes()), "{text}");
        }
        for text in ["", "application/grp", "application/grpc-web", "application/grpc-web+proto", "application/grpcx"] {
            assert!(!is_grpc(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn timeouts_have_a_unit_and_at_most_eight_digits() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
            ("10", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn timeouts_are_written_as_fine_as_they_fit() {
        let written = |left| {
            let mut out = Vec::new();
            push_timeout(&mut out, left);
            String::from_utf8(out).unwrap()
        };
        for (left, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(99_999), "99999000u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "27777H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(written(left), expected);
            let read = timeout(expected.as_bytes()).unwrap();
            assert!(read <= left.max(Duration::from_nanos(1)), "{expected}");
        }
    }

    #[test]
    fn statuses_of_the_server_are_bad_and_those_of_the_call_are_not() {
        let bad: Vec<u8> = (0..=16).filter(|code| is_bad(Some(code.to_string().as_bytes()))).collect();
        assert_eq!(bad, [2, 4, 8, 12, 13, 14, 15]);
        assert!(is_bad(None) && is_bad(Some(b"x")) && is_bad(Some(b"17")));
    }
}
