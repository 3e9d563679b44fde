//! Many endpoints: those of one service that hang keep nobody else's probes waiting.

use std::time::Duration;

use tidegate::clock;
use tokio::net::TcpListener;

use super::{GET, QUICK};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};

/// More than there may be probes under way.
const HANGING: usize = 300;

/// How long the other service is watched: longer than the first probes of that many are spread.
const LASTING: Duration = Duration::from_secs(2);

/// As many endpoints that accept connections and say nothing, whose probes take half a minute, beside a service that is well.
#[tokio::test]
async fn a_service_that_hangs_leaves_the_others_their_probes() {
    // The system accepts for it, at every address of the loopback; nobody reads.
    let hanging = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let port = hanging.local_addr().expect("bound").port();
    let addresses: Vec<String> = (0..HANGING).map(|n| format!("127.1.{}.{}:{port}", n / 200, 1 + n % 200)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut app = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start_unready(|c| {
        c.web(&[&app.address()], &[])
            .set("services.web.health", QUICK)
            .pools("hanging", ("v1", &addresses), ("v2", &[]))
            .route("path_prefix = \"/hanging\"\nservice = \"hanging\"")
            .set("services.hanging.health", "path = \"/ready\"\ntimeout = \"30s\"")
    })
    .await;
    // By then every one of them was asked, as far as there was room.
    let began = clock::now();
    while began.elapsed() < LASTING {
        proxy.admin.until_health(&app.address(), "ready").await;
        assert_eq!(proxy.ask(GET).await.version(), "v1");
        app.stop().await;
        proxy.admin.until_health(&app.address(), "not_ready").await;
        app.restart().await;
    }
}
