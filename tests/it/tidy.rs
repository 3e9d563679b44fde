//! The house rules, kept by a test. Each rule is a function from sources to complaints; each is also tried on a snippet that breaks it, so
//! that none can pass because it looks at nothing.

mod rules;
mod source;
mod tables;

use rules::{
    file_size, first_line, forbidden_in_core, forbidden_modules, function_size, ignored_tests, layers, sleeping_tests,
    unreasoned_todos,
};
use tidegate::telemetry::termination::Termination;

use source::{Source, root};
use tables::{config_keys, in_table, metric_names, route_paths, strings_after, top_level};

fn all() -> Vec<Source> {
    ["src", "tests", "benches"].into_iter().flat_map(Source::below).collect()
}

fn check(sources: &[Source], rule: fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn complains(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source::snippet(path, text)).len()
}

#[test]
fn imports_only_go_down() {
    check(&Source::below("src"), layers);
}

#[test]
fn the_layer_rule_sees_imports_up_and_aside() {
    let bad = [
        ("src/core/id.rs", "use crate::config::settings::Settings;"),
        ("src/core/route/mod.rs", "fn f() { super::super::clock::now(); }"),
        ("src/config/file.rs", "use crate::{core::id, state::live};"),
        ("src/config/file.rs", "use super::super::net::tls as t;"),
        ("src/state/live.rs", "mod tests { fn f() { assert!(crate::clock::now() > x); } }"),
        ("src/state/live.rs", "mod tests { use super::super::super::clock; }"),
        ("src/proxy/h1/head.rs", "use crate::admin::Routes;"),
        ("src/control/mod.rs", "use crate::proxy::worker::Worker;"),
        ("src/admin/mod.rs", "fn f(x: crate::app::Handle) {}"),
        ("src/app.rs", "use crate::cli::Args;"),
        ("src/main.rs", "use tidegate::nonsense::x;"),
        ("src/extra/mod.rs", "use crate::core::id;"),
        ("src/cli/mod.rs", "pub(in crate::main) fn f() {}"),
        ("src/net/dns.rs", "macro_rules! m { () => { $crate::store::X } }"),
    ];
    for (path, text) in bad {
        assert!(complains(layers, path, text) > 0, "{path}: {text}");
    }
    let good = [
        (
            "src/core/route/table.rs",
            "use super::super::id::Name; use super::Route; use crate::core::weight::{Split, Weight};",
        ),
        ("src/config/file.rs", "use crate::core::{id, weight}; use super::settings; use self::x::y; use std::fs;"),
        (
            "src/proxy/h1/head.rs",
            "use crate::state::live; use crate::clock::now; use super::super::headers; use crate::proxy::h1::x;",
        ),
        ("src/control/mod.rs", "use crate::config::settings::Settings; mod tests { use super::*; }"),
        ("src/main.rs", "use tidegate::cli; fn main() { tidegate::app::start(); }"),
        ("src/lib.rs", "pub mod core; pub mod app;"),
        ("src/proxy/x.rs", "//! as crate::admin does\nconst S: &str = \"crate::admin\";"),
    ];
    for (path, text) in good {
        assert_eq!(layers(&Source::snippet(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn the_core_is_pure() {
    check(&Source::below("src/core"), forbidden_in_core);
}

#[test]
fn the_purity_rule_sees_every_forbidden_word() {
    let bad = [
        "async fn f() {}",
        "use tokio::time;",
        "use pingora_core::x;",
        "fn f() { hyper::body::x(); }",
        "use std::{fs, io};",
        "fn f() { std::fs::read(p); }",
        "fn f() { Instant::now(); }",
        "use std::time::SystemTime;",
        "fn f() -> u8 { rand::random() }",
        "fn f() { fastrand::u8(..); }",
        "fn f() { tracing::info!(\"x\"); }",
        "use std::collections::{BTreeMap, HashMap};",
    ];
    for text in bad {
        assert!(complains(forbidden_in_core, "src/core/x.rs", text) > 0, "{text}");
    }
    let good = "//! No HashMap, no async.\nuse std::time::{Duration, Instant};\nfn f(now: Instant) { let random = 1; \"tokio\"; fastrand::Rng::with_seed(1); }";
    assert_eq!(complains(forbidden_in_core, "src/core/x.rs", good), 0);
}

#[test]
fn files_and_functions_are_small_and_files_say_what_they_are() {
    let sources = all();
    check(&sources, file_size);
    check(&sources, function_size);
    check(&sources, first_line);
}

#[test]
fn the_size_rules_see_what_is_too_large() {
    assert_eq!(complains(file_size, "src/x.rs", &"//\n".repeat(501)), 1);
    assert_eq!(complains(file_size, "src/x.rs", &"//\n".repeat(500)), 0);
    let function = |lines: usize| format!("fn f()\nwhere u8: Copy\n{{\n{}}}\n", "f();\n".repeat(lines - 4));
    assert_eq!(complains(function_size, "src/x.rs", &function(71)), 1);
    assert_eq!(complains(function_size, "src/x.rs", &function(70)), 0);
    assert_eq!(complains(function_size, "src/x.rs", &format!("impl X {{ mod y {{\n{}}} }}", function(71))), 1);
    assert_eq!(complains(function_size, "src/x.rs", &format!("proptest! {{\n{}}}", function(71))), 1);
    assert_eq!(complains(first_line, "src/x.rs", "// not a doc\n"), 1);
    assert_eq!(complains(first_line, "src/x.rs", "\n//! late\n"), 1);
    assert_eq!(complains(first_line, "src/x.rs", "//! A file.\n"), 0);
}

#[test]
fn names_tests_and_notes_follow_the_rules() {
    let sources = all();
    check(&sources, forbidden_modules);
    check(&sources, unreasoned_todos);
    check(&sources, ignored_tests);
    check(&sources, sleeping_tests);
}

#[test]
fn the_rules_on_names_tests_and_notes_see_breaches() {
    for (path, text) in [
        ("src/utils.rs", ""),
        ("src/x/helpers/mod.rs", ""),
        ("src/common/x.rs", ""),
        ("src/x.rs", "mod misc;"),
        ("src/x.rs", "mod util { }"),
    ] {
        assert!(complains(forbidden_modules, path, text) > 0, "{path} {text}");
    }
    assert_eq!(complains(forbidden_modules, "src/commons_of.rs", "mod utilisation;"), 0);
    let (to_do, fix_me) = (concat!("TO", "DO"), concat!("FIX", "ME"));
    assert_eq!(complains(unreasoned_todos, "src/x.rs", &format!("// {to_do}\n// {fix_me}: later\n// {to_do}(me)")), 3);
    assert_eq!(
        complains(
            unreasoned_todos,
            "src/x.rs",
            &format!("// {to_do}: the kernel before 5.1 lacks pidfd, drop this with it\n")
        ),
        0
    );
    assert_eq!(
        complains(ignored_tests, "tests/it/x.rs", "#[test] #[ignore] fn f() {}\n#[ignore = \"slow\"] fn g() {}"),
        2
    );
    assert_eq!(complains(ignored_tests, "tests/it/x.rs", "#[test] fn ignore() {}"), 0);
    for text in [
        "fn f() { thread::sleep(d); }",
        "async fn f() { tokio::time::sleep(d).await; }",
        "async fn f() { time::interval(d).tick().await; }",
        "use tokio::time::{sleep, Instant};",
        "fn f() { wait::pause(d); }",
    ] {
        for path in ["tests/it/shift.rs", "src/x/tests.rs", "src/x/tests/y.rs"] {
            assert!(complains(sleeping_tests, path, text) > 0, "{path}: {text}");
        }
    }
    assert_eq!(complains(sleeping_tests, "src/x.rs", "async fn f() { tokio::time::sleep(d).await; }"), 0);
    assert_eq!(complains(sleeping_tests, "tests/it/harness/wait.rs", "fn f() { tokio::time::sleep(d); }"), 0);
    assert_eq!(complains(sleeping_tests, "tests/it/harness/client/mod.rs", "use tokio::time::sleep;"), 1);
}

#[test]
fn the_top_level_is_what_the_architecture_says() {
    let entries: Vec<String> =
        std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap();
    assert_eq!(top_level(&entries, &ignored), Vec::<String>::new());
    assert!(entries.contains(&"Cargo.toml".to_owned()));
    let strange = ["src", ".git", "target", "scripts", "NOTES.md"].map(String::from);
    assert_eq!(top_level(&strange, "/target\n"), ["scripts", "NOTES.md"]);
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn every_admin_route_is_in_the_readme() {
    let readme = read("README.md");
    let routes: Vec<String> = Source::below("src/admin").iter().flat_map(route_paths).collect();
    assert!(!routes.is_empty(), "no routes found in src/admin");
    assert_eq!(in_table(&readme, "admin-routes", &routes), Vec::<String>::new());
}

#[test]
fn every_metric_is_in_the_readme() {
    let readme = read("README.md");
    let catalog = read("src/telemetry/catalog.rs");
    let names = metric_names(&Source::snippet("src/telemetry/catalog.rs", &catalog));
    assert!(!names.is_empty(), "no metrics found in the catalog");
    assert_eq!(in_table(&readme, "metrics", &names), Vec::<String>::new());
}

#[test]
fn every_config_key_is_in_the_reference() {
    let (file, reference) = (read("src/config/keys.rs"), read("config/reference.toml"));
    let keys = config_keys(&Source::snippet("src/config/keys.rs", &file));
    assert!(keys.len() > 20, "only {} keys found in src/config/keys.rs", keys.len());
    let missing: Vec<&String> = keys.iter().filter(|key| !tables::mentions_key(&reference, key)).collect();
    assert!(missing.is_empty(), "not in config/reference.toml: {missing:?}");
}

#[test]
fn the_minimal_file_of_the_readme_is_config_minimal() {
    let readme = read("README.md");
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("a TOML block in the README");
    assert!(block.parse::<toml::Table>().is_ok(), "the README's configuration is not TOML");
    let bare = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    };
    assert_eq!(bare(block), bare(&read("config/minimal.toml")), "README.md and config/minimal.toml differ");
}

#[test]
fn every_termination_code_is_in_the_readme() {
    let codes: Vec<String> = Termination::ALL.iter().map(|t| t.code().to_owned()).collect();
    assert_eq!(in_table(&read("README.md"), "termination-codes", &codes), Vec::<String>::new());
}

#[test]
fn the_table_rules_find_what_is_missing() {
    let admin = Source::snippet(
        "src/admin/mod.rs",
        "fn r() { Router::new().route(\"/a\", get(a)).route(\n\"/v1/{s}/x\", post(x)) }",
    );
    assert_eq!(route_paths(&admin), ["/a", "/v1/{s}/x"]);
    let described = "#[utoipa::path(get, path = \"/b\", responses((status = 200)))]\npub(super) async fn b() {}";
    assert_eq!(route_paths(&Source::snippet("src/admin/read.rs", described)), ["/b"]);
    let catalog = Source::snippet(
        "src/telemetry/catalog.rs",
        "const X: &str = \"tidegate_requests_total\"; const Y: &str = \"help for tidegate_x\"; const Z: &str = \"tidegate_\";",
    );
    assert_eq!(metric_names(&catalog), ["tidegate_requests_total"]);
    let page = "`/a` above\n<!-- admin-routes -->\n| `/b` |\n<!-- /admin-routes -->\n`/c` below";
    let names = ["/a", "/b", "/c"].map(String::from);
    assert_eq!(in_table(page, "admin-routes", &names), ["/a", "/c"]);
    assert_eq!(in_table("no table", "metrics", &names).len(), 3);
    let keys =
        "const fn section(path: &str) {} static L: S = section(\n\"log\",\n&[\"level\", \"format\"], &[\"later\"]);";
    assert_eq!(config_keys(&Source::snippet("src/config/keys.rs", keys)), ["format", "level"]);
    assert!(tables::mentions_key("# max_head = 1", "max_head") && tables::mentions_key("[a.max_head]", "max_head"));
    assert!(!tables::mentions_key("max_headers = 1 # not max_head", "max_head"));
    assert_eq!(strings_after(&admin, "nothing"), Vec::<String>::new());
}
