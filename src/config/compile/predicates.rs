//! Conditions over headers, query parameters and cookies: `{ name, exact | prefix | regex | present }`.

use super::super::file::{Table, Value};
use super::super::keys::Section;
use super::syntax;
use crate::core::route::{FieldMatch, ValueMatch};

/// Most conditions in one list.
const PREDICATES_MAX: usize = 32;
/// The forms a condition can have.
const CONDITIONS: [&str; 4] = ["exact", "prefix", "regex", "present"];
const FORM: &str = "one of exact, prefix, regex and present, such as { name = \"x-region\", exact = \"eu\" }";

/// The conditions in the list `key` of `route`. `parse_name` reads their names.
pub(super) fn predicates<E: std::fmt::Display>(
    route: &Table<'_>,
    key: &str,
    section: &'static Section,
    parse_name: impl Fn(&str) -> Result<String, E>,
) -> Vec<FieldMatch> {
    let Some(value) = route.value(key) else { return Vec::new() };
    let Some(tables) = route.tables(key, section) else { return Vec::new() };
    if tables.len() > PREDICATES_MAX {
        value.wrong(format_args!("{} conditions; at most {PREDICATES_MAX} are allowed", tables.len()));
    }
    let mut found: Vec<FieldMatch> = Vec::new();
    for table in &tables {
        let name = table.required("name", "what the condition is about").and_then(|v| v.read("a name", &parse_name));
        let (Some(value), Some(name)) = (condition(table), name) else { continue };
        let condition = FieldMatch { name, value };
        // Beyond the bound the list is refused anyway.
        if found.iter().take(PREDICATES_MAX).any(|earlier| *earlier == condition) {
            table.wrong("the same condition is listed twice");
        }
        found.push(condition);
    }
    found
}

fn condition(table: &Table<'_>) -> Option<ValueMatch> {
    let mut written = CONDITIONS.into_iter().filter_map(|key| table.value(key));
    let Some(value) = written.next() else {
        table.wrong(format_args!("has no condition; write {FORM}"));
        return None;
    };
    let mut contradiction = false;
    for other in written {
        other.wrong(format_args!("contradicts {}; write {FORM}", value.key()));
        contradiction = true;
    }
    if contradiction { None } else { value_match(value) }
}

fn value_match(value: Value<'_, '_>) -> Option<ValueMatch> {
    let bytes = |text: &str| match text {
        _ if text.chars().any(char::is_control) => Err("a text without controls"),
        _ if text.trim_matches(' ').len() != text.len() => Err("values are compared without spaces around them"),
        _ => Ok(text.as_bytes().to_vec()),
    };
    let not_empty = |text: &str| match text {
        "" => Err("every value begins with nothing; write present = true"),
        _ if text.chars().any(char::is_control) => Err("a text without controls"),
        _ if text.starts_with(' ') => Err("values are compared without spaces around them"),
        _ => Ok(text.as_bytes().to_vec()),
    };
    match value.key() {
        "exact" => value.read("a text", bytes).map(ValueMatch::Exact),
        "prefix" => value.read("a text", not_empty).map(ValueMatch::Prefix),
        "regex" => value.read(syntax::REGEX_FORM, syntax::regex).map(ValueMatch::Regex),
        _ => value.boolean().map(ValueMatch::Present),
    }
}
