//! Lines and fields of a request head: line ends, white space, names, and what `Connection` nominates.

use super::{Case, SMUGGLED, SMUGGLED_SEEN, get, run};

#[tokio::test]
async fn line_ends_and_controls() {
    let mut cases = Vec::new();
    for end in
        ["\n", "\r", "\n\r", "\r\r\n", "\r\0\n", "\0", "\0\r\n", "\u{b}\r\n", "\u{c}", "\u{7f}\r\n", "\u{1b}\r\n"]
    {
        for raw in [
            format!("GET / HTTP/1.1{end}Host: a\r\n\r\n{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a{end}\r\n{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: y{end}Z: z\r\n\r\n{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: y{end}{end}{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n{end}{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX:{end}Content-Length: 37\r\n\r\n{SMUGGLED}"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX{end}: y\r\n\r\n{SMUGGLED}"),
            format!("{end}GET / HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        ] {
            cases.push(Case::refused(400, raw));
        }
    }
    run(&cases).await;
}

/// The one tolerance of RFC 9112 section 2.2: one empty line in front, between pipelined requests too.
#[tokio::test]
async fn empty_lines_in_front() {
    run(&[
        Case::passes(get(""), &[FIRST, SMUGGLED_SEEN]),
        Case::passes([b"\r\n", &get("")[..]].concat(), &[FIRST, SMUGGLED_SEEN]),
        Case::passes(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n{SMUGGLED}"), &[FIRST, SMUGGLED_SEEN]),
        Case::passes(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n{SMUGGLED}"), &[FIRST]).then(400),
        Case::passes(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n\n{SMUGGLED}"), &[FIRST]).then(400),
        Case::passes(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n {SMUGGLED}"), &[FIRST]).then(400),
    ])
    .await;
}

const FIRST: (&str, &str) = ("GET / HTTP/1.1\nhost: a", "");

#[tokio::test]
async fn names_and_folds() {
    let mut cases = Vec::new();
    for lines in [
        // obs-fold.
        "X: y\r\n z\r\n",
        "X: y\r\n\tz\r\n",
        "X: y\r\n \r\n",
        "X: y\r\n Content-Length: 37\r\n",
        "X:\r\n y\r\n",
        " X: y\r\n",
        "\tContent-Length: 37\r\n",
        // White space in and behind names.
        "X : y\r\n",
        "X\t: y\r\n",
        "Content-Length : 37\r\n",
        "Content Length: 37\r\n",
        "X y: z\r\n",
        // No name, no colon.
        ": y\r\n",
        ":\r\n",
        ":Content-Length: 37\r\n",
        "X\r\n",
        "Content-Length 37\r\n",
        "GET /smuggled HTTP/1.1\r\n",
        // Delimiters, controls and more than ASCII.
        "\"X\": y\r\n",
        "X(y): z\r\n",
        "X,y: z\r\n",
        "X;y: z\r\n",
        "X=y: z\r\n",
        "X/y: z\r\n",
        "X@y: z\r\n",
        "[X]: y\r\n",
        "{X}: y\r\n",
        "X\\y: z\r\n",
        "X?: y\r\n",
        "X\u{1}: y\r\n",
        "X\u{7f}: y\r\n",
        "X\u{e9}: y\r\n",
        "\u{feff}X: y\r\n",
        "Content-\u{2113}ength: 37\r\n",
        "\u{441}ontent-length: 37\r\n",
        "Content\u{2010}Length: 37\r\n",
        "Content-Length\u{a0}: 37\r\n",
    ] {
        cases.push(Case::refused(400, get(lines)));
    }
    // The first line of the fields begins with white space: some skip it, some take it for a part of the request line.
    cases.push(Case::refused(400, format!("GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n{SMUGGLED}")));
    cases.push(Case::refused(400, format!("GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n{SMUGGLED}")));
    run(&cases).await;
}

/// Names with `_` are dropped, since CGI and its kin take them for those with `-`; other odd names pass as they are.
#[tokio::test]
async fn names_that_others_take_for_others() {
    let mut cases = Vec::new();
    for lines in [
        "Content_Length: 37\r\n",
        "CONTENT_LENGTH: 37\r\nTransfer_Encoding: chunked\r\n",
        "X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_Proto: https\r\n",
        "Host_: b\r\n_Host: b\r\n",
        "X_Tidegate_Variant: candidate\r\nX-Tidegate-Variant: candidate\r\nx-tidegate-other: 1\r\n",
        // Hop by hop, whoever says so.
        "Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: gzip\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Proxy-Authorization: Basic eDp5\r\nTrailer: Content-Length\r\nUpgrade: foo\r\n",
        "Connection: X-One, x-two ,,\tX-Three\r\nX-One: 1\r\nX-TWO: 2\r\nx-three: 3\r\n",
        "X-One: 1\r\nConnection: keep-alive\r\nConnection: x-one\r\n",
        "Connection: cookie, authorization\r\nCookie: a=b\r\nAuthorization: x\r\n",
        "Connection: Keep-Alive, Trailer, Upgrade, Expect\r\n",
    ] {
        cases.push(Case::passes(get(lines), &[FIRST, SMUGGLED_SEEN]));
    }
    let odd = "GET / HTTP/1.1\nhost: a\nContent-Lengt: 37\n!#$%&'*+-.^`|~: y\nX: \u{e9}\nContent-Length.: 37";
    let lines = "Content-Lengt: 37\r\n!#$%&'*+-.^`|~: y\r\nX: \u{e9}\r\nContent-Length.: 37\r\n";
    cases.push(Case::passes(get(lines), &[(odd, ""), SMUGGLED_SEEN]));
    // One field at the upstream, whatever was said in how many (RFC 9113 section 8.2.3 allows it in HTTP/2 only).
    let cookies = "Cookie: a=1\r\nX: y\r\nCookie: b=2; c=3\r\n";
    let seen = "GET / HTTP/1.1\nhost: a\ncookie: a=1; b=2; c=3\nX: y";
    cases.push(Case::passes(get(cookies), &[(seen, ""), SMUGGLED_SEEN]));
    // Closing is the client's business with us.
    cases.push(Case::passes(get("Connection: close\r\n"), &[FIRST]).closed());
    cases.push(Case::passes(get("Connection: x-one, Close\r\nX-One: 1\r\n"), &[FIRST]).closed());
    run(&cases).await;
}

/// What `Connection` may not take away: who the client is, where the message goes, how long it is.
#[tokio::test]
async fn nominations() {
    let mut cases = Vec::new();
    for name in [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Client-Cert",
    ] {
        for value in [name.to_owned(), name.to_lowercase(), format!("close, {name}"), format!("{name},close")] {
            let lines = format!("Connection: {value}\r\nContent-Length: {}\r\n", SMUGGLED.len());
            cases.push(Case::refused(400, get(&lines)));
            cases.push(Case::refused(400, get(&format!("Connection: keep-alive\r\nConnection: {value}\r\n"))));
        }
    }
    for value in ["a b", "close keep-alive", "\"close\"", "close;x", "x/y", "\u{e9}", "content-length\u{b}", "a:b"] {
        cases.push(Case::refused(400, get(&format!("Connection: {value}\r\n"))));
    }
    run(&cases).await;
}
