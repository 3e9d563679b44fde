//! Conditional requests, and commands that are sent again.

use super::{Answer, Bounds, start, start_with};
use crate::control::fake;

const WEIGHT: &str = "/v1/services/web/weight";
const FIVE: &str = r#"{"weight":"5%"}"#;

impl Answer {
    /// The value of a header of the answer.
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again_until_something_happens() {
    let api = start(Bounds::default()).await;
    for path in [
        "/v1/status",
        "/v1/services",
        "/v1/services/web",
        "/v1/services/web/rollouts",
        "/v1/services/web/rollouts/current",
    ] {
        let first = api.get(path).await;
        let tag = first.header("etag").expect("a tag").to_owned();
        let again = api.get_with(path, &format!("\nIf-None-Match: {tag}")).await;
        assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(tag.as_str())), "{path}");
        // An event that is no generation of its own counts, too.
        let drain = "/v1/services/web/endpoints/127.0.0.1:8001/drain";
        assert_eq!(api.post(drain, "").await.status, 200);
        let after = api.get_with(path, &format!("\nIf-None-Match: {tag}")).await;
        assert_eq!(after.status, 200, "{path}");
        assert_ne!(after.header("etag"), Some(tag.as_str()));
        assert_eq!(api.post(&drain.replace("drain", "undrain"), "").await.status, 200);
    }
    // Of what is not there nothing is still so.
    for path in ["/v1/services/none", "/v1/services/none/rollouts"] {
        api.get_with(path, "\nIf-None-Match: *").await.is_problem(404, "there is no service");
    }
}

#[tokio::test]
async fn a_weight_in_view_of_something_else_is_stale_and_changes_nothing() {
    let api = start(Bounds::default()).await;
    let tag = api.get("/v1/services/web").await.header("etag").expect("a tag").to_owned();
    let first = api.post_with(WEIGHT, FIVE, &format!("\nIf-Match: {tag}")).await;
    assert_eq!((first.status, first.header("etag")), (200, Some("\"2-2\"")), "{first:?}");
    let second = api.post_with(WEIGHT, r#"{"weight":"50%"}"#, &format!("\nIf-Match: {tag}")).await;
    second.is_problem(412, "generation 1 was expected, but 2 is in force");
    api.post_with(WEIGHT, FIVE, "\nIf-Match: \"nonsense\"").await.is_problem(412, "no entity tag of this API");
    api.post_with(WEIGHT, FIVE, "\nIf-Match: \"1\", \"2\"").await.is_problem(400, "one entity tag, or *");
    assert_eq!(api.get("/v1/services/web").await.json()["weight"], "5%");
    assert_eq!(api.post_with(WEIGHT, r#"{"weight":"6%"}"#, "\nIf-Match: \"2\"").await.status, 200);
    assert_eq!(api.post_with(WEIGHT, r#"{"weight":"7%"}"#, "\nIf-Match: *").await.status, 200);
    // Commands that cannot promise it say so; an abort does not care.
    for path in ["/v1/config:reload", "/v1/config:validate", "/v1/services/web/endpoints/127.0.0.1:8001/undrain"] {
        api.post_with(path, "", "\nIf-Match: \"1\"").await.is_problem(400, "If-Match is not supported here");
    }
    let abort = api.post_with("/v1/services/web/abort", "", "\nIf-Match: \"1\"").await;
    assert_eq!((abort.status, &abort.json()["state"]), (200, &"aborted".into()));
}

#[tokio::test]
async fn every_change_to_a_service_is_another_tag_and_none_of_before_is_acted_upon() {
    let api = start(Bounds::default()).await;
    let web = "/v1/services/web";
    let tag = async |path: &str| api.get(path).await.header("etag").expect("a tag").to_owned();
    let because = r#"{"reason":"a test"}"#;
    for (path, body, recorded) in [
        ("weight", FIVE, true),
        ("pause", "", true),
        ("resume", "", true),
        ("endpoints/127.0.0.1:8001/drain", "", false),
        ("endpoints/127.0.0.1:8001/undrain", "", false),
        ("abort", "", true),
    ] {
        let (service, rollouts) = (tag(web).await, tag(&format!("{web}/rollouts")).await);
        assert_eq!(service, rollouts, "before {path}");
        let answer = api.post(&format!("{web}/{path}"), body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let after = tag(web).await;
        assert_ne!(after, service, "{path}");
        let (mark, _event) = after.split_once('.').expect("an event");
        assert_eq!(answer.header("etag"), Some(format!("{mark}\"").as_str()), "{path}");
        let stale = api.post_with(&format!("{web}/retry"), because, &format!("\nIf-Match: {service}")).await;
        if recorded {
            stale.is_problem(412, "was expected, but");
        } else {
            assert_ne!(stale.status, 412, "{path}: {stale:?}");
        }
    }
    // From here on the rollout goes on by itself.
    for path in ["retry", "rollback"] {
        let before = tag(web).await;
        assert_eq!(api.post(&format!("{web}/{path}"), because).await.status, 200, "{path}");
        assert_ne!(tag(web).await, before, "{path}");
        let stale = api.post_with(&format!("{web}/pause"), "", &format!("\nIf-Match: {before}")).await;
        stale.is_problem(412, "was expected, but");
    }
}

#[tokio::test]
async fn a_pause_publishes_nothing_and_is_a_revision_all_the_same() {
    let api = start(Bounds::default()).await;
    let (pause, resume) = ("/v1/services/web/pause", "/v1/services/web/resume");
    assert_eq!(api.post(WEIGHT, FIVE).await.header("etag"), Some("\"2-2\""));
    assert_eq!(api.post_with(pause, "", "\nIf-Match: \"2-2\"").await.header("etag"), Some("\"2-3\""));
    let stale = api.post_with(resume, "", "\nIf-Match: \"2-2\"").await;
    stale.is_problem(412, "revision 2 of the service was expected, but it is at 3");
    assert_eq!(api.get("/v1/services/web").await.json()["progress"]["phase"], "paused");
    // The process as a whole has no revision: its tag is compared by the generation.
    let status = api.get("/v1/status").await.header("etag").expect("a tag").to_owned();
    assert!(status.starts_with("\"2."), "{status}");
    assert_eq!(api.post_with(resume, "", &format!("\nIf-Match: {status}")).await.status, 200);
}

#[tokio::test]
async fn every_verb_of_rollouts_heeds_what_its_caller_has_seen() {
    let api = start(Bounds::default()).await;
    let seen = async || {
        let answer = api.get("/v1/services/web/rollouts").await;
        format!("\nIf-Match: {}", answer.header("etag").expect("a tag"))
    };
    assert_eq!(api.post(WEIGHT, FIVE).await.status, 200);
    for verb in ["promote", "pause", "resume", "approve", "retry", "weight"] {
        let body = if verb == "weight" { FIVE } else { r#"{"reason":"a test"}"# };
        for place in ["", "rollouts/current/"] {
            let stale = api.post_with(&format!("/v1/services/web/{place}{verb}"), body, "\nIf-Match: \"1\"").await;
            stale.is_problem(412, "generation 1 was expected");
        }
        let one = format!("/v1/services/web/rollouts/current/{verb}");
        api.post(&one, body).await.is_problem(428, "expected_step, or If-Match");
        let other = body.replace('{', r#"{"expected_step":7,"#);
        api.post_with(&one, &other, &seen().await).await.is_problem(412, "step 0 is in force");
    }
    let pause = api.post_with("/v1/services/web/rollouts/current/pause", "", &seen().await).await;
    assert_eq!((pause.status, &pause.json()["rollout"]["phase"]), (200, &"paused".into()), "{pause:?}");
    let step = api.post("/v1/services/web/rollouts/current/resume", r#"{"expected_step":0}"#).await;
    assert_eq!((step.status, &step.json()["rollout"]["phase"]), (200, &"progressing".into()), "{step:?}");
    // What cannot promise it says so; what takes back does not care.
    api.post_with("/v1/services/web/rollouts", "", "\nIf-Match: \"1\"").await.is_problem(400, "not supported here");
    for path in ["rollback", "rollouts/current/rollback", "rollouts/current/abort"] {
        let back = api.post_with(&format!("/v1/services/web/{path}"), "", "\nIf-Match: \"1\"").await;
        assert_eq!((back.status, &back.json()["state"]), (200, &"aborted".into()), "{back:?}");
    }
}

#[tokio::test]
async fn a_rollout_begins_once_per_key_and_a_rollback_is_carried_out_every_time() {
    let api = start(Bounds::default()).await;
    let (rollouts, key) = ("/v1/services/web/rollouts", "\nIdempotency-Key: one");
    let start = r#"{"candidate":{"version":"v3","endpoints":["127.0.0.1:8003"]},"supersede":true}"#;
    let first = api.post_with(rollouts, start, key).await;
    assert_eq!((first.status, first.header("etag").is_some()), (201, true), "{first:?}");
    assert_eq!(api.post("/v1/services/web/rollback", "").await.json()["state"], "aborted");
    let again = api.post_with(rollouts, start, key).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    let quarantined = api.post(rollouts, start).await;
    quarantined.is_problem(423, "quarantined");
    for _ in 0..2 {
        let back = api.post_with("/v1/services/web/rollback", "", "\nIdempotency-Key: back").await;
        assert_eq!((back.status, back.header("idempotency-replayed")), (200, None));
    }
}

#[tokio::test]
async fn a_command_with_a_key_is_carried_out_once() {
    let api = start(Bounds::default()).await;
    let key = "\nIdempotency-Key: 7d1c";
    let first = api.post_with(WEIGHT, FIVE, key).await;
    assert_eq!(api.post(WEIGHT, r#"{"weight":"9%"}"#).await.status, 200);
    let again = api.post_with(WEIGHT, FIVE, key).await;
    assert_eq!((first.status, again.status, &first.body), (200, 200, &again.body));
    assert_eq!((first.header("etag"), first.header("idempotency-replayed")), (again.header("etag"), None));
    assert_eq!(
        (again.header("content-type"), again.header("idempotency-replayed")),
        (Some("application/json"), Some("true"))
    );
    assert_eq!(api.get("/v1/services/web").await.json()["weight"], "9%", "and not again");
    for (path, body, more) in [
        (WEIGHT, r#"{"weight":"6%"}"#, key.to_owned()),
        ("/v1/services/api/weight", FIVE, key.to_owned()),
        (WEIGHT, FIVE, format!("{key}\nIf-Match: *")),
    ] {
        api.post_with(path, body, &more).await.is_problem(422, "used for another request");
    }
    let long = "x".repeat(129);
    for bad in ["\nIdempotency-Key: a b", "\nIdempotency-Key:", &format!("\nIdempotency-Key: {long}")] {
        api.post_with(WEIGHT, FIVE, bad).await.is_problem(400, "1 to 128 visible ASCII characters");
    }
    api.post_with(WEIGHT, FIVE, &format!("{key}{key}")).await.is_problem(400, "more than one idempotency-key");
}

#[tokio::test]
async fn a_refusal_is_repeated_as_it_was() {
    let api = start(Bounds::default()).await;
    let key = "\nIdempotency-Key: refused";
    let path = "/v1/services/api/weight";
    let first = api.post_with(path, FIVE, key).await;
    first.is_problem(409, "there is no rollout");
    let again = api.post_with(path, FIVE, key).await;
    assert_eq!((again.status, &again.body), (409, &first.body));
    assert_eq!(again.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn an_abort_is_carried_out_whatever_its_key() {
    let api = start(Bounds::default()).await;
    let key = "\nIdempotency-Key: again";
    let abort = "/v1/services/web/abort";
    assert_eq!(api.post_with(abort, "", key).await.json()["state"], "aborted");
    assert_eq!(api.post("/v1/services/web/retry", r#"{"reason":"again"}"#).await.status, 200);
    assert_eq!(api.post(WEIGHT, FIVE).await.json()["state"], "splitting");
    let second = api.post_with(abort, "", key).await;
    assert_eq!((second.header("idempotency-replayed"), &second.json()["state"]), (None, &"aborted".into()));
    assert!(!api.bench.is_open("web"));
}

#[tokio::test]
async fn a_command_goes_on_when_its_client_goes_away() {
    use tokio::io::AsyncWriteExt;
    let api = start(Bounds::default()).await;
    // Draining waits until the workers have settled.
    api.bench.plane.settles.send_replace(false);
    let path = "/v1/services/web/endpoints/127.0.0.1:8001/drain";
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"
    );
    let mut stream = api.connect().await;
    stream.write_all(head.as_bytes()).await.expect("writes");
    api.bench.plane.settling.notified().await;
    api.post_with(path, "", "\nIdempotency-Key: k").await.is_problem(409, "still being carried out");
    drop(stream);
    api.bench.plane.settles.send_replace(true);
    let found = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            let answer = api.post_with(path, "", "\nIdempotency-Key: k").await;
            if answer.status != 409 {
                return answer;
            }
        }
    });
    let found = found.await.expect("in time");
    assert_eq!((found.status, found.header("idempotency-replayed")), (200, Some("true")), "{found:?}");
}

#[tokio::test]
async fn commands_say_why_where_the_file_wants_it_but_an_abort_never_has_to() {
    let mut settings = fake::web_and_api();
    settings.admin.require_reason = true;
    let api = start_with(settings, Bounds::default()).await;
    let drain = "/v1/services/web/endpoints/127.0.0.1:8001/drain";
    let verbs = ["promote", "pause", "resume", "approve", "retry", "rollouts", "rollouts/current/pause"];
    let verbs = verbs.map(|verb| format!("/v1/services/web/{verb}"));
    for path in [WEIGHT, drain, &drain.replace("drain", "undrain")].into_iter().chain(verbs.iter().map(String::as_str))
    {
        for reason in ["", r#""reason":"  ","#] {
            let weight = if path == WEIGHT { r#""weight":"5%""# } else { "" };
            let body = format!("{{{}}}", format!("{reason}{weight}").trim_end_matches(','));
            api.post(path, &body).await.is_problem(422, "require_reason");
        }
    }
    assert_eq!(api.bench.handle.events(9).len(), 1, "nothing got through");
    assert_eq!(api.post(WEIGHT, r#"{"weight":"5%","reason":"try"}"#).await.status, 200);
    for body in ["", "{}", r#"{"expected_step":7}"#, r#"{"reason":" "}"#, r#"{"reason":"slow"}"#] {
        for verb in ["abort", "rollback", "rollouts/current/abort", "rollouts/current/rollback"] {
            let abort = api.post(&format!("/v1/services/web/{verb}"), body).await;
            assert_eq!((abort.status, &abort.json()["state"]), (200, &"aborted".into()), "{verb} {body}");
        }
    }
}

#[tokio::test]
async fn the_reason_of_an_abort_is_cut_rather_than_refused() {
    let api = start(Bounds::default()).await;
    let long = format!(r#"{{"reason":"x{}"}}"#, "\u{e9}".repeat(1_024));
    assert_eq!(api.post("/v1/services/web/abort", &long).await.status, 200);
    let event = &api.bench.handle.events(1)[0];
    assert_eq!(event.detail.as_deref(), Some(format!("x{}", "\u{e9}".repeat(511)).as_str()));
    assert!(!api.bench.is_open("web"));
}
