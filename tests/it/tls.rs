//! TLS on both sides: certificates by name, files swapped while running, upstreams verified.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Client;
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::tls::{Authority, Identity};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

struct Site {
    authority: Authority,
    files: TempDir,
    a: Identity,
    b: Identity,
    upstream: Upstream,
    proxy: Proxy,
}

/// A listener with the certificates `a` and `b`.
async fn site() -> Site {
    let (authority, files) = (Authority::new(), TempDir::new());
    let (a, b) = (authority.issue(&["a.test"]), authority.issue(&["b.test", "*.b.test"]));
    let entry = |identity: &Identity, name| {
        let (cert, key) = identity.write(&files, name);
        format!("{{ cert = {:?}, key = {:?} }}", cert.display().to_string(), key.display().to_string())
    };
    let tls = format!("tls = {{ certificates = [{}, {}] }}", entry(&a, "a"), entry(&b, "b"));
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).listen("127.0.0.1:0", &tls)).await;
    Site { authority, files, a, b, upstream, proxy }
}

impl Site {
    async fn shown(&self, name: &str) -> Vec<u8> {
        let config = self.authority.client_config();
        let (mut client, shown) = Client::connect_tls(&self.proxy.address(), name, config).await.expect("a handshake");
        client.send(GET).await;
        assert_eq!(client.response().await.version(), "v1");
        shown
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let site = site().await;
    assert_eq!(site.shown("a.test").await, site.a.der().as_ref());
    assert_eq!(site.shown("b.test").await, site.b.der().as_ref());
    assert_eq!(site.shown("x.b.test").await, site.b.der().as_ref());
}

#[tokio::test]
async fn the_upstream_is_told_that_the_client_came_by_tls() {
    let site = site().await;
    site.shown("a.test").await;
    assert_eq!(site.upstream.request().await.head.get("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn swapped_files_are_seen_and_bad_ones_keep_the_old() {
    let site = site().await;
    let old = site.shown("a.test").await;
    let new = site.authority.issue(&["a.test"]);
    new.write(&site.files, "a");
    eventually(WAIT_MAX, "the new certificate", || async { (site.shown("a.test").await != old).then_some(()) }).await;
    assert_eq!(site.shown("a.test").await, new.der().as_ref());

    site.files.write("a.pem", "not a certificate");
    let answer = site.proxy.admin.post("/v1/config:reload", "{}").await;
    assert!(answer.status >= 400, "a bad certificate refuses the reload: {}", answer.text());
    assert_eq!(site.shown("a.test").await, new.der().as_ref());
}

#[tokio::test]
async fn plain_text_and_garbage_on_a_tls_listener_harm_nobody() {
    let site = site().await;
    for bytes in [GET, "\x16\x03\x01\x00\x05hello", "\0\0\0\0"] {
        let mut client = site.proxy.client().await;
        client.send(bytes).await;
        client.half_close().await;
        client.rest().await;
    }
    site.shown("a.test").await;
}

#[tokio::test]
async fn upstreams_are_verified() {
    let (authority, files) = (Authority::new(), TempDir::new());
    let upstream = Upstream::start_tls(Behaviour::version("v1"), &authority.issue(&["web.internal"])).await;
    let (right, wrong) =
        (files.write("right.pem", &authority.pem()), files.write("wrong.pem", &Authority::new().pem()));
    let lines =
        |ca: &std::path::Path, sni: &str| format!("tls = {{ ca = {:?}, sni = {sni:?} }}", ca.display().to_string());
    for (ca, sni, status) in
        [(&right, "web.internal", 200), (&wrong, "web.internal", 502), (&right, "other.internal", 502)]
    {
        let proxy =
            Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("services.web.upstream", &lines(ca, sni))).await;
        assert_eq!(proxy.ask(GET).await.status, status, "{} {sni}", ca.display());
    }
    let lines = "tls = { sni = \"other.internal\", insecure = true }";
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("services.web.upstream", lines)).await;
    assert_eq!(proxy.ask(GET).await.status, 200);
}

/// Lengths of the records a server sends, told by a relay in front of it.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<usize>>>);

impl Records {
    /// Relays one connection to `server`; the address to connect to comes back.
    async fn of(&self, server: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let records = self.clone();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = TcpStream::connect(server).await.expect("a server").into_split();
            let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            let mut header = [0; 5];
            while from_server.read_exact(&mut header).await.is_ok() {
                let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
                from_server.read_exact(&mut record).await.expect("a whole record");
                records.0.lock().expect("never poisoned").push(record.len());
                to_client.write_all(&[&header[..], &record].concat()).await.expect("a client that reads");
            }
            up.abort();
        });
        address
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().expect("never poisoned"))
    }
}

#[tokio::test]
async fn head_and_body_share_a_record_and_large_bodies_fill_theirs() {
    const LARGE: usize = 1 << 20;
    /// What TLS 1.3 adds to a record (RFC 8446 section 5.2): the type and the tag.
    const ADDED: usize = 17;
    let site = site().await;
    let records = Records::default();
    let address = records.of(site.proxy.address()).await;
    let (mut client, _) =
        Client::connect_tls(&address, "a.test", site.authority.client_config()).await.expect("a handshake");
    client.send(GET).await;
    client.response().await;
    records.take();

    site.upstream.behave(Behaviour::answer(200, &[], "x".repeat(4_000)));
    client.send(GET).await;
    assert_eq!(client.response().await.body.length, 4_000);
    let small = records.take();
    assert!(matches!(small[..], [length] if (4_000..4_400).contains(&length)), "{small:?}");

    site.upstream.behave(Behaviour::answer(200, &[], "x".repeat(LARGE)));
    client.send(GET).await;
    assert_eq!(client.response().await.body.length, LARGE as u64);
    let large = records.take();
    let full = large.iter().filter(|length| **length == (16 << 10) + ADDED).count();
    assert!(full * 10 >= large.len() * 7, "{full} of {} are full: {large:?}", large.len());
    assert!(large.len() <= (LARGE >> 14) * 3 / 2, "{} records", large.len());
}
