//! The table against the linear scan that defines it, and cases a reader can follow.

use proptest::prelude::*;

use super::*;
use crate::core::fields::FieldSource;
use crate::core::route::explain::{EXPLAIN_ROUTES_MAX, Lost, Near};
use crate::core::route::predicate::Miss;
use crate::core::route::rank::Criterion;
use crate::core::route::{FieldMatch, Matcher, Target, ValueMatch};

/// What precedence means: the greatest rank among the routes that take the request.
fn reference(routes: &[Route<usize>], subject: &Subject<'_>) -> Option<usize> {
    let takers = routes.iter().enumerate().filter(|(_, route)| route.matcher.takes(subject));
    takers.max_by_key(|(at, route)| Rank::of(&route.matcher, *at)).map(|(at, _)| at)
}

/// A route written as `[METHOD] HOST PATH [HEADER..]`, where a path is a prefix, `=exact` or `~regex`.
fn route(text: &str) -> Route<usize> {
    let mut words = text.split(' ').peekable();
    let methods = words.next_if(|w| w.bytes().all(|b| b.is_ascii_uppercase())).map(str::to_owned);
    let (host, path) = (words.next().expect("a host"), words.next().expect("a path"));
    let field = |name: &str| FieldMatch { name: name.to_owned(), value: ValueMatch::Present(true) };
    let matcher = Matcher {
        host: if host == "*" { HostMatch::Any } else { HostMatch::parse(host).expect(host) },
        path: match path.split_at(1) {
            ("=", exact) => PathMatch::Exact(exact.into()),
            ("~", regex) => PathMatch::Regex(regex::bytes::Regex::new(regex).expect(regex)),
            _ => PathMatch::Prefix(path.into()),
        },
        methods: methods.into_iter().collect(),
        headers: words.map(field).collect(),
        query: Vec::new(),
        cookies: Vec::new(),
    };
    Route { matcher, target: Target::Service(0), timeout: None, label: text.to_owned() }
}

fn table(routes: &[&str]) -> RouteTable {
    RouteTable::new(routes.iter().map(|text| route(text)).collect())
}

fn subject<'a>(method: &'a str, host: &'a str, path: &'a str, fields: &'a dyn FieldSource) -> Subject<'a> {
    Subject { host: host.as_bytes(), path: path.as_bytes(), method: method.as_bytes(), query: None, fields }
}

const ROUTES: [&str; 12] = [
    "* /",
    "*.example.com /",
    "*.shop.example.com /x",
    "shop.example.com /api",
    "shop.example.com =/api",
    "shop.example.com /api/v1/",
    "shop.example.com ~^/v[0-9]+/",
    "POST shop.example.com ~^/v1/",
    "shop.example.com /api x-a",
    "shop.example.com /api x-a x-b",
    "GET shop.example.com /api",
    "GET only.com /m",
];

#[test]
fn the_most_specific_route_wins() {
    let table = table(&ROUTES);
    for (request, found) in [
        ("POST shop.example.com /api", Some("shop.example.com =/api")),
        ("POST shop.example.com /api/", Some("shop.example.com /api")),
        ("GET shop.example.com /api/x", Some("GET shop.example.com /api")),
        ("GET shop.example.com /api/x x-a", Some("shop.example.com /api x-a")),
        ("GET shop.example.com /api/x x-a x-b", Some("shop.example.com /api x-a x-b")),
        ("GET shop.example.com /api/v1", Some("shop.example.com /api/v1/")),
        ("GET shop.example.com /api/v1/y x-a", Some("shop.example.com /api/v1/")),
        ("GET shop.example.com /api/v11", Some("GET shop.example.com /api")),
        ("POST shop.example.com /v1/x", Some("shop.example.com ~^/v[0-9]+/")),
        // Falls through to the next host, and to the next.
        ("GET shop.example.com /apix", Some("*.example.com /")),
        ("GET a.shop.example.com /x/y", Some("*.shop.example.com /x")),
        ("GET a.shop.example.com /y", Some("*.example.com /")),
        ("GET example.com /x", Some("* /")),
        ("GET nowhere.org /", Some("* /")),
        ("OPTIONS shop.example.com *", Some("*.example.com /")),
        // But for its method it would match: it does not.
        ("PUT only.com /m", Some("* /")),
    ] {
        let words: Vec<&str> = request.split(' ').collect();
        let fields: Vec<(&str, &str)> = words[3..].iter().map(|&name| (name, "1")).collect();
        let subject = subject(words[0], words[1], words[2], &fields);
        assert_eq!(table.find(&subject).map(|r| r.label.as_str()), found, "{request}");
        assert_eq!(table.find_index(&subject), reference(table.routes(), &subject), "{request}");
    }
}

#[test]
fn without_a_route_for_the_method_there_is_none() {
    let (table, none) = (table(&["GET only.com /m"]), Vec::<(&str, &str)>::new());
    assert!(table.find(&subject("GET", "only.com", "/m", &none)).is_some());
    assert!(table.find(&subject("PUT", "only.com", "/m", &none)).is_none());
    assert!(RouteTable::new(Vec::new()).find(&subject("GET", "", "/", &none)).is_none());
}

#[test]
fn explain_says_why_and_what_else_there_was() {
    let table = table(&ROUTES);
    let fields = vec![("x-a", "1")];
    let explained = table.explain(&subject("POST", "shop.example.com", "/api/x", &fields));
    assert_eq!((explained.found, explained.won_by), (Some(8), Some(Criterion::Predicates)));
    let lost = |route, by| Lost { route, by };
    assert_eq!(
        explained.lost,
        [lost(3, Criterion::Predicates), lost(1, Criterion::Host), lost(0, Criterion::Host)],
        "the best first"
    );
    let near = |route, miss| Near { route, miss };
    assert_eq!(explained.near, [near(9, Miss::Header("x-b")), near(10, Miss::Method)]);
    assert_eq!(explained.omitted, 0);
}

#[test]
fn explain_is_bounded() {
    let (table, none) = (table(&["* /"; EXPLAIN_ROUTES_MAX + 3]), Vec::<(&str, &str)>::new());
    let explained = table.explain(&subject("GET", "a", "/", &none));
    assert_eq!((explained.lost.len(), explained.omitted), (EXPLAIN_ROUTES_MAX, 2));
    assert_eq!(explained.won_by, Some(Criterion::FileOrder));
}

fn hosts() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "ab"], 1..4).prop_map(|labels| labels.join("."))
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("/".to_owned()),
        6 => proptest::collection::vec(prop_oneof!["a", "b", "ab", ""], 1..5).prop_map(|s| format!("/{}", s.join("/"))),
    ]
}

fn routes() -> impl Strategy<Value = Route<usize>> {
    let host = prop_oneof![
        2 => Just("*".to_owned()),
        3 => hosts().prop_map(|h| format!("*.{h}")),
        5 => hosts(),
    ];
    let path = prop_oneof![
        3 => paths(),
        3 => paths().prop_map(|p| format!("={p}")),
        1 => proptest::sample::select(vec!["~a", "~^/a/", "~b$"]).prop_map(str::to_owned),
    ];
    let method = prop_oneof![3 => Just(""), 1 => Just("GET "), 1 => Just("POST ")];
    let fields = prop_oneof![4 => Just(""), 2 => Just(" x-a"), 1 => Just(" x-b"), 1 => Just(" x-a x-b")];
    (method, host, path, fields).prop_map(|(m, h, p, f)| route(&format!("{m}{h} {p}{f}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_agrees_with_the_linear_scan(
        routes in proptest::collection::vec(routes(), 0..24),
        host in prop_oneof![9 => hosts(), 1 => Just(String::new())],
        path in prop_oneof![9 => paths(), 1 => Just("*".to_owned())],
        get: bool,
        fields in proptest::collection::vec(prop_oneof![Just(("x-a", "1")), Just(("X-B", "1"))], 0..3),
    ) {
        let subject = subject(if get { "GET" } else { "POST" }, &host, &path, &fields);
        let expected = reference(&routes, &subject);
        let table = RouteTable::new(routes);
        prop_assert_eq!(table.find_index(&subject), expected);
        prop_assert_eq!(table.explain(&subject).found, expected);
    }
}
