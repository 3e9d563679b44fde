//! `[[routes]]`: which service takes which requests.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::keys;
use super::predicates::predicates;
use super::syntax;
use crate::core::id::Name;
use crate::core::route::{HostMatch, Matcher, PathMatch, Route, Target};
use crate::core::service::KeySource;
use crate::core::weight::{GRAINS, Split, Weight};

/// Most routes, methods of a route, parts of a split and sources of a key.
const ROUTES_MAX: usize = 100_000;
const METHODS_MAX: usize = 32;
const PARTS_MAX: usize = 100;
pub(super) const KEYS_MAX: usize = 16;
/// Bounds of a route's timeout.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
/// The forms a path condition can have.
const PATHS: [&str; 3] = ["path_prefix", "path", "path_regex"];
const MINIMAL: &str = include_str!("../../../config/minimal.toml");

/// The services that are declared, rightly or wrongly.
struct Declared<'d>(BTreeSet<&'d str>);

pub(super) fn routes(root: &Table<'_>) -> Vec<Route<Name>> {
    let Some(value) =
        root.required("routes", &format!("a file needs at least one route. The smallest useful file:\n{MINIMAL}"))
    else {
        return Vec::new();
    };
    let Some(tables) = root.tables("routes", &keys::ROUTE) else { return Vec::new() };
    if tables.is_empty() {
        value.wrong(format_args!(
            "an empty list; a file needs at least one route. The smallest useful file:\n{MINIMAL}"
        ));
    }
    if tables.len() > ROUTES_MAX {
        value.wrong(format_args!("{} routes; at most {ROUTES_MAX} are allowed", tables.len()));
    }
    let declared = Declared(root.names("services").collect());
    let compiled: Vec<(Option<Route<Name>>, &Table<'_>)> =
        tables.iter().map(|table| (route(table, &declared), table)).collect();
    refuse_shadowed(&compiled);
    compiled.into_iter().filter_map(|(route, _)| route).collect()
}

/// Of two routes with equal conditions the second never matches.
#[expect(
    clippy::mutable_key_type,
    reason = "what changes within an expression are caches; equality and hash leave them out"
)]
fn refuse_shadowed(compiled: &[(Option<Route<Name>>, &Table<'_>)]) {
    let mut seen: HashMap<&Matcher, &str> = HashMap::with_capacity(compiled.len());
    for (route, table) in compiled.iter().filter_map(|(route, table)| Some((route.as_ref()?, table))) {
        match seen.get(&route.matcher) {
            Some(first) => table.wrong(format_args!("has the same conditions as {first}, so it can never match")),
            None => {
                seen.insert(&route.matcher, table.path());
            }
        }
    }
}

fn route(table: &Table<'_>, declared: &Declared<'_>) -> Option<Route<Name>> {
    let host = match table.value("host") {
        None => Some(HostMatch::Any),
        Some(value) => value.read(syntax::HOST_FORM, syntax::host),
    };
    let path = path(table);
    let methods = table.value("methods").map(|value| {
        value.list(
            "a list of methods such as [\"GET\", \"POST\"]; leave it out for any",
            1..=METHODS_MAX,
            syntax::method,
        )
    });
    let headers = predicates(table, "headers", &keys::ROUTE_HEADER, syntax::header_name);
    let query = predicates(table, "query", &keys::ROUTE_QUERY, syntax::query_name);
    let cookies = predicates(table, "cookies", &keys::ROUTE_COOKIE, syntax::cookie_name);
    let timeout = table.value("timeout").and_then(|value| value.duration(TIMEOUT));
    let target = target(table, declared);
    let mut methods = methods.unwrap_or_default();
    methods.sort_unstable();
    let matcher = Matcher { host: host?, path: path?, methods, headers, query, cookies };
    Some(Route { matcher, target: target?, timeout, label: table.path().to_owned() })
}

fn path(table: &Table<'_>) -> Option<PathMatch> {
    let mut written = PATHS.into_iter().filter_map(|key| table.value(key));
    let Some(value) = written.next() else { return Some(PathMatch::Prefix(b"/".to_vec())) };
    let mut contradiction = false;
    for other in written {
        other.wrong(format_args!(
            "contradicts {}; a route has at most one of path, path_prefix and path_regex",
            value.key()
        ));
        contradiction = true;
    }
    let path = match value.key() {
        "path" => value.read(syntax::PATH_FORM, syntax::path).map(PathMatch::Exact),
        "path_prefix" => value.read(syntax::PATH_FORM, syntax::path).map(PathMatch::Prefix),
        _ => value.read(syntax::REGEX_FORM, syntax::regex).map(PathMatch::Regex),
    };
    path.filter(|_| !contradiction)
}

fn target(table: &Table<'_>, declared: &Declared<'_>) -> Option<Target<Name>> {
    let key = table.table("affinity", &keys::ROUTE_AFFINITY).map(|t| affinity_key(&t));
    match (table.value("service"), table.value("services")) {
        (None, None) => {
            table.wrong(
                "has no target; write service = \"NAME\" or services = [{ service = \"NAME\", weight = \"100%\" }]",
            );
            None
        }
        (Some(_), Some(services)) => {
            services.wrong("contradicts service; a route has one of service and services");
            None
        }
        (Some(service), None) => {
            if let Some(affinity) = table.value("affinity") {
                affinity.wrong(
                    "only a split over services has an affinity here; that of a service is in services.NAME.affinity",
                );
            }
            declared.read(service).map(Target::Service)
        }
        (None, Some(value)) => split(table, value, declared, key.unwrap_or_default()),
    }
}

fn affinity_key(table: &Table<'_>) -> Vec<KeySource> {
    let source = |text: &str| match syntax::key_source(text)? {
        KeySource::OwnCookie => {
            Err("a split has no cookie of its own; name one of the application: \"cookie:NAME\"".to_owned())
        }
        source => Ok(source),
    };
    let Some(value) = table.required("key", "a list such as [\"cookie:session\", \"client_ip\"]") else {
        return Vec::new();
    };
    value.list("a list such as [\"cookie:session\", \"client_ip\"]", 1..=KEYS_MAX, source)
}

fn split(
    table: &Table<'_>,
    value: Value<'_, '_>,
    declared: &Declared<'_>,
    key: Vec<KeySource>,
) -> Option<Target<Name>> {
    let parts = table.tables("services", &keys::ROUTE_SERVICE)?;
    if parts.is_empty() || parts.len() > PARTS_MAX {
        value.wrong(format_args!("{} services; a split has 1 to {PARTS_MAX}", parts.len()));
        return None;
    }
    let compiled: Vec<_> = parts.iter().filter_map(|part| split_part(part, declared)).collect();
    if compiled.len() != parts.len() {
        return None;
    }
    let names = compiled.iter().zip(&parts).map(|((_, name), part)| (name, part));
    super::refuse_repeated(names, "service", "listed twice");
    match Split::new(compiled) {
        Ok(split) => Some(Target::Split { split, key }),
        Err(sum) => {
            let (whole, rest) = (sum / u32::from(GRAINS / 100), sum % u32::from(GRAINS / 100));
            value.wrong(format_args!("the weights add up to {whole}.{rest:02}%, not to 100%"));
            None
        }
    }
}

fn split_part(part: &Table<'_>, declared: &Declared<'_>) -> Option<(Weight, Name)> {
    let service = part.required("service", "the name of a service").and_then(|value| declared.read(value));
    let weight = part.required("weight", "a share such as \"70%\"");
    let weight = weight.and_then(|value| value.read("a weight is a share such as \"5%\" or \"0.01%\"", Weight::parse));
    Some((weight?, service?))
}

// === impl Declared ===

impl Declared<'_> {
    /// The service `value` names.
    fn read(&self, value: Value<'_, '_>) -> Option<Name> {
        value.read("the name of a service", |text| {
            if !self.0.contains(text) {
                return Err(self.refusal(text));
            }
            Name::new(text).map_err(|bad| bad.to_string())
        })
    }

    fn refusal(&self, name: &str) -> String {
        if self.0.is_empty() {
            return "there are no services; declare it with [services.NAME.stable]".to_owned();
        }
        let known = keys::list(self.0.iter().copied());
        match keys::closest(name, self.0.iter().copied()) {
            Some(close) => format!("there is no such service; did you mean \"{close}\"? Known are {known}"),
            None => format!("there is no such service; known are {known}"),
        }
    }
}
