//! `config/reference.toml` lists every key; and no file, however damaged, makes the reader panic.

use std::collections::BTreeSet;

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::{MINIMAL, compile};
use crate::config::keys;

const REFERENCE: &str = include_str!("../../../config/reference.toml");

/// The reference with every commented-out key written.
fn uncommented() -> String {
    let is_key = |rest: &str| {
        let name = rest.split(" = ").next().unwrap_or_default();
        rest.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let line = |line: &'static str| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line);
    REFERENCE.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The paths of all keys in `table`, in the manner of [`keys::Section::path`].
fn paths(table: &DeTable<'_>, at: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let key = if at == "services" { "*" } else { key.get_ref() };
        let path = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        match value.get_ref() {
            // Its keys are the author's.
            DeValue::Table(_) if key == "expect_json" => {}
            DeValue::Table(inner) => paths(inner, &path, found),
            DeValue::Array(elements) => {
                for inner in elements.iter().filter_map(|e| e.get_ref().as_table()) {
                    paths(inner, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
        found.insert(path);
    }
}

#[test]
fn every_key_is_in_the_reference_and_nothing_else() {
    let known = keys::ALL.iter().flat_map(|section| {
        let dot = if section.path.is_empty() { "" } else { "." };
        section.keys.iter().map(move |key| format!("{}{dot}{key}", section.path))
    });
    let mut known: BTreeSet<String> = known.collect();
    known.insert("services.*".to_owned());
    let text = uncommented();
    let mut found = BTreeSet::new();
    paths(DeTable::parse(&text).expect("TOML").get_ref(), "", &mut found);
    let missing: Vec<_> = known.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
}

#[test]
fn every_key_of_the_reference_has_its_comment() {
    let mut before = "";
    for line in REFERENCE.lines().filter(|line| !line.is_empty()) {
        if !line.starts_with('#') {
            assert!(before.starts_with("# "), "no comment before {line}");
        }
        before = line;
    }
}

#[test]
fn the_reference_is_valid_and_says_what_the_defaults_are() {
    let reference = compile(REFERENCE).expect("valid");
    let minimal = compile(MINIMAL).expect("valid");
    assert_eq!(reference.admin, minimal.admin);
    assert_eq!(reference.state, minimal.state);
    assert_eq!(reference.runtime, minimal.runtime);
    assert_eq!(reference.log, minimal.log);
    assert_eq!(reference.listeners, minimal.listeners);
    assert_eq!(reference.routes, minimal.routes);
    assert_eq!(reference.services[0].upstream, minimal.services[0].upstream);
    assert_eq!(reference.services[0].health, minimal.services[0].health);
    assert_eq!(reference.services[0].rollout, minimal.services[0].rollout);
    assert_eq!(reference.services[0].affinity, minimal.services[0].affinity);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn damaged_files_never_panic(
        full: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, 0_usize..6, ".{0,3}"), 1..6),
    ) {
        let mut text = if full { uncommented() } else { REFERENCE.to_owned() };
        for (place, len, kind, new) in edits {
            let floor = |at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let start = floor(place.index(text.len() + 1));
            let end = floor(start + len);
            let new = match kind {
                0 => "",
                1 => "[]",
                2 => "\"-1%\"",
                3 => "{}",
                4 => "99999999999999999999999",
                _ => &new,
            };
            text.replace_range(start..end, new);
        }
        if let Err(errors) = compile(&text) {
            prop_assert!(!errors.0.is_empty());
            let lines = text.lines().count().max(1) + 1;
            prop_assert!(errors.0.iter().all(|e| e.line.is_none_or(|line| (1..=lines).contains(&line))));
        }
    }

    #[test]
    fn wrong_types_anywhere_never_panic(line in any::<prop::sample::Index>(), value in prop::sample::select(
        vec!["1", "-1", "1.5", "nan", "true", "\"\"", "\"x\"", "\"%\"", "\"0s\"", "\"0B\"", "[]", "[1]", "[[]]", "[{}]", "{}", "{ a = 1 }", "1979-05-27"]
    )) {
        let text = uncommented();
        let with_value: Vec<usize> = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && l.contains(" = ")).map(|(i, _)| i).collect();
        let changed = *line.get(&with_value);
        let replace = |(i, line): (usize, &str)| match line.split_once(" = ") {
            Some((key, _)) if i == changed => format!("{key} = {value}"),
            _ => line.to_owned(),
        };
        let text: Vec<String> = text.lines().enumerate().map(replace).collect();
        // Written out, the reference contradicts itself (path and path_prefix), so it never compiles.
        prop_assert!(compile(&text.join("\n")).is_err());
    }
}
