//! `/openapi.json` and the routes are the same; what is answered is what it says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Api, Bounds, start};

/// The routes as the README lists them.
const README: &str = include_str!("../../../README.md");

async fn document(api: &Api) -> Value {
    let answer = api.get("/openapi.json").await;
    assert!(answer.status == 200 && answer.head.contains("content-type: application/json"), "{answer:?}");
    answer.json()
}

/// Method and path of every operation.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let each = paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("an item").keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    each.collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let api = start(Bounds::default()).await;
    let document = document(&api).await;
    let described = operations(&document);
    let table =
        README.split("<!-- admin-routes -->").nth(1).and_then(|rest| rest.split("<!-- /admin-routes -->").next());
    let listed: BTreeSet<String> = table.expect("a table").split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let listed = listed.into_iter().filter(|code| code.starts_with("GET /") || code.starts_with("POST /")).collect();
    assert_eq!(described, listed, "the document and the table of the README differ");
    for operation in described {
        let (method, path) = operation.split_once(' ').expect("two words");
        let path = path.replace("{service}", "web").replace("{endpoint}", "127.0.0.1:8001");
        let path = path.replace("{rollout}", "current");
        let exists = match method {
            "GET" => api.raw(&format!("HEAD {path} HTTP/1.1\nHost: localhost\nConnection: close"), "").await.status,
            _ => api.post(&path, "[]").await.status,
        };
        assert!(!matches!(exists, 404 | 405), "{operation}: {exists}");
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let api = start(Bounds::default()).await;
    let document = document(&api).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{at}: not the only one");
            assert!(operation["summary"].is_string(), "{at}");
            let named: BTreeSet<&str> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().expect("a name"));
            assert_eq!(in_path.collect::<BTreeSet<_>>(), named, "{at}");
            assert!(parameters.iter().all(|p| p["schema"].is_object() && p["description"].is_string()), "{at}");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.contains_key("200") && responses.contains_key("default"), "{at}");
            assert!(responses.values().all(|r| r["description"].is_string()), "{at}");
            let open = ["/healthz", "/readyz"].contains(&path.as_str());
            let role = if method == "get" { "viewer" } else { "operator" };
            assert_eq!(operation["security"][0]["token"][0].as_str(), (!open).then_some(role), "{at}");
        }
    }
    references(&document, &mut |reference| {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    });
}

fn references(value: &Value, see: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                see(reference);
            }
            map.values().for_each(|value| references(value, see));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, see)),
        _ => {}
    }
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let api = start(Bounds::default()).await;
    let document = document(&api).await;
    let (service, endpoint) = ("/v1/services/{service}", "/v1/services/{service}/endpoints/{endpoint}");
    let (drain, undrain) = (format!("{endpoint}/drain"), format!("{endpoint}/undrain"));
    let (rollouts, rollout) = (format!("{service}/rollouts"), format!("{service}/rollouts/{{rollout}}"));
    for (method, route, body) in [
        ("get", "/healthz", ""),
        ("get", "/readyz", ""),
        ("get", "/v1/status", ""),
        ("get", "/v1/services", ""),
        ("get", service, ""),
        ("get", "/v1/nothing", ""),
        ("post", &format!("{service}/weight"), r#"{"weight":"5%"}"#),
        ("post", &format!("{service}/weight"), r#"{"weight":"5"}"#),
        ("post", &drain, ""),
        ("get", "/v1/status", ""),
        ("post", &undrain, "{}"),
        ("get", &rollouts, ""),
        ("post", &format!("{service}/pause"), ""),
        ("get", "/v1/status", ""),
        ("post", &format!("{rollout}/resume"), r#"{"expected_step":0}"#),
        ("post", &format!("{rollout}/pause"), "{}"),
        ("post", &format!("{service}/promote"), r#"{"to":"full","force":true,"reason":"a test"}"#),
        ("get", service, ""),
        ("post", &format!("{rollout}/rollback"), ""),
        ("get", &rollouts, ""),
        ("post", &format!("{service}/retry"), r#"{"reason":"fixed"}"#),
        ("post", &format!("{service}/abort"), ""),
        ("get", service, ""),
        ("post", &rollouts, r#"{"candidate":{"version":"v3","endpoints":["127.0.0.1:8003"]}}"#),
        ("post", &rollouts, r#"{"candidate":{"version":"v4","endpoints":["127.0.0.1:8004"]}}"#),
        ("get", &rollouts, ""),
        ("post", &format!("{rollout}/abort"), ""),
        ("post", "/v1/config:validate", ""),
        ("post", "/v1/config:validate", r#"{"config":"x ="}"#),
        ("post", "/v1/config:reload", ""),
    ] {
        let path = route.replace("{service}", "web").replace("{endpoint}", "127.0.0.1:8001");
        let path = path.replace("{rollout}", "current");
        let answer = if method == "get" { api.get(&path).await } else { api.post(&path, body).await };
        let responses = &document["paths"][route][method]["responses"];
        let problem = &document["components"]["schemas"]["Problem"];
        let described = match responses.get(answer.status.to_string()).or(responses.get("default")) {
            Some(response) => response["content"].as_object().and_then(|c| c.values().next()).map(|c| &c["schema"]),
            None => Some(problem),
        };
        let described = described.unwrap_or_else(|| panic!("{method} {path}: no schema for {}", answer.status));
        let wrong = mismatch(&document, described, &answer.json(), "$");
        assert_eq!(wrong, None, "{method} {path}: {answer:?}");
    }
    let explained = api.get("/v1/explain?url=/a").await.json();
    assert_eq!(mismatch(&document, &document["components"]["schemas"]["Explained"], &explained, "$"), None);
    let event = serde_json::to_value(&api.bench.handle.events(1)[0]).expect("JSON");
    assert_eq!(mismatch(&document, &document["components"]["schemas"]["Event"], &event, "$"), None);
}

/// Where and why `value` is not what `schema` says (JSON Schema 2020-12, as far as the document uses it; a property that is not listed is
/// a mistake of the document).
fn mismatch(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect("checked elsewhere");
        return mismatch(document, target, value, at);
    }
    let known = [
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "oneOf",
        "description",
        "format",
        "minimum",
        "example",
        "additionalProperties",
        "maxLength",
        "pattern",
        "title",
    ];
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{at}: {schema} is no schema"));
    let unknown: Vec<_> = keywords.keys().filter(|key| !known.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "{at}: this test does not know {unknown:?}");
    if let Some(one_of) = schema["oneOf"].as_array() {
        let fit = one_of.iter().filter(|one| mismatch(document, one, value, at).is_none()).count();
        return (fit != 1).then(|| format!("{at}: {value} is {fit} of {schema}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{at}: {schema} says no type"),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(&is) {
        return Some(format!("{at}: {value} is {is}, not {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Some(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    match value {
        Value::Array(items) => {
            let mut each = items.iter().enumerate();
            each.find_map(|(i, item)| mismatch(document, &schema["items"], item, &format!("{at}[{i}]")))
        }
        Value::Object(members) => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let missing = required.iter().filter_map(Value::as_str).find(|name| !members.contains_key(*name));
            let each = || {
                members.iter().find_map(|(name, member)| match schema["properties"].get(name) {
                    Some(property) => mismatch(document, property, member, &format!("{at}.{name}")),
                    None => Some(format!("{at}.{name} is not described")),
                })
            };
            missing.map(|name| format!("{at}.{name} is missing")).or_else(each)
        }
        _ => None,
    }
}

#[test]
fn the_check_of_answers_sees_what_is_wrong() {
    let document = serde_json::json!({"components": {"schemas": {"W": {"type": "string", "enum": ["ok"]}}}});
    let schema = serde_json::json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "integer", "minimum": 0},
        "b": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/W"}},
        "c": {"oneOf": [{"type": "null"}, {"type": "boolean"}]}}});
    let check = |value: Value| mismatch(&document, &schema, &value, "$");
    assert_eq!(check(serde_json::json!({"a": 1, "b": ["ok"], "c": null})), None);
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({"a": "1"}),
        serde_json::json!({"a": 1.5}),
        serde_json::json!({"a": 1, "b": ["no"]}),
        serde_json::json!({"a": 1, "b": {}}),
        serde_json::json!({"a": 1, "c": 3}),
        serde_json::json!({"a": 1, "d": 3}),
    ] {
        assert!(check(wrong.clone()).is_some(), "{wrong}");
    }
}
