//! Looking up headers, cookies and query parameters on the bytes as they came: nothing is parsed ahead, nothing is copied unless escaped.

use std::borrow::Cow;

/// Most parameters of one query that are looked at; what comes after them is not seen.
pub const QUERY_PARAMS_MAX: usize = 256;

/// The header fields of a request, whatever holds them.
pub trait FieldSource {
    /// Whether `test` says yes to the value of any field called `name` (ASCII case does not matter), asked in order until it does.
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// The value of the cookie `name` in one `Cookie` field (RFC 6265 section 5.4), without the white space and the quotes around it.
///
/// Names are compared exactly. The first occurrence wins; parts without `=` are not cookies.
#[must_use]
pub fn cookie<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    value.split(|&b| b == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|&b| b == b'=')?;
        (pair[..at].trim_ascii_end() == name).then(|| unquoted(pair[at + 1..].trim_ascii_start()))
    })
}

/// The value of the cookie `name` over all `Cookie` fields of a request, given to `test`. `None` when there is no such cookie.
///
/// HTTP/2 clients may send a field per cookie (RFC 9113 section 8.2.3). The first occurrence wins.
pub fn first_cookie<T>(fields: &dyn FieldSource, name: &[u8], mut test: impl FnMut(&[u8]) -> T) -> Option<T> {
    let mut found = None;
    fields.any(b"cookie", &mut |value| {
        found = cookie(value, name).map(&mut test);
        found.is_some()
    });
    found
}

/// The decoded value of the parameter `name` of `query` (without its `?`), as `application/x-www-form-urlencoded`.
///
/// The name is compared decoded; escapes that are none stand for themselves; a parameter without `=` has an empty value. The first
/// occurrence wins, among the first [`QUERY_PARAMS_MAX`] parameters. Copies only what is escaped.
#[must_use]
pub fn query_param<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query_param_raw(query, name).map(|raw| {
        let plain = !raw.iter().any(|&b| b == b'%' || b == b'+');
        if plain { Cow::Borrowed(raw) } else { Cow::Owned(decoded(raw).collect()) }
    })
}

/// As [`query_param`], but the value as it stands in the query. [`decoded`] gives its bytes without copying.
#[must_use]
pub fn query_param_raw<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|&b| b == b'&').filter(|part| !part.is_empty()).take(QUERY_PARAMS_MAX).find_map(|part| {
        let at = part.iter().position(|&b| b == b'=').unwrap_or(part.len());
        let value = part.get(at + 1..).unwrap_or_default();
        decoded(&part[..at]).eq(name.iter().copied()).then_some(value)
    })
}

/// The bytes a form-encoded text stands for: `%41` is `A`, `+` is a space, an incomplete escape is itself.
pub fn decoded(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        let (byte, tail) = match first {
            b'%' => escape(rest).map_or((b'%', tail), |byte| (byte, &rest[3..])),
            b'+' => (b' ', tail),
            other => (other, tail),
        };
        rest = tail;
        Some(byte)
    })
}

/// The byte that the escape (`%41`) at the beginning of `text` stands for, if there is one.
#[must_use]
pub(super) fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

// === impl FieldSource for lists ===

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FieldSource for &[(N, V)] {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter().any(|(n, v)| n.as_ref().eq_ignore_ascii_case(name) && test(v.as_ref()))
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FieldSource for Vec<(N, V)> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.as_slice().any(name, test)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_by_name_in_any_case_and_all_of_them_are_asked() {
        let fields = vec![("Accept", "a"), ("X-Flag", "one"), ("x-flag", "two")];
        let mut seen = Vec::new();
        assert!(!fields.any(b"X-FLAG", &mut |value| {
            seen.push(value.to_vec());
            false
        }));
        assert_eq!(seen, [b"one", b"two"]);
        assert!(fields.any(b"x-flag", &mut |value| value == b"two"));
        assert!(!fields.any(b"x-fla", &mut |_| true));
    }

    #[test]
    fn cookies_are_found_whatever_surrounds_them() {
        let field = b"a=1; b = \"two\" ;flag;c=x=y;; d=;b=3; q=\"";
        for (name, value) in
            [("a", Some("1")), ("b", Some("two")), ("c", Some("x=y")), ("d", Some("")), ("q", Some("\""))]
        {
            assert_eq!(cookie(field, name.as_bytes()), value.map(str::as_bytes), "{name}");
        }
        for missing in ["flag", "A", "", "x", "aa"] {
            assert_eq!(cookie(field, missing.as_bytes()), None, "{missing}");
        }
        assert_eq!(cookie(b"", b"a"), None);
    }

    #[test]
    fn a_cookie_is_found_in_any_cookie_field_and_the_first_wins() {
        let fields = vec![("cookie", "a=1"), ("cookie", "b=2; a=3"), ("set-cookie", "c=4")];
        let value = |name: &str| first_cookie(&fields, name.as_bytes(), <[u8]>::to_vec);
        assert_eq!((value("a"), value("b"), value("c")), (Some(b"1".to_vec()), Some(b"2".to_vec()), None));
    }

    #[test]
    fn query_parameters_are_decoded_only_when_they_have_to_be() {
        let query = b"a=1&b%65ta=%31+0%2b&c&=x&&d=%zz%4&a=2&e=k=v";
        for (name, value) in
            [("a", "1"), ("beta", "1 0+"), ("c", ""), ("", "x"), ("d", "%zz%4"), ("e", "k=v"), ("a", "1")]
        {
            assert_eq!(query_param(query, name.as_bytes()).as_deref(), Some(value.as_bytes()), "{name}");
        }
        assert_eq!(query_param(query, b"b%65ta"), None);
        assert!(matches!(query_param(query, b"a"), Some(Cow::Borrowed(b"1"))));
        assert!(matches!(query_param(query, b"beta"), Some(Cow::Owned(_))));
    }

    #[test]
    fn only_so_many_parameters_are_looked_at() {
        let mut query = b"x=1&".repeat(QUERY_PARAMS_MAX - 1);
        query.extend_from_slice(b"last=1&late=1");
        assert!(query_param(&query, b"last").is_some());
        assert_eq!(query_param(&query, b"late"), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_found_again(name in "[a-z]{1,4}", value: Vec<u8>, before in "([b-z]=[0-9]&){0,3}") {
            let mut encoded = String::new();
            for byte in &value {
                write!(encoded, "%{byte:02x}").expect("writing to a string");
            }
            let query = format!("{before}A{name}={encoded}&z");
            let found = query_param(query.as_bytes(), format!("A{name}").as_bytes());
            prop_assert_eq!(found.as_deref(), Some(&value[..]));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, name: Vec<u8>) {
            let _ = (cookie(&bytes, &name), query_param(&bytes, &name));
            prop_assert!(decoded(&bytes).count() <= bytes.len());
        }
    }
}
