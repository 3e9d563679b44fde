//! The verbs, one after the other, and what they refuse.

use tokio::task::JoinSet;

use super::{FORCE, GET, Releases, asked, ok, pools, stands, until, web};
use crate::harness::client::{Load, Plan};

#[tokio::test]
async fn every_verb_says_what_is_now_true() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let paused = ok(&proxy, "pause", "{\"reason\":\"lunch\"}").await;
    assert_eq!((paused["rollout"]["phase"].as_str(), paused["weight"].as_str()), (Some("paused"), Some("5%")));
    assert_eq!(asked(&proxy, "approve", "{}").await.0, 409, "that is for a step that waits for it");
    assert_eq!(ok(&proxy, "resume", "{}").await["rollout"]["phase"].as_str(), Some("progressing"));
    let next = ok(&proxy, "promote", "{\"to\":\"next\",\"expected_step\":0}").await;
    assert_eq!((next["weight"].as_str(), next["rollout"]["step"].as_u64()), (Some("50%"), Some(1)));
    let (status, problem) = asked(&proxy, "promote", "{\"to\":\"next\",\"expected_step\":0}").await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (412, Some("urn:tidegate:problem:stale")),
        "two at once pass one step"
    );
    assert_eq!(ok(&proxy, "weight", "{\"weight\":\"7%\"}").await["rollout"]["by_hand"], true);
    assert_eq!(ok(&proxy, "promote", "{\"to\":\"full\"}").await["rollout"]["phase"].as_str(), Some("baking"));
    assert_eq!(asked(&proxy, "promote", "{\"to\":\"full\",\"force\":true}").await.0, 422, "force needs a reason");
    let (status, problem) = asked(&proxy, "promote", "{\"force\":true,\"reason\":\"hurry\"}").await;
    assert!(status == 422 && problem["detail"].as_str().is_some_and(|why| why.contains("full")), "{problem}");
    let done = ok(&proxy, "promote", FORCE).await;
    assert_eq!((done["stable"].as_str(), done["rollout"]["phase"].as_str()), (Some("v2"), Some("succeeded")));
    let back = ok(&proxy, "rollback", "{\"reason\":\"slow\"}").await;
    assert_eq!((back["stable"].as_str(), &back["persisted"]), (Some("v1"), &true.into()));
    assert_eq!(stands(&web(&proxy).await), "v2 rolled_back 0%");
    let events = proxy.admin.status().await["events"].to_string();
    for what in ["pause", "resume", "promote", "weight", "rollback", "step"] {
        assert!(events.contains(&format!("\"what\":\"{what}\"")), "{what} in {events}");
    }
}

#[tokio::test]
async fn verbs_on_a_rollout_by_its_number_want_to_know_what_the_caller_believes() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let id = web(&proxy).await["progress"]["id"].as_u64().expect("a number");
    let on = |id: String, verb: &'static str, body: &'static str| {
        let admin = proxy.admin.clone();
        async move { admin.post(&format!("/v1/services/web/rollouts/{id}/{verb}"), body).await.status }
    };
    assert_eq!(on(id.to_string(), "pause", "{}").await, 428);
    assert_eq!(on(id.to_string(), "pause", "{\"expected_step\":0}").await, 200);
    assert_eq!(on("current".to_owned(), "resume", "{\"expected_step\":0}").await, 200);
    assert_eq!(on((id + 7).to_string(), "pause", "{\"expected_step\":0}").await, 404);
    assert_eq!(on("x".to_owned(), "pause", "{}").await, 404);
    assert_eq!(on(id.to_string(), "dance", "{}").await, 404);
    assert_eq!(on(id.to_string(), "pause", "{\"weight\":\"5%\"}").await, 400, "what does not belong to it");
    assert_eq!(on(id.to_string(), "abort", "{}").await, 200, "an abort has no precondition");
    assert_eq!(stands(&web(&proxy).await), "v2 aborted(manual) 0%");
}

#[tokio::test]
async fn flagger_1898_a_promotion_and_its_rollback_are_felt_by_no_one() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    // One connection: its worker opens one to each release, and no more.
    let load = Load::start(&proxy.address(), &Plan { sessions: 1, ..Plan::default() });
    load.progress(100).await;
    let opened = || async { proxy.admin.count("tidegate_upstream_connects_total").await };
    ok(&proxy, "promote", "{\"to\":\"full\"}").await;
    load.progress(200).await;
    ok(&proxy, "promote", FORCE).await;
    let before = opened().await;
    load.progress(200).await;
    assert_eq!(opened().await, before, "idle connections survive the change of roles");
    assert_eq!(proxy.ask(GET).await.version(), "v2");
    ok(&proxy, "rollback", "{}").await;
    load.progress(200).await;
    assert_eq!(proxy.ask(GET).await.version(), "v1");
    load.stop().await.assert_clean();
    assert_eq!(pools(&web(&proxy).await), ("v1", Some("v2")));
}

#[tokio::test]
async fn an_approval_is_waited_for() {
    let releases = Releases::start().await;
    let proxy = releases.proxy(1, 0).await;
    let steps = "steps = [{ weight = \"5%\", hold = \"0s\", min_requests = 0 }, { weight = \"50%\", hold = \"10m\", approval = true }]";
    proxy.reload_ok(&releases.changed(&proxy, 1, 2).set("services.web.rollout", steps)).await;
    until(&proxy, "v2 paused(approval) 5%").await;
    assert_eq!(asked(&proxy, "resume", "{}").await.0, 409);
    ok(&proxy, "approve", "{\"reason\":\"looks good\"}").await;
    until(&proxy, "v2 progressing 50%").await;
}

/// Two operators at once: of two that promote the same step one does, and whoever aborts wins, whatever else is asked at the same time.
#[tokio::test]
async fn radar_1512_a_step_is_promoted_once_and_an_abort_always_wins() {
    let releases = Releases::start().await;
    let proxy = releases.rolling().await;
    let (admin, mut promotes) = (proxy.admin.clone(), JoinSet::new());
    for _ in 0..16 {
        let admin = admin.clone();
        let body = "{\"to\":\"next\",\"expected_step\":0}";
        promotes.spawn(async move { admin.post("/v1/services/web/promote", body).await.status });
    }
    let mut answers = promotes.join_all().await;
    answers.sort_unstable();
    assert_eq!((answers[0], &answers[1..]), (200, &[412; 15][..]));
    assert_eq!(stands(&web(&proxy).await), "v2 progressing 50%");
    let mut raises = JoinSet::new();
    for share in 1..=40 {
        let admin = admin.clone();
        let body = format!("{{\"weight\":\"{share}%\"}}");
        raises.spawn(async move { admin.post("/v1/services/web/weight", &body).await.status });
    }
    let aborted = admin.abort("web").await;
    assert_eq!((&aborted["weight"], &aborted["settled"]), (&"0%".into(), &true.into()), "{aborted}");
    let raised = raises.join_all().await;
    assert!(raised.iter().all(|status| [200, 409, 423].contains(status)), "{raised:?}");
    assert_eq!(stands(&web(&proxy).await), "v2 aborted(manual) 0%");
    for _ in 0..20 {
        assert_eq!(proxy.ask(GET).await.version(), "v1");
    }
}

/// A thousand commands at random, sixteen at a time, under load: each is answered, none with an error of ours, nobody feels anything, and what
/// is shown in the end is what is in the store.
#[tokio::test]
async fn a_thousand_random_commands_at_once_keep_everything_true() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    until(&process, "v2 progressing 5%").await;
    let load = Load::start(&process.address(), &Plan { sessions: 4, ..Plan::default() });
    let seed = fastrand::u64(..);
    let mut operators = JoinSet::new();
    for operator in 0..16 {
        let (admin, mut random) = (process.admin.clone(), fastrand::Rng::with_seed(seed + operator));
        operators.spawn(async move {
            for _ in 0..63 {
                let (verb, body) = any_verb(&mut random);
                let answer = admin.post(&format!("/v1/services/web/{verb}"), &body).await;
                let fine = [200, 201, 409, 412, 422, 423].contains(&answer.status);
                assert!(fine, "seed {seed}: {verb} {body}: {} {}", answer.status, answer.text());
            }
        });
    }
    operators.join_all().await;
    load.stop().await.assert_clean();
    let aborted = process.admin.abort("web").await;
    assert_eq!((&aborted["weight"], &aborted["persisted"]), (&"0%".into(), &true.into()), "seed {seed}: {aborted}");
    let before = web(&process).await;
    process.crash().await;
    let after = web(&process).await;
    assert_eq!((pools(&before), stands(&before)), (pools(&after), stands(&after)), "seed {seed}");
}

fn any_verb(random: &mut fastrand::Rng) -> (&'static str, String) {
    let reason = "\"reason\":\"a test\"";
    let share = random.u32(0..=100);
    match random.u8(0..12) {
        0 => ("abort", String::new()),
        1 => ("rollback", String::new()),
        2 => ("pause", String::new()),
        3 => ("resume", String::new()),
        4 => ("approve", String::new()),
        5 | 6 => ("retry", format!("{{{reason}}}")),
        7 | 8 => ("weight", format!("{{\"weight\":\"{share}%\"}}")),
        9 => ("promote", format!("{{\"to\":\"full\",\"force\":true,{reason}}}")),
        10 => ("promote", format!("{{\"to\":\"next\",\"expected_step\":{}}}", random.u8(0..3))),
        _ => ("rollouts", "{\"candidate\":{\"version\":\"v2\"},\"supersede\":true}".to_owned()),
    }
}
