//! Paths: refusals, both forms, and what holds for every path.

use proptest::prelude::*;

use super::*;

fn both(path: &str) -> Result<(String, String), BadPath> {
    let mut scratch = PathScratch::default();
    let n = normalise(path.as_bytes(), &mut scratch)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(n.matching), text(n.forwarded)))
}

#[test]
fn the_common_path_is_borrowed() {
    for path in ["/", "/a/b.c/.well-known/...", "//a//", "/%2F%20/x;y=1:@", "*"] {
        let mut scratch = PathScratch::default();
        let n = normalise(path.as_bytes(), &mut scratch).expect(path);
        assert!(std::ptr::eq(n.matching, path.as_bytes()), "{path}");
        assert!(std::ptr::eq(n.forwarded, path.as_bytes()), "{path}");
    }
}

#[test]
fn each_form_changes_only_what_it_should() {
    for (path, matching, forwarded) in [
        ("", "/", "/"),
        ("/a/./b", "/a/b", "/a/b"),
        ("/a/../b", "/b", "/b"),
        ("/a/b/..", "/a/", "/a/"),
        ("/a/.", "/a/", "/a/"),
        ("/..", "/", "/"),
        ("/../../a", "/a", "/a"),
        ("/a//../b", "/a/b", "/a/b"),
        ("/a/..//b", "//b", "//b"),
        ("/%7euser/%41", "/~user/A", "/%7euser/%41"),
        ("/a%2fb/%c3%a9", "/a%2Fb/%C3%A9", "/a%2fb/%c3%a9"),
        ("/x/../%61/.", "/a/", "/%61/"),
        ("/file%2etxt", "/file.txt", "/file%2etxt"),
        ("/%2e%2e%2e", "/...", "/%2e%2e%2e"),
        ("/{a}|é", "/%7Ba%7D%7C%C3%A9", "/{a}|é"),
        ("/100%", "/100%25", "/100%"),
        ("/%%34%31", "/%2541", "/%%34%31"),
        ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
        ("/a%3Bb;c", "/a%3Bb;c", "/a%3Bb;c"),
    ] {
        assert_eq!(both(path), Ok((matching.to_owned(), forwarded.to_owned())), "{path}");
    }
}

#[test]
fn refusals() {
    for (path, why) in [
        ("a", BadPath::Relative),
        ("**", BadPath::Relative),
        ("/a b", BadPath::Control),
        ("/a\t", BadPath::Control),
        ("/\0", BadPath::Control),
        ("/\x7f", BadPath::Control),
        ("/a#b", BadPath::Fragment),
        ("/a\\b", BadPath::Backslash),
        ("/a%00", BadPath::Nul),
        ("/%2e/x", BadPath::EncodedDots),
        ("/%2E%2e", BadPath::EncodedDots),
        ("/.%2e/x", BadPath::EncodedDots),
        ("/a/%2e./", BadPath::EncodedDots),
        ("/public/..%2fadmin", BadPath::EncodedDots),
        ("/public%2F../admin", BadPath::EncodedDots),
        ("/a%5c..", BadPath::EncodedDots),
        ("/a%2f.%2fb", BadPath::EncodedDots),
    ] {
        assert_eq!(both(path), Err(why), "{path:?}");
    }
}

#[test]
fn patterns_are_spelt_like_requests() {
    assert_eq!(pattern("/caf\u{e9}/%7e"), Ok(b"/caf%C3%A9/~".to_vec()));
    assert_eq!(pattern("*"), Err(BadPath::Relative));
    assert_eq!(pattern(""), Err(BadPath::Relative));
}

#[test]
fn prefixes_are_whole_segments() {
    for (path, prefix, within) in [
        ("/api", "/api", true),
        ("/api/", "/api", true),
        ("/api/x", "/api/", true),
        ("/api", "/api/", true),
        ("/apix", "/api", false),
        ("/ap", "/api", false),
        ("/api/x", "/api//", false),
        ("/api//x", "/api//", true),
        ("/", "/", true),
        ("*", "/", true),
    ] {
        assert_eq!(is_within(path.as_bytes(), prefix.as_bytes()), within, "{path} in {prefix}");
    }
}

fn paths() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-c~;{é]{0,2}",
        2 => Just(".".to_owned()),
        2 => Just("..".to_owned()),
        2 => "%[2-7][0-9a-fA-F]",
        1 => Just("%2e".to_owned()),
        1 => Just("%2f".to_owned()),
        1 => Just("%".to_owned()),
        3 => Just("/".to_owned()),
    ];
    proptest::collection::vec(part, 0..10).prop_map(|parts| format!("/{}", parts.concat()))
}

/// Spells the path another way that means the same: `flips` says which unreserved bytes are escaped and which escapes change case.
fn respelt(path: &[u8], flips: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let flip = flips >> (at % 64) & 1 == 1;
        if escape(&path[at..]).is_some() {
            let digits = &path[at..at + 3];
            out.extend(if flip { digits.to_ascii_lowercase() } else { digits.to_ascii_uppercase() });
            at += 2;
        } else if flip && matches!(class(path[at]), Class::Unreserved | Class::Unsafe) {
            out.extend(format!("%{:02x}", path[at]).bytes());
        } else {
            out.push(path[at]);
        }
        at += 1;
    }
    out
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(path in paths()) {
        if let Ok((matching, forwarded)) = both(&path) {
            prop_assert_eq!(both(&matching), Ok((matching.clone(), matching.clone())));
            prop_assert_eq!(both(&forwarded), Ok((matching, forwarded)));
        }
    }

    #[test]
    fn no_path_leaves_the_root_or_keeps_a_dot_segment(path in paths()) {
        if let Ok((matching, forwarded)) = both(&path) {
            for form in [matching, forwarded] {
                prop_assert!(form.starts_with('/'));
                prop_assert!(form.split('/').all(|s| s != "." && s != ".."), "{}", form);
            }
        }
    }

    #[test]
    fn resolving_agrees_with_a_stack_of_segments(path in "/(a|b|\\.|\\.\\.|)(/(a|b|\\.|\\.\\.|)){0,6}") {
        let mut stack: Vec<&str> = Vec::new();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        for (i, segment) in segments.iter().enumerate() {
            match *segment {
                "." => {}
                ".." => { stack.pop(); }
                other => stack.push(other),
            }
            if i + 1 == segments.len() && matches!(*segment, "." | "..") {
                stack.push("");
            }
        }
        prop_assert_eq!(both(&path).map(|b| b.1), Ok(format!("/{}", stack.join("/"))));
    }

    #[test]
    fn equivalent_spellings_match_alike(path in paths(), flips: u64) {
        let mut scratch = (PathScratch::default(), PathScratch::default());
        let other = respelt(path.as_bytes(), flips);
        let a = normalise(path.as_bytes(), &mut scratch.0).map(|n| n.matching);
        let b = normalise(&other, &mut scratch.1).map(|n| n.matching);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn any_bytes_are_survived_and_the_matching_form_is_a_path_of_rfc_3986(path: Vec<u8>) {
        let mut scratch = PathScratch::default();
        if let Ok(n) = normalise(&path, &mut scratch) {
            let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(b);
            prop_assert!(n.matching.iter().all(plain));
        }
    }
}
