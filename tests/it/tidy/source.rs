//! A source file as tokens: paths, identifiers, functions, each with its line. Comments and strings are no tokens of a path, so that
//! prose may name what code may not; code inside macros is seen like any other.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One file.
pub(super) struct Source {
    /// Relative to the repository: `src/core/id.rs`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A path expression or import: `crate::core::id`, resolved up to its first two segments below the crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// The line it stands in.
    pub line: usize,
    /// Segments below the crate root; the first is a top-level module.
    pub segments: Vec<String>,
}

// === impl Source ===

impl Source {
    /// All Rust files below `dir` of the repository.
    pub(super) fn below(dir: &str) -> Vec<Self> {
        let mut paths = Vec::new();
        collect(&root().join(dir), &mut paths);
        paths.sort();
        assert!(!paths.is_empty(), "no Rust files below {dir}: the test looks in the wrong place");
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Self { path: relative, text: fs::read_to_string(path).expect("a readable file") }
    }

    /// A snippet, as if it were the file `path`.
    pub(super) fn snippet(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The tokens.
    pub(super) fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|e| panic!("{}: {e}", self.path))
    }

    /// The module path of the file: `["core", "id"]` for `src/core/id.rs`; empty for the crate root.
    pub(super) fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let segments = path.split('/').filter(|s| !matches!(*s, "mod" | "lib"));
        segments.map(ToOwned::to_owned).collect()
    }

    /// Every path that begins with `crate`, `super` or the crate's own name, groups of imports taken apart.
    pub(super) fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        imports_in(&flat(self.tokens()), &self.module(), &mut found);
        found
    }

    /// Every path of identifiers (`std::fs::read`), with its line; a lone identifier is a path of one.
    pub(super) fn paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        paths_in(self.tokens(), &mut found);
        found
    }

    /// Every function with a body: its name, its line and how many lines it has.
    pub(super) fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        functions_in(self.tokens(), &mut found);
        found
    }
}

/// The repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn flat(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

/// Whether `tokens[at..]` begins with `::`.
fn colons(tokens: &[TokenTree], at: usize) -> bool {
    (0..2).all(|i| matches!(tokens.get(at + i), Some(TokenTree::Punct(p)) if p.as_char() == ':'))
}

/// The segments from `at` on, joined by `::`, and where they end.
fn segments(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while let Some(segment) = ident(tokens.get(at)) {
        segments.push(segment);
        at += 1;
        if !colons(tokens, at)
            || (ident(tokens.get(at + 2)).is_none() && group(tokens.get(at + 2), Delimiter::Brace).is_none())
        {
            break;
        }
        at += 2;
    }
    (segments, at)
}

fn imports_in(tokens: &[TokenTree], module: &[String], found: &mut Vec<Import>) {
    let mut at = 0;
    while at < tokens.len() {
        let continues = at >= 2 && colons(tokens, at - 2);
        match ident(Some(&tokens[at])).as_deref() {
            Some("mod") if group(tokens.get(at + 2), Delimiter::Brace).is_some() => {
                let inner = [module, &[ident(tokens.get(at + 1)).unwrap_or_default()]].concat();
                if let Some(group) = group(tokens.get(at + 2), Delimiter::Brace) {
                    imports_in(&flat(group.stream()), &inner, found);
                }
                at += 3;
            }
            Some("crate" | "super" | "self" | "tidegate") if !continues && colons(tokens, at + 1) => {
                at = one_import(tokens, at, module, found);
            }
            _ => {
                if let TokenTree::Group(group) = &tokens[at] {
                    imports_in(&flat(group.stream()), module, found);
                }
                at += 1;
            }
        }
    }
}

/// Resolves the path at `at` and everything its group names; returns where it ends.
fn one_import(tokens: &[TokenTree], at: usize, module: &[String], found: &mut Vec<Import>) -> usize {
    let line = tokens[at].span().start().line;
    let (segments, end) = segments(tokens, at);
    let mut base = module.to_vec();
    for segment in segments {
        match segment.as_str() {
            "crate" | "tidegate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => base.push(segment),
        }
    }
    if let Some(group) = group(tokens.get(end), Delimiter::Brace) {
        for part in flat(group.stream()).split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
            if !part.is_empty() {
                let line = part[0].span().start().line;
                let (inner, _) = self::segments(part, 0);
                found.push(Import { line, segments: [base.clone(), inner].concat() });
            }
        }
        return end + 1;
    }
    found.push(Import { line, segments: base });
    end
}

fn paths_in(stream: TokenStream, found: &mut Vec<(usize, String)>) {
    let tokens = flat(stream);
    let mut at = 0;
    while at < tokens.len() {
        let (path, end) = segments(&tokens, at);
        if path.is_empty() {
            if let TokenTree::Group(group) = &tokens[at] {
                paths_in(group.stream(), found);
            }
            at += 1;
            continue;
        }
        let line = tokens[at].span().start().line;
        at = end;
        let Some(group) = group(tokens.get(end), Delimiter::Brace).filter(|_| colons(&tokens, end.saturating_sub(2)))
        else {
            found.push((line, path.join("::")));
            continue;
        };
        let mut inner = Vec::new();
        paths_in(group.stream(), &mut inner);
        found.extend(inner.into_iter().map(|(line, name)| (line, format!("{}::{name}", path.join("::")))));
        at += 1;
    }
}

fn functions_in(stream: TokenStream, found: &mut Vec<(String, usize, usize)>) {
    let tokens = flat(stream);
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            functions_in(group.stream(), found);
        }
        let (Some("fn"), Some(name)) = (ident(Some(token)).as_deref(), ident(tokens.get(at + 1))) else { continue };
        let signature_end = tokens[at..].iter().position(|t| {
            matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace)
                || matches!(t, TokenTree::Punct(p) if p.as_char() == ';')
        });
        if let Some(body) = signature_end.and_then(|n| group(tokens.get(at + n), Delimiter::Brace)) {
            let line = token.span().start().line;
            found.push((name, line, body.span_close().end().line + 1 - line));
        }
    }
}
