//! The rules that look at one file at a time.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::source::Source;

/// Lines of a file.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, its signature included.
const FUNCTION_LINES_MAX: usize = 70;
/// Bytes of text after a note to do something later: less is no reason.
const REASON_BYTES_MIN: usize = 20;

/// Which top-level module is in which layer. `main` stands above `cli` only because something has to call it.
const LAYERS: [(&str, u8); 19] = [
    ("main", 6),
    ("cli", 5),
    ("app", 4),
    ("proxy", 3),
    ("health", 3),
    ("watch", 3),
    ("discovery", 3),
    ("admin", 3),
    ("notify", 3),
    ("synthetic", 3),
    ("cluster", 3),
    ("control", 2),
    ("config", 1),
    ("state", 1),
    ("store", 1),
    ("net", 1),
    ("telemetry", 1),
    ("clock", 1),
    ("core", 0),
];

/// What core may not name, as whole identifiers or path endings.
const FORBIDDEN_IN_CORE: [&str; 8] =
    ["async", "tokio", "std::fs", "Instant::now", "SystemTime", "rand", "fastrand", "HashMap"];
/// What core may not name, as beginnings of identifiers.
const FORBIDDEN_FAMILIES_IN_CORE: [&str; 3] = ["pingora", "hyper", "tracing"];

/// Randomness from a given seed is plain data (the tests of the core draw from it).
const SEEDED: &str = "fastrand::Rng::with_seed";

const FORBIDDEN_MODULES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// Imports only go down; siblings never import each other.
pub(super) fn layers(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(own) = module.first() else { return Vec::new() };
    let Some(level) = layer(own) else {
        return vec![format!("{}: the module `{own}` is in no layer of the architecture", source.path)];
    };
    let mut complaints = Vec::new();
    for import in source.imports() {
        let Some(target) = import.segments.first() else { continue };
        // Only `clock` reads the clock, so a file of tests has no other way to a time to begin with.
        let reads_clock = target == "clock" && source.path.ends_with("/tests.rs");
        let allowed = target == own || reads_clock || layer(target).is_some_and(|below| below < level);
        if !allowed {
            let path = import.segments.join("::");
            complaints.push(format!("{}:{}: `{own}` may not import `crate::{path}`", source.path, import.line));
        }
    }
    complaints
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

/// No I/O, no clock, no randomness, no async, no logging, no unordered maps.
pub(super) fn forbidden_in_core(source: &Source) -> Vec<String> {
    let forbidden = |path: &str| {
        let padded = format!("::{path}::");
        FORBIDDEN_IN_CORE.iter().any(|word| padded.contains(&format!("::{word}::")))
            || path
                .split("::")
                .any(|segment| FORBIDDEN_FAMILIES_IN_CORE.iter().any(|family| segment.starts_with(family)))
    };
    let found = source.paths().into_iter().filter(|(_, path)| path != SEEDED && forbidden(path));
    found.map(|(line, path)| format!("{}:{line}: `{path}` has no place in core", source.path)).collect()
}

/// Files stay readable.
pub(super) fn file_size(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let complaint = format!("{}: {lines} lines, {FILE_LINES_MAX} are allowed", source.path);
    if lines > FILE_LINES_MAX { vec![complaint] } else { Vec::new() }
}

/// Functions stay readable.
pub(super) fn function_size(source: &Source) -> Vec<String> {
    let large = source.functions().into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    large
        .map(|(name, line, lines)| {
            format!("{}:{line}: `{name}` has {lines} lines, {FUNCTION_LINES_MAX} are allowed", source.path)
        })
        .collect()
}

/// Every file begins with what it is.
pub(super) fn first_line(source: &Source) -> Vec<String> {
    let said = source.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    if said { Vec::new() } else { vec![format!("{}: the first line is not a `//!` sentence", source.path)] }
}

/// No module is a drawer for everything.
pub(super) fn forbidden_modules(source: &Source) -> Vec<String> {
    let in_path = source.module().into_iter();
    let mut names: Vec<String> =
        in_path.flat_map(|s| s.split('/').map(ToOwned::to_owned).collect::<Vec<_>>()).collect();
    let paths = source.paths();
    names.extend(paths.windows(2).filter(|pair| pair[0].1 == "mod").map(|pair| pair[1].1.clone()));
    let bad = names.into_iter().filter(|name| FORBIDDEN_MODULES.contains(&name.as_str()));
    bad.map(|name| format!("{}: a module called `{name}` says nothing", source.path)).collect()
}

/// A note to do something later says why it is not done now.
pub(super) fn unreasoned_todos(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            let unreasoned = line.split_once(word).is_some_and(|(_, rest)| rest.trim().len() < REASON_BYTES_MIN);
            if unreasoned {
                complaints.push(format!("{}:{}: {word} without a reason", source.path, number + 1));
            }
        }
    }
    complaints
}

/// Every test runs.
pub(super) fn ignored_tests(source: &Source) -> Vec<String> {
    fn scan(stream: TokenStream, path: &str, found: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            let hash = at > 0 && matches!(&tokens[at - 1], TokenTree::Punct(p) if p.as_char() == '#');
            let first = group.stream().into_iter().next();
            let ignore = matches!(first, Some(TokenTree::Ident(ident)) if ident == "ignore");
            if hash && ignore && group.delimiter() == Delimiter::Bracket {
                found.push(format!("{path}:{}: an ignored test", group.span_open().start().line));
            }
            scan(group.stream(), path, found);
        }
    }
    let mut found = Vec::new();
    scan(source.tokens(), &source.path, &mut found);
    found
}

/// Tests await events. Only `harness/wait.rs` lets time pass, and only the scripted peers of the harness may ask it to. Of the sources these
/// are the files of tests; unit tests within a file are not told from the rest of it.
pub(super) fn sleeping_tests(source: &Source) -> Vec<String> {
    let of_tests = source.path.starts_with("tests/") || source.path.split(['/', '.']).any(|part| part == "tests");
    if !of_tests || source.path == "tests/it/harness/wait.rs" {
        return Vec::new();
    }
    let harness = source.path.starts_with("tests/it/harness/");
    let sleeps = |path: &str| {
        let last = path.rsplit("::").next().unwrap_or_default();
        // Alone it is the name of a setting too.
        let interval = last == "interval" && path != last;
        matches!(last, "sleep" | "sleep_until") || interval || (path.ends_with("wait::pause") && !harness)
    };
    let found = source.paths().into_iter().filter(|(_, path)| sleeps(path));
    found.map(|(line, path)| format!("{}:{line}: `{path}`: await an event instead", source.path)).collect()
}
