//! The rules that compare the code with the README, the reference and the list of top-level entries.

use proc_macro2::{TokenStream, TokenTree};

use super::source::Source;

/// All there may be beside dotfiles and what git ignores.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "Makefile",
    "LICENSE",
    "CHANGELOG.md",
    "README.md",
    "src",
    "config",
    "benches",
    "tests",
    "deploy",
];

/// Entries that have no place at the top level.
pub(super) fn top_level(entries: &[String], gitignore: &str) -> Vec<String> {
    let ignored: Vec<&str> = gitignore.lines().map(|line| line.trim_matches('/')).collect();
    let known = |entry: &str| TOP_LEVEL.contains(&entry) || entry.starts_with('.') || ignored.contains(&entry);
    entries.iter().filter(|entry| !known(entry)).cloned().collect()
}

/// The names that do not stand in backquotes between `<!-- marker -->` and `<!-- /marker -->` of a page.
pub(super) fn in_table(page: &str, marker: &str, names: &[String]) -> Vec<String> {
    let table = page.split_once(&format!("<!-- {marker} -->")).map_or("", |(_, rest)| rest);
    let table = table.split_once(&format!("<!-- /{marker} -->")).map_or("", |(table, _)| table);
    let stands = |name: &str| {
        table
            .split('`')
            .skip(1)
            .step_by(2)
            .any(|code| code == name || code.strip_suffix(name).is_some_and(|method| method.ends_with(' ')))
    };
    names.iter().filter(|name| !stands(name)).cloned().collect()
}

/// The first string of every `.route("...", ...)`, and the path of every `#[utoipa::path(..., path = "...")]`.
pub(super) fn route_paths(source: &Source) -> Vec<String> {
    let mut paths = strings_after(source, "route");
    described_paths(source.tokens(), &mut paths);
    paths
}

fn described_paths(stream: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let is_path = |ident: &TokenTree| matches!(ident, TokenTree::Ident(ident) if ident == "path");
        if at > 0 && is_path(&tokens[at - 1]) {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            found.extend(inner.windows(3).filter(|w| is_path(&w[0])).filter_map(|w| string(&w[2])));
        }
        described_paths(group.stream(), found);
    }
}

/// Every string that is the name of a metric.
pub(super) fn metric_names(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    strings(source.tokens(), &mut |text| {
        if text.starts_with("tidegate_")
            && !text.ends_with('_')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            names.push(text);
        }
    });
    names
}

/// The first argument of every call of `name`, where it is a string.
pub(super) fn strings_after(source: &Source, name: &str) -> Vec<String> {
    fn scan(stream: TokenStream, name: &str, found: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            if at > 0 && matches!(&tokens[at - 1], TokenTree::Ident(ident) if ident == name) {
                found.extend(group.stream().into_iter().next().as_ref().and_then(string));
            }
            scan(group.stream(), name, found);
        }
    }
    let mut found = Vec::new();
    scan(source.tokens(), name, &mut found);
    found
}

fn strings(stream: TokenStream, see: &mut dyn FnMut(String)) {
    for token in stream {
        match token {
            TokenTree::Group(group) => strings(group.stream(), see),
            other => {
                if let Some(text) = string(&other) {
                    see(text);
                }
            }
        }
    }
}

fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    syn::parse_str::<syn::LitStr>(&literal.to_string()).ok().map(|text| text.value())
}

/// The keys of the configuration: the strings of the second argument of every `section(path, keys, later)`, sorted.
pub(super) fn config_keys(source: &Source) -> Vec<String> {
    let tokens: Vec<TokenTree> = source.tokens().into_iter().collect();
    let mut keys = Vec::new();
    for pair in tokens.windows(2) {
        let [TokenTree::Ident(name), TokenTree::Group(call)] = pair else { continue };
        if name == "section" {
            let arguments: Vec<TokenTree> = call.stream().into_iter().collect();
            let second = arguments.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')).nth(1);
            strings(second.unwrap_or_default().iter().cloned().collect(), &mut |key| keys.push(key));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether `reference` sets `key` or has a section of that name, commented out or not.
pub(super) fn mentions_key(reference: &str, key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    reference.match_indices(key).any(|(at, _)| {
        let (before, after) = (&reference[..at], &reference[at + key.len()..]);
        let assigned = after.trim_start().starts_with(['=', '.', ']']);
        !before.ends_with(word) && !after.starts_with(word) && assigned
    })
}
