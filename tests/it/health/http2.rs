//! HTTP probes of endpoints that speak HTTP/2 and nothing else.

use super::{CALM, GET, QUICK, ok};
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::upstream::Upstream;
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::wait::eventually;

fn http2(config: Config, server: &H2Server, lines: &str) -> Config {
    config
        .web(&[&server.address()], &[])
        .set("services.web.upstream", "protocol = \"http2\"")
        .set("services.web.outlier", CALM)
        .set("services.web.health", QUICK)
        .set("services.web.health", lines)
}

#[tokio::test]
async fn an_endpoint_that_speaks_http2_only_is_probed_over_it() {
    let server = H2Server::start(Options::default()).await;
    let lines = "path = \"/ready?x=1\"\nhost = \"shop.internal\"\nexpect_body = \"hello\"\n\
                 headers = [{ name = \"x-probe\", value = \"yes\" }]";
    let proxy = Proxy::start(|c| http2(c, &server, lines)).await;
    proxy.admin.until_health(&server.address(), "ready").await;
    let seen = server.request().await;
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("GET", "http://shop.internal/ready?x=1"));
    assert_eq!(seen.fields["x-probe"], "yes");
    assert!(seen.fields["user-agent"].to_str().expect("text").starts_with("tidegate-probe/") && seen.complete);
    assert_eq!(proxy.ask(GET).await.status, 200);
    for (answer, told) in [
        ("/status/503", "status 503 instead of 200-299"),
        ("/grpc/0", "the body does not contain \"hello\""),
        ("/reset", "the call failed: "),
        ("/hang", "no answer within 300ms"),
        ("/big/70000", "the body does not contain \"hello\""),
    ] {
        server.always(answer);
        let endpoint = proxy.admin.until_health(&server.address(), "not_ready").await;
        // The last failure may still be that of the answer before.
        let error = eventually(crate::harness::wait::WAIT_MAX, answer, || async {
            let endpoint = proxy.admin.endpoint(&server.address()).await;
            endpoint["probe"]["error"].as_str().filter(|error| error.contains(told)).map(str::to_owned)
        });
        error.await;
        assert_eq!(endpoint["health"], "not_ready");
        server.always("/");
        proxy.admin.until_health(&server.address(), "ready").await;
    }
}

#[tokio::test]
async fn with_tls_it_has_to_be_agreed_on_as_for_requests() {
    let (authority, files) = (Authority::new(), TempDir::new());
    let identity = authority.issue(&["web.internal"]);
    let ca = files.write("ca.pem", &authority.pem()).display().to_string();
    for (protocols, told) in
        [(&["h2"][..], None), (&["http/1.1"], Some("the TLS handshake failed")), (&[], Some("TLS without HTTP/2"))]
    {
        let server = H2Server::start(Options::tls(&identity, protocols)).await;
        let tls = format!("tls = {{ ca = {ca:?}, sni = \"web.internal\" }}");
        let build = |c| http2(c, &server, "path = \"/ready\"").set("services.web.upstream", &tls);
        let proxy = Proxy::start(build).await;
        let expected = if told.is_some() { "not_ready" } else { "ready" };
        let endpoint = proxy.admin.until_health(&server.address(), expected).await;
        let error = endpoint["probe"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(told.unwrap_or_default()), "{protocols:?}: {endpoint}");
        if told.is_none() {
            assert_eq!(server.request().await.uri, format!("https://{}/ready", server.address()));
        }
    }
}

/// What listens on a port of its own for probes is another server.
#[tokio::test]
async fn on_a_port_of_their_own_probes_speak_http1() {
    let (server, probed) = (H2Server::start(Options::default()).await, Upstream::start(ok("")).await);
    let port = probed.address().rsplit(':').next().expect("a port").to_owned();
    let proxy = Proxy::start(|c| http2(c, &server, &format!("path = \"/ready\"\nport = {port}"))).await;
    proxy.admin.until_health(&server.address(), "ready").await;
    assert_eq!(probed.request().await.head.line, "GET /ready HTTP/1.1");
    assert_eq!((probed.violations(), server.arrived()), (Vec::new(), 0));
}

#[tokio::test]
async fn another_protocol_of_the_upstream_is_another_probe() {
    let server = H2Server::start(Options::default()).await;
    let build = |c: Config, protocol: &str| {
        http2(c, &server, "path = \"/ready\"").set("services.web.upstream", &format!("protocol = {protocol:?}"))
    };
    let proxy = Proxy::start(|c| build(c, "http1")).await;
    proxy.admin.until_health(&server.address(), "not_ready").await;
    assert_eq!(proxy.reload(&build(proxy.base.clone(), "http2").text()).await.status, 200);
    proxy.admin.until_health(&server.address(), "ready").await;
    assert_eq!(proxy.ask(GET).await.status, 200);
}
