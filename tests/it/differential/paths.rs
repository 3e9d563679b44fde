//! Paths: what is done to them is done once, and none leads out of itself.

use tidegate::core::route::path::{PathScratch, is_within, normalise};

/// Checks a path.
///
/// # Panics
/// Normalising is not idempotent, or a path escapes.
pub fn check(path: &[u8]) {
    let mut scratch = PathScratch::default();
    let Ok(forms) = normalise(path, &mut scratch) else { return };
    let (matching, forwarded) = (forms.matching.to_vec(), forms.forwarded.to_vec());
    if path == b"*" {
        return assert_eq!((&matching[..], &forwarded[..]), (path, path));
    }
    for form in [&matching, &forwarded] {
        assert_eq!(form.first(), Some(&b'/'));
        assert!(is_within(form, b"/"));
        // However often a server behind us decodes escaped dots, no segment leads up.
        let decoded = undotted(form);
        let leads = |segment: &[u8]| matches!(segment, b"." | b"..");
        assert!(
            !form.split(|byte| *byte == b'/').any(leads)
                && !decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(leads)
        );
        assert!(form.iter().all(|byte| *byte > b' ' && *byte != 0x7f && !matches!(byte, b'#' | b'\\')));
    }
    let mut again = PathScratch::default();
    let twice = normalise(&forwarded, &mut again).expect("taken before");
    assert_eq!((twice.forwarded, twice.matching), (&forwarded[..], &matching[..]), "forwarded once more");
    let mut again = PathScratch::default();
    let twice = normalise(&matching, &mut again).expect("what is matched is a path");
    assert_eq!((twice.forwarded, twice.matching), (&matching[..], &matching[..]), "matched once more");
}

/// `path` with escaped dots, slashes and backslashes decoded.
fn undotted(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let (decoded, after) = match rest {
            [b'%', b'2', b'e' | b'E', after @ ..] => (b'.', after),
            [b'%', b'2', b'f' | b'F', after @ ..] => (b'/', after),
            [b'%', b'5', b'c' | b'C', after @ ..] => (b'\\', after),
            _ => (*byte, after),
        };
        out.push(decoded);
        rest = after;
    }
    out
}
