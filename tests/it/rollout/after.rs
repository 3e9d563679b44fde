//! After the promotion: what was open stays open, the old stable is kept as long as it was promised, and no longer; what is started again
//! is asked before it is trusted.

use crate::harness::client::WebSocket;
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually};

use super::{FORCE, GET, Releases, asked, ok, pools, until, web};

async fn open(proxy: &Proxy) -> WebSocket {
    WebSocket::open(&proxy.address(), "/ws", "").await.unwrap_or_else(|refused| panic!("refused: {}", refused.status))
}

/// haproxy#93, argo-rollouts#3761: a promotion swaps two pools, it cuts nobody's connection.
#[tokio::test]
async fn haproxy_93_streams_outlive_a_promotion_and_its_rollback() {
    let (stable, candidate) =
        (Upstream::start(Behaviour::websocket()).await, Upstream::start(Behaviour::websocket()).await);
    let proxy = Proxy::start(|c| c.web(&[&stable.address()], &[&candidate.address()])).await;
    let mut on_stable = open(&proxy).await;
    proxy.admin.weight("web", "100%").await;
    let mut on_candidate = open(&proxy).await;
    assert_eq!((stable.open(), candidate.open()), (1, 1));
    ok(&proxy, "promote", FORCE).await;
    assert_eq!(web(&proxy).await["stable"]["version"], "v2");
    on_stable.echo("the old one").await;
    on_candidate.echo("the new one").await;
    ok(&proxy, "rollback", "{\"reason\":\"a test\"}").await;
    on_stable.echo("stable again").await;
    assert_eq!((stable.open(), candidate.accepted()), (1, 1), "nobody had to come again");
}

#[tokio::test]
async fn the_old_stable_is_kept_as_long_as_it_was_promised_although_the_file_drops_it() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let short = |file: crate::harness::config::Config| file.set("services.web.rollout", "keep_stable = \"2s\"");
    proxy.reload_ok(&short(releases.changed(&proxy, 1, 2))).await;
    until(&proxy, "v2 progressing 5%").await;
    ok(&proxy, "promote", FORCE).await;
    // The author of the file follows: v2 is stable there, too, and v1 is named nowhere.
    proxy.reload_ok(&short(releases.changed(&proxy, 2, 0))).await;
    assert_eq!(web(&proxy).await["warm"]["version"], "v1");
    eventually(WAIT_MAX, "the old stable to be let go", || async { web(&proxy).await["warm"].is_null().then_some(()) })
        .await;
    let (status, problem) = asked(&proxy, "rollback", "{}").await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(asked(&proxy, "abort", "{}").await.0, 200, "an abort is never refused");
    assert_eq!((pools(&web(&proxy).await), proxy.ask(GET).await.version()), (("v2", None), "v2"));
}

/// Invariant 6: pools that were restored are probed before they are used.
#[tokio::test]
async fn after_a_crash_a_candidate_that_fails_its_probe_gets_nothing() {
    let releases = Releases::start().await;
    let probed = |config: crate::harness::config::Config| {
        config.set("services.web.health", "path = \"/health\"\ninterval = \"100ms\"\nfast_interval = \"50ms\"")
    };
    let mut process = Process::start(|base| probed(releases.file(&base, 1, 0).route("service = \"web\""))).await;
    process.reload_ok(&probed(releases.changed(&process, 1, 2))).await;
    until(&process, "v2 progressing 5%").await;
    ok(&process, "weight", "{\"weight\":\"50%\"}").await;
    process.kill().await;
    releases.0[1].behave(Behaviour::answer(503, &["x-version: v2"], "not yet"));
    drop(releases.0[1].requests());
    process.start_again().await;
    for _ in 0..40 {
        assert_eq!(process.ask(GET).await.version(), "v1");
    }
    let asked = releases.0[1].requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.head.line.contains("/health")), "only probes");
    releases.0[1].behave(Behaviour::version("v2"));
    eventually(WAIT_MAX, "the candidate to be trusted", || async {
        (process.ask(GET).await.version() == "v2").then_some(())
    })
    .await;
}
