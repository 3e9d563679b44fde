//! Where the body of a request ends: Content-Length and Transfer-Encoding against each other and against themselves.

use super::{Case, SMUGGLED, SMUGGLED_SEEN, post, run, run_bad_bodies};

/// `Transfer-Encoding` in the disguises of the literature; no line end behind the last.
const DISGUISES: &[&[u8]] = &[
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: deflate, chunked",
    b"Transfer-Encoding: chunked,chunked",
    b"Transfer-Encoding: chunked chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunk",
    b"Transfer-Encoding: cow",
    b"Transfer-Encoding: ",
    b"Transfer-Encoding:",
    b"Transfer-Encoding",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: (chunked)",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: chunked; ext",
    b"Transfer-Encoding: =chunked",
    b"Transfer-Encoding: chunked=",
    b"Transfer-Encoding: :chunked",
    b"Transfer-Encoding :chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding\x0b: chunked",
    b"Transfer-Encoding\0: chunked",
    b"Transfer-Encoding\xa0: chunked",
    b"Transfer-Encoding\r\n: chunked",
    b"Transfer-Encoding\n: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding:\r\n\tchunked",
    b"Transfer-Encoding: \r\n chunked",
    b"Transfer-Encoding: chunked\r\n ",
    b"Transfer-Encoding: chunked\r\n , identity",
    b"Transfer-Encoding:\n chunked",
    b"Transfer-Encoding:\rchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: chunked\x0c",
    b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding: \0chunked",
    b"Transfer-Encoding: chunked\x7f",
    b"Transfer-Encoding: \xa0chunked",
    b"Transfer-Encoding: chunked\x85",
    b"Transfer-Encoding: chunked\xff",
    b"Transfer-Encoding: chun\xe2\x84\xaaed",
    b"Transfer-Encoding: \xef\xbb\xbfchunked",
    b"Transfer-Encoding: chunked\r",
    b"Transfer-Encoding: chunked\n",
    b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked",
    b"\x0bTransfer-Encoding: chunked",
    b"\xa0Transfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\x0bTransfer-Encoding: chunked",
    b"X: y\0\r\nTransfer-Encoding: chunked",
    b"X: \"y\r\nTransfer-Encoding: x\"",
    b"Transfer Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: x\r\ntransfer-encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nConnection: close, Transfer-Encoding",
];

/// A POST with these field lines in bytes and what follows its head.
fn post_bytes(lines: &[u8], behind: &str) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n", behind.as_bytes()].concat()
}

#[tokio::test]
async fn content_length_beside_transfer_encoding() {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let inside = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let mut cases = Vec::new();
    for (length, body) in
        [(chunked.len(), &chunked), (4, &inside), (0, &chunked), (0, &inside), (inside.len(), &inside)]
    {
        for coding in ["chunked", "Chunked", " chunked", "identity", "", "x"] {
            let (cl, te) = (format!("Content-Length: {length}\r\n"), format!("Transfer-Encoding: {coding}\r\n"));
            cases.push(Case::refused(400, post(&format!("{cl}{te}"), body)));
            cases.push(Case::refused(400, post(&format!("{te}X: y\r\n{cl}"), body)));
        }
    }
    for version in ["1.0", "1.1"] {
        let raw = format!(
            "POST / HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        );
        cases.push(Case::refused(400, raw));
    }
    run(&cases).await;
}

#[tokio::test]
async fn transfer_encoding_in_disguise() {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let mut cases: Vec<_> = DISGUISES.iter().map(|lines| Case::refused(400, post_bytes(lines, &body))).collect();
    // Beside a length the other reader would go by.
    for lines in DISGUISES {
        let with_length = [&format!("Content-Length: {}\r\n", body.len()).into_bytes(), *lines].concat();
        cases.push(Case::refused(400, post_bytes(&with_length, &body)));
    }
    for keep in ["", "Connection: keep-alive\r\n"] {
        let raw = format!("POST / HTTP/1.0\r\nHost: a\r\n{keep}Transfer-Encoding: chunked\r\n\r\n{body}");
        cases.push(Case::refused(400, raw));
    }
    run(&cases).await;
}

/// Odd, but with one meaning only: it is what leaves, in canonical form.
#[tokio::test]
async fn chunked_however_it_is_written() {
    let body = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    let seen = [("POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked", "hello"), SMUGGLED_SEEN];
    let mut cases = Vec::new();
    for lines in
        ["TRANSFER-ENCODING: ChUnKeD\r\n", "Transfer-Encoding:\t chunked \t\r\n", "transfer-encoding:chunked\r\n"]
    {
        cases.push(Case::passes(post(lines, &body), &seen));
    }
    // Other names are other fields; what is dropped frames nothing.
    let empty = ("POST / HTTP/1.1\nhost: a\ncontent-length: 0", "");
    for lines in ["Transfer_Encoding: chunked\r\n", "TRANSFER_ENCODING: chunked\r\nContent_Length: 5\r\n"] {
        cases.push(Case::passes(post(lines, &body), &[empty]).then(400));
        cases.push(Case::passes(post(lines, SMUGGLED), &[empty, SMUGGLED_SEEN]));
    }
    let named = ("POST / HTTP/1.1\nhost: a\nX-Transfer-Encoding: chunked\ncontent-length: 0", "");
    cases.push(Case::passes(post("X-Transfer-Encoding: chunked\r\n", &body), &[named]).then(400));
    run(&cases).await;
}

#[tokio::test]
async fn content_length_against_itself() {
    let n = SMUGGLED.len();
    let mut cases = Vec::new();
    for lines in [
        format!("Content-Length: 0\r\nContent-Length: {n}"),
        format!("Content-Length: {n}\r\nContent-Length: 0"),
        format!("Content-Length: {n}\r\nContent-Length: {n}"),
        format!("Content-Length: {n}\r\nX: y\r\ncontent-length: {n}"),
        format!("Content-Length: {n}, {n}"),
        format!("Content-Length: {n},"),
        format!("Content-Length: ,{n}"),
        format!("Content-Length: 0, {n}"),
        format!("Content-Length: +{n}"),
        format!("Content-Length: -{n}"),
        "Content-Length: -0".to_owned(),
        "Content-Length: -1".to_owned(),
        format!("Content-Length: 0x{n:x}"),
        format!("Content-Length: {n}h"),
        format!("Content-Length: {n}.0"),
        format!("Content-Length: {n}e0"),
        format!("Content-Length: {n} {n}"),
        format!("Content-Length: {n};"),
        format!("Content-Length: {n}_"),
        "Content-Length: 3_7".to_owned(),
        "Content-Length: 3 7".to_owned(),
        "Content-Length: 3\t7".to_owned(),
        format!("Content-Length: \"{n}\""),
        format!("Content-Length: \u{b}{n}"),
        format!("Content-Length: {n}\u{c}"),
        format!("Content-Length: {n}\0"),
        format!("Content-Length: \u{a0}{n}"),
        // Digits to others, U+0660 and U+FF11.
        "Content-Length: \u{663}\u{667}".to_owned(),
        "Content-Length: \u{ff13}\u{ff17}".to_owned(),
        format!("Content-Length : {n}"),
        format!("Content-Length\t: {n}"),
        format!(" Content-Length: {n}"),
        format!("X: y\r\n Content-Length: {n}"),
        format!("Content-Length:\r\n {n}"),
        format!("Content-Length: 3\r\n {n}"),
        format!("X: y\nContent-Length: {n}"),
        format!("X: y\rContent-Length: {n}"),
        format!("Content Length: {n}"),
        "Content-Length: ".to_owned(),
        "Content-Length".to_owned(),
        format!("Connection: content-length\r\nContent-Length: {n}"),
        format!("Content-Length: {n}\r\nConnection: Content-Length"),
        // 2^64 + n and 2^128 + n: n to whom overflow wraps around.
        format!("Content-Length: {}", (1_u128 << 64) + n as u128),
        "Content-Length: 340282366920938463463374607431768211493".to_owned(),
        format!("Content-Length: {}", "9".repeat(400)),
    ] {
        cases.push(Case::refused(400, post(&format!("{lines}\r\n"), SMUGGLED)));
    }
    run(&cases).await;
}

/// Lengths that only some would cut to 32 bits or read as octal.
#[tokio::test]
async fn content_length_is_one_number() {
    let n = SMUGGLED.len();
    let seen = format!("POST / HTTP/1.1\nhost: a\ncontent-length: {n}");
    let body = format!("{SMUGGLED}{SMUGGLED}");
    let mut cases = Vec::new();
    for lines in [
        format!("Content-Length: {n}\r\n"),
        format!("content-length:\t{n} \r\n"),
        format!("Content-Length: 000000000000000000000000{n}\r\n"),
        format!("CONTENT-LENGTH:{n}\r\nContent_Length: 0\r\n"),
    ] {
        cases.push(Case::passes(post(&lines, &body), &[(&seen, SMUGGLED), SMUGGLED_SEEN]));
    }
    run(&cases).await;

    let wraps = |bits: u32| Case::unfinished(post(&format!("Content-Length: {}\r\n", (1_u64 << bits) + 5), &body));
    run_bad_bodies(&[
        wraps(32),
        wraps(31),
        wraps(63),
        Case::unfinished(post(&format!("Content-Length: {}\r\n", u64::MAX), &body)),
        Case::unfinished(post(&format!("Content-Length: {}\r\n", body.len() + 1), &body)),
    ])
    .await;
}

/// Bodies where some readers expect none (CL.0), and none where some expect one (0.CL).
#[tokio::test]
async fn bodies_of_methods_that_have_none() {
    let n = SMUGGLED.len();
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PURGE", "get", "POST", "PUT"] {
        let raw = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{SMUGGLED}");
        let seen = format!("{method} / HTTP/1.1\nhost: a\ncontent-length: {n}");
        cases.push(Case::passes(raw, &[(&seen, SMUGGLED)]));

        let raw = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
        );
        let seen = format!("{method} / HTTP/1.1\nhost: a\ntransfer-encoding: chunked");
        cases.push(Case::passes(raw, &[(&seen, SMUGGLED)]));

        let told = if matches!(method, "POST" | "PUT") { "\ncontent-length: 0" } else { "" };
        let seen = format!("{method} / HTTP/1.1\nhost: a{told}");
        for lines in ["", "Content-Length: 0\r\n", "Content-Length: 000\r\n"] {
            let raw = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{SMUGGLED}");
            cases.push(Case::passes(raw, &[(&seen, ""), SMUGGLED_SEEN]));
        }
    }
    // What is announced as form data is a body only if it is framed.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let seen = "POST / HTTP/1.1\nhost: a\nContent-Type: application/x-www-form-urlencoded\ncontent-length: 0";
    cases.push(Case::passes(post(form, SMUGGLED), &[(seen, ""), SMUGGLED_SEEN]));
    run(&cases).await;
}
