//! Every class of bad value with its exact message and line, and many at once.

use super::{MINIMAL, compile, errors};

/// Cases separated by blank lines: what is written before [`BASE`], then after `> ` the errors, `LINE: KEY: MESSAGE`.
const CASES: &str = include_str!("mistakes.txt");
/// The rest of each file. `services.web` is completed by the cases.
const BASE: &str = r#"
[[routes]]
host = "base.example.com"
service = "web"
[services.web.stable]
version = "v1"
endpoints = ["10.0.0.1:80"]
"#;

#[test]
fn every_mistake_is_told_with_its_line_and_what_is_allowed() {
    assert!(compile(BASE).is_ok());
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in CASES.trim().split("\n\n") {
        let (expected, text): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("> "));
        let text = text.join("\n");
        let found: Vec<String> =
            errors(&format!("{text}\n{BASE}")).iter().map(|e| e.replace("tidegate.toml:", "> ")).collect();
        if found != expected || expected.is_empty() {
            wrong.push(format!("{text}\n{}", found.join("\n")));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} cases differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count > 100, "{count} cases");
}

#[test]
fn all_mistakes_are_told_at_once_in_file_order() {
    let text = r#"[admin]
listen = "0.0.0.0:9900"
lsiten = 1
[runtime]
workers = 0
drain_timeout = 30
[[listeners]]
name = "a"
limits = { max_head = 5 }
[[listeners]]
name = "a"
listen = "unix:a.sock"
[[routes]]
host = "*"
service = "wbe"
redirect = {}
[services.web]
stable = { version = "v1", endpoints = ["web"], endpoint = [] }
candidate = { version = "v1", endpoints = ["10.0.0.1:80"] }
[services.web.upstream]
tls = { cert = "a.pem" }
[services.web.force]
secret_env = "UNSET"
"#;
    let found = errors(text);
    let places: Vec<&str> = found.iter().map(|e| e.split(": ").nth(1).expect("a key")).collect();
    let expected = [
        "admin.listen",
        "admin.lsiten",
        "runtime.workers",
        "runtime.drain_timeout",
        "listeners[0].limits.max_head",
        "listeners[1].name",
        "routes[0].host",
        "routes[0].service",
        "routes[0].redirect",
        "services.web.stable.endpoints[0]",
        "services.web.stable.endpoint",
        "services.web.candidate.version",
        "services.web.upstream.tls.sni",
        "services.web.upstream.tls.cert",
        "services.web.force",
        "services.web.force.secret_env",
    ];
    assert_eq!(places, expected, "{}", found.join("\n"));
    let lines: Vec<usize> = compile(text).expect_err("wrong").0.iter().filter_map(|e| e.line).collect();
    assert_eq!(lines, [2, 3, 5, 6, 9, 11, 14, 15, 16, 18, 18, 19, 21, 21, 22, 23]);
}

#[test]
fn a_file_without_routes_is_shown_the_smallest_useful_one() {
    let expected = format!(
        "tidegate.toml: routes: missing: a file needs at least one route. The smallest useful file:\n{MINIMAL}"
    );
    assert_eq!(errors(""), [expected]);
    assert!(errors("routes = []")[0].ends_with(MINIMAL));
}

#[test]
fn secrets_are_in_no_message() {
    for text in [CASES, "[services.web.force]\nheader = \"x\"\nsecret_env = \"SHORT_SECRET\""] {
        let found = errors(&format!("{text}\n{BASE}")).join("\n");
        assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    }
}

#[test]
fn long_values_are_cut_and_stay_on_one_line() {
    let found = errors(&format!("[log]\nlevel = \"{}\\n\"\n{BASE}", "x".repeat(10_000)));
    assert!(found[0].len() < 300 && !found[0].contains('\n'), "{}", found[0]);
}

#[test]
fn deep_nesting_is_refused() {
    const DEPTH: usize = 100_000;
    for text in [
        format!("x = {}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        format!("x = {}1{}", "{a=".repeat(DEPTH), "}".repeat(DEPTH)),
        format!("{}a = 1", "a.".repeat(DEPTH)),
        format!("[{}a]", "a.".repeat(DEPTH)),
        format!("[[{}a]]", "a.".repeat(DEPTH)),
    ] {
        let found = errors(&format!("{text}\n{BASE}"));
        assert!(found.len() == 1 && found[0].contains("recurs"), "{found:?}");
    }
}
