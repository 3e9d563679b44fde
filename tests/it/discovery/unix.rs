//! Endpoints by the path of a unix socket.

use std::path::{Path, PathBuf};

use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::QUICK;
use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wire::Head;

/// A unix socket in front of an upstream. Dropping it closes it.
struct Front {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Front {
    fn start(dir: &TempDir, upstream: &Upstream) -> Self {
        let path = dir.path().join("app.sock");
        let listener = UnixListener::bind(&path).expect("a free path");
        let address = upstream.address();
        let accepting = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.expect("a listening socket");
                let address = address.clone();
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(address).await.expect("the upstream");
                    // Whichever side ends it.
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self { path, accepting }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn by_path(config: Config, path: &Path) -> Config {
    config.web(&[&format!("unix:{}", path.display())], &[]).set("services.web.health", QUICK)
}

fn target(head: &Head) -> &str {
    head.line.split(' ').nth(1).expect("a target")
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_like_any_other() {
    let dir = TempDir::new();
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let front = Front::start(&dir, &upstream);
    let proxy = Proxy::start(|c| {
        by_path(c, &front.path)
            .set("services.web.upstream", "host = \"endpoint\"")
            .set("services.web.health", "path = \"/ready\"")
    })
    .await;
    let address = format!("unix:{}", front.path.display());
    proxy.admin.until_health(&address, "ready").await;
    let probe = upstream.request().await.head;
    assert_eq!((target(&probe), probe.get("host")), ("/ready", Some("localhost")));
    let answer = proxy.ask("GET /through HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    let seen = loop {
        let head = upstream.request().await.head;
        if target(&head) != "/ready" {
            break head;
        }
    };
    assert_eq!((target(&seen), seen.get("host")), ("/through", Some("localhost")));
    Load::run(&proxy.address(), &Plan::of(4, 200)).await.assert_clean();
    assert!(proxy.admin.metric("tidegate_requests_total", &[&format!("endpoint=\"{address}\"")]).await >= 201.0);
    assert!(upstream.violations().is_empty());
}

#[tokio::test]
async fn tls_over_a_unix_socket_is_verified() {
    let (dir, authority) = (TempDir::new(), Authority::new());
    let upstream = Upstream::start_tls(Behaviour::version("v1"), &authority.issue(&["web.test"])).await;
    let front = Front::start(&dir, &upstream);
    let ca = dir.write("ca.pem", &authority.pem());
    let with = |sni: &str| format!("tls = {{ ca = {:?}, sni = {sni:?} }}", ca.display().to_string());
    let proxy = Proxy::start(|c| by_path(c, &front.path).set("services.web.upstream", &with("web.test"))).await;
    assert_eq!(proxy.ask(super::GET).await.status, 200);
    proxy.reload_ok(&by_path(proxy.base.clone(), &front.path).set("services.web.upstream", &with("other.test"))).await;
    assert_eq!(proxy.ask(super::GET).await.status, 502);
}
