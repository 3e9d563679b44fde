//! The table "File and running state", a test for each row, named after it.

use super::{FORCE, GET, HELD, Releases, asked, differences, ok, pools, refused, stands, until, web};
use crate::harness::proxy::Proxy;
use crate::harness::wait::{WAIT_MAX, eventually};

const START: &str = "{\"candidate\":{\"version\":\"v2\"}}";

#[tokio::test]
async fn stable_a_candidate_b_added_begins_a_rollout() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let answer = proxy.reload(&releases.changed(&proxy, 1, 2).text()).await;
    assert!(answer.text().contains("services.web: rollout of v2 begins at 0%"), "{}", answer.text());
    let web = until(&proxy, "v2 progressing 5%").await;
    assert_eq!((web["progress"]["origin"].as_str(), web["progress"]["steps"].as_u64()), (Some("file"), Some(3)));
    let left = web["progress"]["hold_left_ms"].as_u64().expect("a hold");
    assert!((1_700_000..=1_800_000).contains(&left), "{left}");
}

#[tokio::test]
async fn stable_a_candidate_b_added_with_start_manual_waits_for_start() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let manual = releases.changed(&proxy, 1, 2).set("services.web.rollout", "start = \"manual\"");
    proxy.reload_ok(&manual).await;
    let now = web(&proxy).await;
    assert_eq!((pools(&now), differences(&now).as_str()), (("v1", None), "v2 waits for `tidegate rollout start web`"));
    assert_eq!(asked(&proxy, "rollouts", START).await.0, 201);
    assert_eq!(asked(&proxy, "rollouts", START).await.0, 200, "the same again");
    until(&proxy, "v2 progressing 5%").await;
}

#[tokio::test]
async fn rollout_of_b_other_steps_are_pending_for_the_next() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let other = HELD.replace("30m", "25m");
    let answer = proxy.reload(&releases.changed(&proxy, 1, 2).set("services.web.rollout", &other).text()).await;
    assert!(answer.text().contains("keeps its plan and gate"), "{}", answer.text());
    let web = web(&proxy).await;
    assert_eq!((stands(&web).as_str(), &web["progress"]["pending"]), ("v2 progressing 5%", &true.into()));
    assert!(
        web["progress"]["hold_left_ms"].as_u64().is_some_and(|left| left > 25 * 60_000),
        "the one in flight is pinned"
    );
}

#[tokio::test]
async fn rollout_of_b_from_the_file_candidate_removed_supersedes_b() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 0)).await;
    let web = web(&proxy).await;
    assert_eq!((stands(&web).as_str(), pools(&web)), ("v2 superseded 0%", ("v1", None)));
    assert!(web.get("quarantined").is_none(), "{web}");
}

#[tokio::test]
async fn rollout_by_api_is_not_touched_by_a_file() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let at = releases.0[1].address();
    ok(&proxy, "rollouts", &format!("{{\"candidate\":{{\"version\":\"v2\",\"endpoints\":[{at:?}]}}}}")).await;
    until(&proxy, "v2 progressing 5%").await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 0).set("services.web.upstream", "keepalive_idle = \"29s\"")).await;
    let web = web(&proxy).await;
    assert_eq!(stands(&web), "v2 progressing 5%");
    assert_eq!(differences(&web), "v2 is on trial by a command; the file does not name it");
}

#[tokio::test]
async fn rollout_of_b_candidate_c_supersedes_b_and_begins_c() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 3)).await;
    let web = until(&proxy, "v3 progressing 5%").await;
    assert_eq!(pools(&web), ("v1", Some("v3")));
    let rollouts = proxy.admin.json("/v1/services/web/rollouts").await;
    assert_eq!(rollouts["history"][0]["phase"].as_str(), Some("superseded"));
}

#[tokio::test]
async fn argo_2929_b_aborted_removed_and_listed_again_stays_quarantined_until_retry() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    proxy.admin.abort("web").await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 0)).await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 2)).await;
    let now = web(&proxy).await;
    assert_eq!((pools(&now), now["quarantined"][0]["version"].as_str()), (("v1", None), Some("v2")));
    assert!(differences(&now).starts_with("v2 is quarantined since rollout"), "{now}");
    assert_eq!(asked(&proxy, "rollouts", START).await.0, 423);
    assert_eq!(asked(&proxy, "retry", "{}").await.0, 422, "it needs a reason");
    ok(&proxy, "retry", "{\"reason\":\"the database was down\"}").await;
    until(&proxy, "v2 progressing 5%").await;
}

#[tokio::test]
async fn b_promoted_the_old_file_is_satisfied_and_behind() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    ok(&proxy, "promote", FORCE).await;
    let old = releases.changed(&proxy, 1, 2).set("services.web.upstream", "connect_timeout = \"900ms\"");
    proxy.reload_ok(&old).await;
    let web = web(&proxy).await;
    assert_eq!((pools(&web), web["warm"]["version"].as_str()), (("v2", None), Some("v1")));
    assert_eq!(differences(&web), "file is behind: stable is v2, the file says v1");
    assert_eq!(proxy.ask(GET).await.version(), "v2");
}

#[tokio::test]
async fn stable_b_nothing_happens_and_candidate_c_begins() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    ok(&proxy, "promote", FORCE).await;
    proxy.reload_ok(&releases.changed(&proxy, 2, 0)).await;
    let now = web(&proxy).await;
    assert_eq!((pools(&now), differences(&now).as_str()), (("v2", None), ""));
    proxy.reload_ok(&releases.changed(&proxy, 2, 3)).await;
    let web = until(&proxy, "v3 progressing 5%").await;
    assert_eq!(web["warm"]["version"].as_str(), Some("v1"), "it stays although the next rollout began");
}

#[tokio::test]
async fn stable_changed_to_x_goes_through_the_plan() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    proxy.reload_ok(&releases.changed(&proxy, 3, 0)).await;
    let web = until(&proxy, "v3 progressing 5%").await;
    assert_eq!((pools(&web), web["progress"]["origin"].as_str()), (("v1", Some("v3")), Some("file")));
}

#[tokio::test]
async fn rollout_of_b_stable_changed_to_b_is_refused_with_the_hint_to_promote() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    assert!(refused(&proxy, &releases.changed(&proxy, 2, 0), 409).await.contains("`tidegate promote`"));
    assert_eq!(stands(&web(&proxy).await), "v2 progressing 5%");
}

#[tokio::test]
async fn both_changed_and_candidate_equal_to_stable_are_refused() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let said = refused(&proxy, &releases.changed(&proxy, 2, 3), 409).await;
    assert!(
        said.contains("stable and candidate both change, from stable v1 alone to stable v2 with candidate v3"),
        "{said}"
    );
    let said = refused(&proxy, &releases.changed(&proxy, 1, 1), 422).await;
    assert!(said.contains("a candidate is another version"), "{said}");
}

#[tokio::test]
async fn service_removed_during_a_rollout_aborts_it_first() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let at = releases.0[2].address();
    let other = proxy.base.clone().pools("other", ("v3", &[&at]), ("", &[])).route("service = \"other\"");
    let answer = proxy.reload(&other.text()).await;
    assert!(answer.text().contains("services.web: removed, candidate v2 aborted"), "{}", answer.text());
    assert_eq!(proxy.admin.get("/v1/services/web").await.status, 404);
    eventually(WAIT_MAX, "v3 to answer", || async { (proxy.ask(GET).await.version() == "v3").then_some(()) }).await;
    proxy.reload_ok(&releases.changed(&proxy, 1, 0)).await;
    assert!(web(&proxy).await.get("progress").is_none(), "its record was forgotten");
}

#[tokio::test]
async fn store_empty_b_waits_for_a_start_command() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 2).await;
    let now = web(&proxy).await;
    assert_eq!((stands(&now).as_str(), pools(&now)), ("v2 paused(no_history) 0%", ("v1", Some("v2"))));
    assert!(differences(&now).contains("nothing is known of what ran before"), "{now}");
    assert_eq!(asked(&proxy, "rollouts", START).await.0, 200);
    until(&proxy, "v2 progressing 5%").await;
}

#[tokio::test]
async fn store_empty_with_on_empty_store_start_begins() {
    let releases = Releases::start().await;
    let file = |base| releases.file(&base, 1, 2).set("services.web.rollout", "on_empty_store = \"start\"");
    let proxy = Proxy::start(|base| file(base).route("service = \"web\"")).await;
    until(&proxy, "v2 progressing 5%").await;
}

#[tokio::test]
async fn other_endpoints_for_a_known_version_change_in_place() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let (v1, v2, more) = (releases.0[0].address(), releases.0[1].address(), releases.0[2].address());
    let wider = releases.changed(&proxy, 1, 2).pools("web", ("v1", &[&v1]), ("v2", &[&v2, &more]));
    proxy.reload_ok(&wider).await;
    let web = web(&proxy).await;
    assert_eq!(stands(&web), "v2 progressing 5%");
    assert_eq!(web["candidate"]["endpoints"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_known_version_with_another_digest_is_refused() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let with = |digest: &str| {
        releases.changed(&proxy, 1, 0).set("services.web.stable", &format!("digest = \"sha256:{digest}\""))
    };
    proxy.reload_ok(&with(&"a".repeat(64))).await;
    let said = refused(&proxy, &with(&"b".repeat(64)), 409).await;
    assert!(said.contains("a version never changes its content"), "{said}");
}
