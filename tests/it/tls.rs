//! TLS on both sides: certificates by name, files swapped while running, upstreams verified.

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
