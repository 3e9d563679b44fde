//! Pieces of messages that parsers are known to trip over.

pub const METHODS: &[&str] = &["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "M-SEARCH", "get"];

/// What follows the method.
pub const REQUEST_LINES: &[&str] = &[
    " / HTTP/1.1",
    " / HTTP/1.1",
    " /a/b?c=d HTTP/1.1",
    " / HTTP/1.0",
    " http://a/x HTTP/1.1",
    " http://a HTTP/1.1",
    " http://a?q HTTP/1.1",
    " http://A:80/ HTTP/1.1",
    " https://a HTTP/1.0",
    " * HTTP/1.1",
    " /a/../b/./c HTTP/1.1",
    " //a//b HTTP/1.1",
    " /a|b^{c}\"<>` HTTP/1.1",
    " /\u{e9}?\u{e9} HTTP/1.1",
    " /http://b/ HTTP/1.1",
];

pub const FIELDS: &[&str] = &[
    "X-A: 1",
    "x-a:2",
    "X-A:  3 \t",
    "X_A: 4",
    "X-Empty:",
    "Accept: */*",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: x-a, te",
    "Connection: keep-alive, close",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "Proxy-Authorization: x",
    "TE: trailers",
    "TE: gzip;q=0.5, trailers",
    "Trailer: x-checksum-a",
    "Expect: 100-continue",
    "Cookie: a=b; c=d",
    "Cookie: c = e ; f",
    "Cookie:",
    "Forwarded: for=x;host=y",
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Port: 1",
    "X-Request-Id: abc",
    "X-Tidegate-Variant: candidate",
    "Date: Sun, 06 Nov 1994 08:49:37 GMT",
    "Content_Length: 5",
    "Transfer_Encoding: chunked",
    "X: \u{e9}\u{ff}",
];

/// Fields nobody should take, among others.
pub const BAD_FIELDS: &[&str] = &[
    "Content-Length : 5",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: \x0bchunked",
    "X: a\r\n b",
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: gzip, chunked",
    "X-Fold: a\r\n\tb",
    "X-Space : a",
    "X : a",
];

/// The same of what follows the method.
pub const BAD_REQUEST_LINES: &[&str] = &[" /%2e%2E/a HTTP/1.1", " /?a#b HTTP/1.1", " /a\\b?\\ HTTP/1.1"];

pub const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 404 a\tb \u{e9}",
    "HTTP/1.1 500 Internal Server Error",
    "HTTP/1.1 599 ",
    "HTTP/1.1 205 Reset Content",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 100 Continue",
];

pub const RESPONSE_FIELDS: &[&str] = &[
    "X-A: 1",
    "Server: x",
    "Connection: close",
    "Connection: keep-alive, x-a",
    "Keep-Alive: timeout=5",
    "Set-Cookie: a=b",
    "Set-Cookie: c=d; Path=/",
    "Date: Sun, 06 Nov 1994 08:49:37 GMT",
    "Trailer: etag",
    "Upgrade: h2c",
    "Sec-WebSocket-Accept: x",
    "X-Tidegate-Variant: stable",
    "X-Empty:",
];

pub const TRAILER_FIELDS: &[&str] =
    &["X-Checksum-A: 1", "grpc-status: 0", "ETag: \"a\"", "Transfer-Encoding: chunked", "Host: b", "X_A: 1"];

pub const CHUNK_EXTENSIONS: &[&str] =
    &["", "", "", "", "", "", "", ";a", ";a=b", " ;a = \"b;c\"", "\t", " ", ";", ";\u{e9}", ";a\x01", ";\x7f"];

pub const BODIES: &[&[u8]] =
    &[b"", b"hello", b"0\r\n\r\n", b"GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n", b"\r\n", b"aaaaaaaaaaaaaaaaaaaaaaaa"];

pub const LINE_ENDS: &[&str] =
    &["\rX", "X\n", "\r\t", "\n", "\r", "\r\r\n", "\r\n\r\n", "\n\r\n", "", " \r\n", "\0\r\n", "\r\n "];

/// Anything, anywhere; the dictionary of the fuzzers has them too.
pub const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xa0",
    b":",
    b",",
    b";",
    b"0",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"0x5",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Content-Length: 9223372036854775808\r\n",
    b"Content-Length: 05\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:CHUNKED\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"Host: b\r\n",
    b"Host:\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b"Connection: host\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"http://",
    b"@",
    b"%2f",
    b"..",
];

pub const PATH_TOKENS: &[&[u8]] = &[
    b"/",
    b"//",
    b".",
    b"..",
    b"/./",
    b"/../",
    b"a",
    b"~",
    b"%2e",
    b"%2E%2e",
    b"%2f",
    b"%5c",
    b"%00",
    b"%41",
    b"%c3%a9",
    b"\xc3\xa9",
    b"%",
    b"%zz",
    b";",
    b"|",
    b"{",
    b"\"",
    b"+",
    b"%20",
    b" ",
    b"#",
    b"\\",
    b"%25%32%65",
    b"...",
];

pub const COOKIE_TOKENS: &[&[u8]] = &[
    b"a",
    b"=",
    b"; ",
    b";",
    b"b",
    b" ",
    b"\t",
    b"\"",
    b"tide",
    b"tide=",
    b"session=1",
    b"\n",
    b"==",
    b",",
    b"\xe9",
    b"0123456789abcdef",
    b".c.",
    b".",
    b"\x0c",
];

pub const CONFIG_LINES: &[&str] = &[
    "[[routes]]",
    "[services.shop]",
    "[[services.shop.stable.endpoints]]",
    "weight = \"0.01%\"",
    "weight = 101",
    "address = \"[::1]:80\"",
    "address = \"unix:/x\"",
    "head = \"-1s\"",
    "head = \"18446744073709551615h\"",
    "max_head = \"9999999999999 GiB\"",
    "path = { prefix = \"/a/../b\" }",
    "path = { regex = \"(\" }",
    "host = \"*.example\"",
    "x = { y = [",
    "\u{0}",
];
