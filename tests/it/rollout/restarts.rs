//! What a process finds that was killed, or started beside another one.

use super::{FORCE, GET, HELD, Releases, asked, differences, ok, pools, stands, until, web};

#[tokio::test]
async fn a_killed_process_goes_on_at_the_weight_it_had_and_no_higher() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    until(&process, "v2 progressing 5%").await;
    ok(&process, "promote", "{\"to\":\"next\"}").await;
    process.crash().await;
    let web = web(&process).await;
    assert_eq!((stands(&web).as_str(), pools(&web)), ("v2 progressing 50%", ("v1", Some("v2"))));
    assert_eq!(web["progress"]["step"].as_u64(), Some(1));
}

#[tokio::test]
async fn argo_2929_an_abort_survives_a_kill_and_a_restart_begins_nothing_anew() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    until(&process, "v2 progressing 5%").await;
    assert_eq!(process.admin.abort("web").await["persisted"], true);
    process.crash().await;
    assert_eq!(stands(&web(&process).await), "v2 aborted(manual) 0%");
    let (status, problem) = asked(&process, "weight", "{\"weight\":\"5%\"}").await;
    assert_eq!((status, problem["type"].as_str()), (423, Some("urn:tidegate:problem:quarantined")));
    for _ in 0..20 {
        assert_eq!(process.ask(GET).await.version(), "v1");
    }
}

#[tokio::test]
async fn boot_where_store_and_file_disagree_the_store_wins() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    until(&process, "v2 progressing 5%").await;
    ok(&process, "promote", FORCE).await;
    process.kill().await;
    process.write(&releases.changed(&process, 1, 3).text());
    process.start_again().await;
    let web = web(&process).await;
    assert_eq!((pools(&web), web["warm"]["version"].as_str()), (("v2", None), Some("v1")));
    assert!(differences(&web).contains("file is behind: stable is v2, the file says v1"), "{web}");
    assert_eq!(process.ask(GET).await.version(), "v2");
    // And back, over the restart.
    assert_eq!(ok(&process, "rollback", "{}").await["stable"].as_str(), Some("v1"));
    assert_eq!(process.ask(GET).await.version(), "v1");
}

#[tokio::test]
async fn three_restarts_in_ten_minutes_wait_for_somebody() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2).set("services.web.rollout", HELD)).await;
    until(&process, "v2 progressing 5%").await;
    for stand in ["v2 progressing 5%", "v2 progressing 5%", "v2 paused(restarts) 5%"] {
        process.crash().await;
        assert_eq!(stands(&web(&process).await), stand);
    }
    ok(&process, "resume", "{}").await;
    assert_eq!(stands(&web(&process).await), "v2 progressing 5%");
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let releases = Releases::start().await;
    let process = releases.process().await;
    let run =
        || std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("run").arg(process.config_path()).output();
    let output = run().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another tidegate") && said.contains("[state] dir"), "{said}");
    assert_eq!(process.ask(GET).await.version(), "v1");
}

#[tokio::test]
async fn a_store_that_is_none_stops_the_start_and_is_left_alone() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.kill().await;
    let store = process.dir.path().join("state/tidegate.redb");
    std::fs::write(&store, "a shopping list").expect("written");
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("run").arg(process.config_path()).output();
    let output = output.expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("tidegate.redb: not a usable store"), "{said}");
    assert_eq!(std::fs::read(&store).expect("there"), b"a shopping list");
}
