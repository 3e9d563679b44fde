//! A rollback reaches requests that have begun: those that wait to be tried again begin nothing on what was rolled back.

use super::{FORCE, GET, Releases, ok, until};
use crate::harness::client::Client;
use crate::harness::proxy::{Admin, Proxy};
use crate::harness::upstream::Behaviour;
use crate::harness::wait::{WAIT_MAX, eventually, within};

/// Requests that wait, each on a connection of its own.
const WAITING: u8 = 24;
/// The waits are drawn from zero to ten seconds and more: most are far longer than the test.
const RETRY: &str = "attempts = 5\nbackoff = \"10s\"\nbudget = \"100%\"\non = [\"connect\", \"stale\", \"5xx\", \"reset\", \"timeout\"]";

/// Attempts on `version`, whatever its role was.
async fn attempts(admin: &Admin, version: &str) -> f64 {
    admin.metric("tidegate_attempts_total", &[&format!("version=\"{version}\"")]).await
}

/// A proxy that gives everything to v2, which is about to be stable.
async fn baking(releases: &Releases) -> Proxy {
    let changed = |proxy: &Proxy, candidate| {
        let config = releases.changed(proxy, 1, candidate).set("services.web.upstream.retry", RETRY);
        config.set("services.web.gate", "mode = \"observe\"")
    };
    let proxy = releases.proxy(1, 0).await;
    proxy.reload_ok(&changed(&proxy, 2)).await;
    until(&proxy, "v2 progressing 5%").await;
    ok(&proxy, "promote", "{\"to\":\"full\"}").await;
    proxy
}

/// Requests that have failed on v2 and wait to be tried again.
async fn waiting(releases: &Releases, proxy: &Proxy) -> Vec<Client> {
    releases.0[1].behave(Behaviour::answer(503, &[], "no"));
    let mut clients = Vec::new();
    for _ in 0..WAITING {
        let mut client = proxy.client().await;
        client.send(GET).await;
        clients.push(client);
    }
    let all = || async { Some(()).filter(|()| releases.0[1].arrived() >= usize::from(WAITING)) };
    eventually(WAIT_MAX, "all have failed once", all).await;
    clients
}

/// Nobody is answered by v2, and nothing began there since the answer to the rollback.
async fn none_goes_there(proxy: &Proxy, clients: Vec<Client>) {
    let back = ok(proxy, "rollback", "{\"reason\":\"it fails\"}").await;
    assert_eq!((back["settled"].as_bool(), back["stable"].as_str()), (Some(true), Some("v1")), "{back}");
    let before = attempts(&proxy.admin, "v2").await;
    assert!(before >= f64::from(WAITING));
    for mut client in clients {
        let answer = within("an answer", client.response()).await;
        assert_eq!((answer.status, answer.version()), (200, "v1"));
    }
    assert!((attempts(&proxy.admin, "v2").await - before).abs() < 0.5, "an attempt began after the answer");
}

#[tokio::test]
async fn requests_that_wait_while_it_is_rolled_back_go_to_the_stable_before() {
    let releases = Releases::start().await;
    let proxy = baking(&releases).await;
    ok(&proxy, "promote", FORCE).await;
    let clients = waiting(&releases, &proxy).await;
    none_goes_there(&proxy, clients).await;
}

#[tokio::test]
async fn requests_that_began_before_the_promotion_do_likewise() {
    let releases = Releases::start().await;
    let proxy = baking(&releases).await;
    let clients = waiting(&releases, &proxy).await;
    ok(&proxy, "promote", FORCE).await;
    none_goes_there(&proxy, clients).await;
}
