//! Classes of bytes (RFC 9110 section 5.6, RFC 3986 section 2) and numbers as text.

/// May be part of a token: a method or a field name.
const TOKEN: u8 = 1;
/// May stand in a target: not a control, space, DEL or `#`.
const TARGET: u8 = 2;
/// May stand in a registered host name, `%` aside.
const HOST: u8 = 4;

/// `_`, which not everybody takes for another character than `-` in a field name.
const UNDERSCORE: u8 = 8;

/// The classes of every byte.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = at as u8;
        let alphanumeric = byte.is_ascii_alphanumeric();
        if alphanumeric || contains(b"!#$%&'*+-.^_`|~", byte) {
            table[at] |= TOKEN;
        }
        if byte > b' ' && byte != 0x7f && byte != b'#' {
            table[at] |= TARGET;
        }
        if alphanumeric || contains(b"-._~!$&'()*+,;=", byte) {
            table[at] |= HOST;
        }
        at += 1;
    }
    table[b'_' as usize] |= UNDERSCORE;
    table
}

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// How many bytes at the front of `bytes` may be part of a token.
#[inline]
pub(super) fn token_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| CLASS[usize::from(*byte)] & TOKEN == 0).unwrap_or(bytes.len())
}

/// The same, and whether a `_` is among them.
#[inline]
pub(super) fn name_length(bytes: &[u8]) -> (usize, bool) {
    let mut seen = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let class = CLASS[usize::from(*byte)];
        if class & TOKEN == 0 {
            return (at, seen & UNDERSCORE != 0);
        }
        seen |= class;
    }
    (bytes.len(), seen & UNDERSCORE != 0)
}

/// Whether `bytes` is a token: not empty, and nothing else in it.
pub(in crate::proxy) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token_length(bytes) == bytes.len()
}

/// Whether every byte may stand in a target.
#[inline]
pub(super) fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().fold(TARGET, |class, byte| class & CLASS[usize::from(*byte)]) != 0
}

/// Whether `byte` may stand in a registered host name.
pub(super) fn is_host(byte: u8) -> bool {
    CLASS[usize::from(byte)] & HOST != 0
}

/// Without spaces and tabs around it (RFC 9110 section 5.6.3).
#[inline]
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list without white space around them; empty ones are skipped (RFC 9110 section 5.6.1).
pub(in crate::proxy) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// A number of decimal digits and nothing else; `None` as well when it exceeds 64 bits.
pub(in crate::proxy) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// Appends `number` in decimal digits.
pub(in crate::proxy) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_fit() {
        for (text, number) in [("0", Some(0)), ("00012", Some(12)), ("18446744073709551615", Some(u64::MAX))] {
            assert_eq!(decimal(text.as_bytes()), number);
        }
        for text in ["", "+5", "-1", "0x5", "5 ", "5,5", "18446744073709551616", "99999999999999999999999", "5\u{b2}"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn classes_are_those_of_the_grammar() {
        for byte in 0..=255u8 {
            let visible = (0x21..0x7f).contains(&byte);
            assert_eq!(is_token(&[byte]), visible && !b"\"(),/:;<=>?@[\\]{}".contains(&byte), "{byte:#x}");
            assert_eq!(is_target(&[byte]), (visible || byte >= 0x80) && byte != b'#', "{byte:#x}");
        }
        assert!(!is_token(b"") && !is_token(b"a b"));
        assert!(b"aZ0-._~!$&'()*+,;=".iter().all(|byte| is_host(*byte)));
        assert!(b"%:/?#[]@\"<>\\^`{|} \x7f\x80".iter().all(|byte| !is_host(*byte)));
    }
}
