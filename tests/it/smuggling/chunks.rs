//! The framing of chunks: whatever is not exactly RFC 9112 section 7.1 ends the request, whatever is leaves in canonical form.

use super::{Case, SMUGGLED, SMUGGLED_SEEN, post, run, run_bad_bodies};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const SEEN: &str = "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked";

#[tokio::test]
async fn sizes_extensions_and_trailers_are_not_passed_on() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(4_000));
    let mut cases = Vec::new();
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n00\r\n\r\n",
        "0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0;\r\n\r\n",
        "5;a\r\nhello\r\n0;b=c\r\n\r\n",
        "5 ;a\r\nhello\r\n0\t; b\r\n\r\n",
        "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\\\"\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"unclosed\r\nhello\r\n0\r\n\r\n",
        "5;0\r\nhello\r\n0;5\r\n\r\n",
        "5; ff\r\nhello\r\n0\r\n\r\n",
        "5;\u{e9}\r\nhello\r\n0\r\n\r\n",
        &long,
        // Trailers: none of these may be merged into the head by whoever comes next.
        "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: b\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        "5\r\nhello\r\n0\r\nAuthorization: x\r\nCookie: a=b\r\nConnection: close\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    ] {
        let raw = post(CHUNKED, &format!("{body}{SMUGGLED}"));
        cases.push(Case::passes(raw, &[(SEEN, "hello"), SMUGGLED_SEEN]));
    }
    let raw = post(CHUNKED, &format!("A\r\n0123456789\r\n0\r\ngrpc-status: 0\r\nX: y\r\n\r\n{SMUGGLED}"));
    cases.push(Case::passes(raw, &[(SEEN, "0123456789\ngrpc-status: 0"), SMUGGLED_SEEN]));
    let raw = post(CHUNKED, &format!("0\r\n\r\n\r\n{SMUGGLED}"));
    cases.push(Case::passes(raw, &[(SEEN, ""), SMUGGLED_SEEN]));
    // What looks like the end, or like a request, within a chunk is payload.
    let inside = format!("0\r\n\r\n{SMUGGLED}");
    let raw = post(CHUNKED, &format!("{:X}\r\n{inside}\r\n0\r\n\r\n", inside.len()));
    cases.push(Case::passes(raw, &[(SEEN, &inside)]));
    run(&cases).await;
}

#[tokio::test]
async fn bad_sizes() {
    let mut cases = Vec::new();
    for size in [
        "",
        " ",
        "x",
        "g",
        "5x",
        "5 x",
        "5 5",
        "5\t5",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "+5",
        "-5",
        "-0",
        "0x5",
        "0X5",
        "5h",
        "5,",
        "5.",
        "5_",
        "5=",
        "5:",
        "5\0",
        "5\u{b}",
        "5\u{a0}",
        "\u{ff15}",
        "\"5\"",
        "5\r",
        "\r5",
        "5\rx",
        "5;\r",
        "5;a\rb",
        "5;a\0",
        "5;a\u{1}",
        "5;a\u{7f}",
        "5;\u{b}",
        "5 \r",
        "5\t;\0",
        // 2^64 + 5, 2^68 + 5 and sizes of too many digits.
        "10000000000000005",
        "100000000000000005",
        "00000000000000005",
        "fffffffffffffffff",
    ] {
        cases.push(Case::refused(400, post(CHUNKED, &format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"))));
    }
    for size in ["5", "5;a", "5;", "5 "] {
        for end in ["\n", "\r", "\n\r", "\r\r\n", "\r \n", "\0\r\n", "\u{85}"] {
            cases.push(Case::refused(400, post(CHUNKED, &format!("{size}{end}hello\r\n0\r\n\r\n{SMUGGLED}"))));
        }
    }
    let over = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5_000));
    cases.push(Case::refused(400, post(CHUNKED, &over)));
    run_bad_bodies(&cases).await;
}

/// An extension that ends in a bare LF (TERM.EXT, EXT.TERM): some end the size line there, others at the next CR LF.
#[tokio::test]
async fn line_ends_within_extensions() {
    let hidden = format!("0\r\n\r\n{SMUGGLED}");
    let mut cases = Vec::new();
    for end in ["\n", "\r", "\n\n", "\r\r", "\u{b}\n"] {
        cases.push(Case::refused(400, post(CHUNKED, &format!("5;{end}xx\r\nhello\r\n{hidden}"))));
        cases.push(Case::refused(400, post(CHUNKED, &format!("2;a{end}xx\r\n{:x}\r\nxx\r\n{hidden}", hidden.len()))));
        cases.push(Case::refused(400, post(CHUNKED, &format!("5;a=\"{end}\"\r\nhello\r\n{hidden}"))));
        cases.push(Case::refused(400, post(CHUNKED, &format!("0;{end}{SMUGGLED}"))));
    }
    run_bad_bodies(&cases).await;
}

#[tokio::test]
async fn bad_ends_of_chunks() {
    let mut cases = Vec::new();
    for body in [
        // Behind the payload of a chunk (SPILL): more, less, or the wrong line end.
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello \r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        // Behind the last chunk.
        "0\r\n\n",
        "0\r\n\r\r\n",
        "0\r\n\rX\n",
        "0\r\n \r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: y\n\r\n\r\n",
        "0\r\nX: y\rz\r\n\r\n",
        "0\r\nX: y\0\r\n\r\n",
        "0\r\nX y: z\r\n\r\n",
        "0\r\n\u{e9}: y\r\n\r\n",
        "0\n\r\n",
        "0\r\r\n",
    ] {
        cases.push(Case::refused(400, post(CHUNKED, &format!("{body}{SMUGGLED}"))));
    }
    // A request line where a trailer should be is no trailer.
    cases.push(Case::refused(400, post(CHUNKED, &format!("0\r\n{SMUGGLED}"))));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(101));
    let large = format!("0\r\nX: {}\r\n\r\n", "x".repeat(33 * 1024));
    cases.push(Case::refused(431, post(CHUNKED, &many)));
    cases.push(Case::refused(431, post(CHUNKED, &large)));
    run_bad_bodies(&cases).await;
}

#[tokio::test]
async fn bodies_that_do_not_end() {
    let mut cases = Vec::new();
    for body in
        ["", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nX: y\r\n"]
    {
        cases.push(Case::unfinished(post(CHUNKED, body)));
    }
    let huge = format!("ffffffffffffffff\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    cases.push(Case::unfinished(post(CHUNKED, &huge)));
    cases.push(Case::unfinished(post(CHUNKED, &format!("100000005\r\nhello\r\n0\r\n\r\n{SMUGGLED}"))));
    run_bad_bodies(&cases).await;
}
