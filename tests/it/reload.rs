//! Files that change while traffic flows: all or nothing, seen however they are written, felt by no one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tidegate::clock;

use crate::harness::client::{Client, Load, Plan, WebSocket};
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, within_time};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// Reloads and weight changes under load.
const CHANGES: u64 = 1_000;
/// Changes after which memory has to stay where it is: by then the journal has as many events as it may have, and the store its pages.
const CHANGES_UNTIL_FLAT: u64 = 400;
/// Longest time for all changes.
const CHANGES_MAX: Duration = Duration::from_secs(300);

async fn pair() -> (Upstream, Upstream) {
    (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await)
}

/// Waits until requests are answered by `version`.
async fn served_by(address: &str, version: &str) {
    eventually(WAIT_MAX, version, || async {
        let mut client = Client::connect(address).await;
        client.send(GET).await;
        (client.response().await.version() == version).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_changes_under_load_are_felt_by_no_one() {
    let (v1, v2) = pair().await;
    let (sockets, downloads) =
        (Upstream::start(Behaviour::websocket()).await, Upstream::start(Behaviour::echo()).await);
    let (behaviour, feed) = Behaviour::sse();
    downloads.behave(behaviour);
    let build = |base: Config, turn: u64| {
        let (a, b) = (v1.address(), v2.address());
        let timeout = format!("connect_timeout = \"{}ms\"", 1_000 + turn % 2);
        base.route("path_prefix = \"/ws\"\nservice = \"ws\"")
            .route("path_prefix = \"/download\"\nservice = \"download\"")
            .pools("ws", ("v1", &[&sockets.address()]), ("v2", &[]))
            .pools("download", ("v1", &[&downloads.address()]), ("v2", &[]))
            .web(&[&a], &[&b])
            .set("services.web.upstream", &timeout)
    };
    let process = Process::start(|base| build(base, 0)).await;
    let mut socket = WebSocket::open(&process.address(), "/ws", "").await.expect("an upgrade");
    let mut download = process.client().await;
    download.send("GET /download HTTP/1.1\r\nHost: a\r\n\r\n").await;
    download.head().await;
    let load = Load::start(&process.address(), &Plan::default());
    load.progress(100).await;

    let mut flat = 0;
    within_time(CHANGES_MAX, "all changes", async {
        for turn in 1..=CHANGES {
            process.reload_ok(&build(process.base.clone(), turn)).await;
            process.admin.weight("web", if turn % 2 == 0 { "10%" } else { "60%" }).await;
            socket.echo("still here").await;
            feed.send(vec![b'x'; 100]).await.expect("the download goes on");
            assert_eq!(download.chunk().await.map(|piece| piece.len()), Some(100));
            if turn == CHANGES_UNTIL_FLAT {
                flat = process.rss();
            }
        }
    })
    .await;
    let grown = process.rss();
    load.stop().await.assert_clean();
    socket.close().await;
    drop(feed);
    assert_eq!(download.chunk().await, None);
    assert!(grown <= flat + flat / 20, "memory grew from {flat} to {grown} bytes");
    assert!(process.admin.metric("tidegate_config_reloads_total", &["result=\"success\""]).await >= 900.0);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_where_it_is_wrong() {
    let (v1, _v2) = pair().await;
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[])).await;
    let good = proxy.base.clone().web(&[&v1.address()], &[]).text();
    let bad = [
        (good.replace("service = \"web\"", "service = \"wbe\""), "wbe"),
        (good.replace("[services.web.stable]", "[services.web.stable]\nversoin = \"x\""), "versoin"),
        (good.replace("127.0.0.1:0\"", "127.0.0.1\""), "listen"),
        (format!("{good}\n[services.web.upstream]\nconnect_timeout = \"1 parsec\"\n"), "connect_timeout"),
        (format!("{good}\n["), ""),
        (String::new(), "routes"),
    ];
    for (text, named) in bad {
        let answer = proxy.reload(&text).await;
        assert!((400..500).contains(&answer.status), "{named:?}: {}", answer.status);
        assert_eq!(answer.get("content-type"), Some("application/problem+json"));
        assert!(answer.text().contains(named), "{named:?} is not named in {}", answer.text());
        let status = proxy.admin.status().await;
        let last = &status["config"]["last_reload"];
        assert_eq!(last["ok"].as_bool(), Some(false));
        assert!(last["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{last}");
        assert_eq!(
            proxy.admin.metric("tidegate_config_last_reload_successful", &[]).await.to_bits(),
            0.0_f64.to_bits()
        );
        assert_eq!(proxy.ask(GET).await.version(), "v1", "the old table still serves");
    }
    assert_eq!(proxy.reload(&good).await.status, 200);
    assert!((proxy.admin.metric("tidegate_config_last_reload_successful", &[]).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_refuses_the_whole_file() {
    let (v1, v2) = pair().await;
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[])).await;
    let wanted = |log: &Path| {
        let path = format!("enabled = true\npath = \"{}\"", log.display());
        proxy.base.clone().web(&[&v2.address()], &[]).set("log.access", &path)
    };
    let refused = proxy.reload(&wanted(&proxy.dir.path().join("none/access.log")).text()).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let problem: serde_json::Value = serde_json::from_str(refused.text()).unwrap();
    assert_eq!(problem["errors"][0]["key"].as_str(), Some("log.access.path"), "{problem}");
    assert_eq!(proxy.ask(GET).await.version(), "v1", "nothing of it is in force");
    let log = proxy.dir.path().join("access.log");
    proxy.reload_ok(&wanted(&log)).await;
    assert_eq!(proxy.ask(GET).await.version(), "v2");
    eventually(WAIT_MAX, "a line", || async {
        fs::read_to_string(&log).is_ok_and(|t| t.contains("\"status\":200")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_renamed_file_and_sighup_are_seen() {
    let (v1, v2) = pair().await;
    let process = Process::start(|c| c.web(&[&v1.address()], &[])).await;
    let with = |upstream: &Upstream| process.base.clone().web(&[&upstream.address()], &[]).text();
    process.write(&with(&v2));
    served_by(&process.address(), "v2").await;
    process.write(&with(&v1));
    process.signal(Signal::HUP);
    served_by(&process.address(), "v1").await;
    // In place, as some editors write.
    fs::write(process.config_path(), with(&v2)).unwrap();
    served_by(&process.address(), "v2").await;
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_the_others() {
    let (v1, _v2) = pair().await;
    let mut proxy = Proxy::start(|c| c.web(&[&v1.address()], &[])).await;
    let one = proxy.base.clone().web(&[&v1.address()], &[]);
    let mut kept = proxy.client().await;
    let load = Load::start(&proxy.address(), &Plan::default());
    let dir = TempDir::new();
    let unix = format!("unix:{}", dir.path().join("s").display());
    proxy.reload_ok(&one.clone().listener("second", &unix, "")).await;
    proxy.look().await;
    let mut second = Client::connect(&proxy.address_of("second")).await;
    second.send(GET).await;
    assert_eq!(second.response().await.version(), "v1");
    proxy.reload_ok(&one).await;
    eventually(WAIT_MAX, "the second listener to be gone", || async {
        Client::try_connect(&unix).await.is_err().then_some(())
    })
    .await;
    kept.send(GET).await;
    assert_eq!(kept.response().await.version(), "v1");
    load.progress(50).await;
    load.stop().await.assert_clean();

    let taken = one.listener("taken", &v1.address(), "");
    let refused = proxy.reload(&taken.text()).await;
    assert!(refused.status >= 400 && refused.text().contains(&v1.address()), "{}", refused.text());
}

#[tokio::test]
async fn a_removed_endpoint_loses_its_idle_connections_and_keeps_its_requests() {
    let (v1, v2) = pair().await;
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[])).await;
    proxy.ask(GET).await;
    assert_eq!(v1.open(), 1, "kept for reuse");
    let (behaviour, feed) = Behaviour::sse();
    v1.behave(behaviour);
    let mut running = proxy.client().await;
    running.send(GET).await;
    running.head().await;
    proxy.reload_ok(&proxy.base.clone().web(&[&v2.address()], &[])).await;
    served_by(&proxy.address(), "v2").await;
    feed.send(b"still".to_vec()).await.unwrap();
    assert_eq!(running.chunk().await.as_deref(), Some(&b"still"[..]));
    drop(feed);
    assert_eq!(running.chunk().await, None);
    v1.all_closed().await;
}

#[tokio::test]
async fn one_of_several_that_is_removed_gets_nothing_after_the_answer() {
    let mut upstreams = Vec::new();
    for _ in 0..3 {
        upstreams.push(Upstream::start(Behaviour::version("v1")).await);
    }
    let addresses: Vec<String> = upstreams.iter().map(Upstream::address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let file = |base: Config, endpoints: &[&str]| {
        base.web(endpoints, &[]).set("services.web.upstream", "balance = \"round_robin\"")
    };
    let proxy = Proxy::start(|c| file(c, &addresses)).await;
    let gone = &upstreams[2];
    let (behaviour, feed) = Behaviour::sse();
    gone.next([behaviour]);
    let mut running = proxy.client().await;
    while gone.arrived() == 0 {
        running = proxy.client().await;
        running.send(GET).await;
        running.head().await;
    }
    let load = Load::start(&proxy.address(), &Plan { sessions: 6, ..Plan::default() });
    load.progress(200).await;
    let answer = proxy.reload(&file(proxy.base.clone(), &addresses[..2]).text()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // What the proxy began, not what has arrived by now: from the answer on it is the same for ever.
    let endpoint = format!("endpoint={:?}", addresses[2]);
    let begun = async || format!("{:.0}", proxy.admin.metric("tidegate_attempts_total", &[&endpoint]).await);
    let at_the_answer = begun().await;
    load.progress(500).await;
    assert_eq!(begun().await, at_the_answer);
    assert_eq!(gone.arrived().to_string(), at_the_answer);
    feed.send(b"still".to_vec()).await.unwrap();
    assert_eq!(running.chunk().await.as_deref(), Some(&b"still"[..]));
    drop(feed);
    assert_eq!(running.chunk().await, None, "its last request finishes");
    gone.all_closed().await;
    load.stop().await.assert_clean();
}

#[tokio::test]
async fn what_needs_a_restart_is_reported() {
    let (v1, _v2) = pair().await;
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[])).await;
    let changed = proxy.base.clone().web(&[&v1.address()], &[]).text().replace("workers = 2", "workers = 3");
    let answer = proxy.reload(&changed).await;
    assert_eq!(answer.status, 200);
    let status = proxy.admin.status().await;
    assert!(status["config"]["needs_restart"].to_string().contains("runtime"), "{}", status["config"]);
}

/// `..data` is a symlink to a directory of a generation; an update swaps the symlink (envoy#3928, traefik#1188).
#[tokio::test]
async fn envoy_3928_a_config_map_swap_is_seen() {
    let (v1, v2) = pair().await;
    let dir = TempDir::new();
    let generation = |dir: &TempDir, name: &str, upstream: &Upstream| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("tidegate.toml"), Config::new(dir).web(&[&upstream.address()], &[]).text()).unwrap();
    };
    generation(&dir, "..1", &v1);
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/tidegate.toml", dir.path().join("tidegate.toml")).unwrap();
    let proxy = Proxy::start_file(dir).await;
    let dir = &proxy.dir;
    served_by(&proxy.address(), "v1").await;
    generation(dir, "..2", &v2);
    symlink("..2", dir.path().join("..data.new")).unwrap();
    fs::rename(dir.path().join("..data.new"), dir.path().join("..data")).unwrap();
    served_by(&proxy.address(), "v2").await;
}

/// The bounds of 100 ms and 50 ms hold for an optimised build (`make soak`); an unoptimised one gets twenty times as long. The time
/// of a reload is the median of five, since the load shares the processors with it.
#[tokio::test]
async fn ten_thousand_routes_are_reloaded_without_a_slow_request() {
    let factor = if cfg!(debug_assertions) { 20 } else { 1 };
    let (v1, _v2) = pair().await;
    let with_routes = |base: Config, more: usize| {
        let routes =
            (0..10_000 + more).map(|n| format!("host = \"h{n}.test\"\npath_prefix = \"/a{n}\"\nservice = \"web\""));
        routes.fold(base.web(&[&v1.address()], &[]), |config, route| config.route(&route))
    };
    let proxy = Proxy::start(|c| with_routes(c, 0)).await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 2, ..Plan::default() });
    load.progress(50).await;
    let mut took = Vec::new();
    for more in 1..=if cfg!(debug_assertions) { 1 } else { 5 } {
        let file = with_routes(proxy.base.clone(), more);
        let began = clock::now();
        proxy.reload_ok(&file).await;
        took.push(began.elapsed());
        load.progress(50).await;
    }
    let tally = load.stop().await;
    tally.assert_clean();
    took.sort();
    assert!(took[took.len() / 2] <= factor * Duration::from_millis(100), "the reloads took {took:?}");
    assert!(tally.slowest <= factor * Duration::from_millis(50), "a request took {:?}", tally.slowest);
}
