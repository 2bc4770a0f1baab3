//! docs/openapi.yaml against what is really answered: same paths, same parameters, same fields of
//! the same types.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_yaml::from_str(OPENAPI).unwrap()
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// Every way in which a value is not what the schema says. A field that is not described is one.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str, into: &mut Vec<String>) {
    let schema = resolve(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    };
    if !allowed {
        into.push(format!("{at} is {value}, not {}", schema["type"]));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        into.push(format!("{at} is {value}, none of {words:?}"));
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            differences(
                document,
                &schema["items"],
                item,
                &format!("{at}[{index}]"),
                into,
            );
        }
    }
    // An object without properties is described elsewhere (an event line).
    let (Some(fields), true) = (
        value.as_object(),
        schema["properties"].is_object() || schema["additionalProperties"].is_object(),
    ) else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            into.push(format!("{at} lacks {required}"));
        }
    }
    for (key, field) in fields {
        let described = match &schema["properties"][key] {
            Value::Null => &schema["additionalProperties"],
            described => described,
        };
        if described.is_null() {
            into.push(format!("{at}.{key} is not described"));
        } else {
            differences(document, described, field, &format!("{at}.{key}"), into);
        }
    }
}

/// The path in the document of a route.
fn documented(route: &Route) -> String {
    match route.path {
        "/api/v1/leases/" => "/api/v1/leases/{handle}".to_owned(),
        "/api/v1/incidents/" => "/api/v1/incidents/{incident}".to_owned(),
        path => path.to_owned(),
    }
}

#[test]
fn it_has_every_path_and_method() {
    let document = document();
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<String> = ROUTES
        .iter()
        .flat_map(|route| {
            let methods = route.allow.split(", ").filter(|method| *method != "HEAD");
            methods.map(|method| format!("{method} {}", documented(route)))
        })
        .collect();
    assert_eq!(described, served);
}

#[tokio::test]
async fn what_is_answered_is_what_it_says() {
    let (sources, publisher) = sources(10 * SECOND);
    publish_owned(&publisher);
    let late = Sample::late(1).to(Outcome::Stage(Stage::AtRisk));
    say(&sources, Mono(9 * SECOND), &late.note());
    let mut incidents = crate::sinks::incidents::Incidents::default();
    let opened = incidents
        .step(Mono(9 * SECOND), &late.note())
        .opened
        .unwrap();
    sources.ledger.incident(Mono(9 * SECOND), &opened, false);
    let document = document();
    let mut wrong = Vec::new();
    for (path, asked) in [
        ("/api/v1/overview", "/api/v1/overview"),
        ("/api/v1/leases", "/api/v1/leases?limit=1"),
        ("/api/v1/leases", "/api/v1/leases?sort=risk"),
        ("/api/v1/leases/{handle}", "/api/v1/leases/1"),
        ("/api/v1/leases/{handle}", "/api/v1/leases/99"),
        ("/api/v1/incidents", "/api/v1/incidents"),
        ("/api/v1/incidents/{incident}", "/api/v1/incidents/1"),
        ("/api/v1/incidents/{incident}", "/api/v1/incidents/99"),
        ("/api/v1/events", "/api/v1/events"),
        ("/api/v1/mine", "/api/v1/mine?pid=7"),
        ("/api/v1/mine", "/api/v1/mine?pid=8"),
        ("/api/v1/mine", "/api/v1/mine?pid=7&wait=at_risk"),
        ("/api/v1/mine", "/api/v1/mine"),
    ] {
        let (status, text) = get(asked, &sources).await;
        let response = &document["paths"][path]["get"]["responses"][status.to_string()];
        let response = resolve(&document, response);
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{status} of {path} is not described");
        let value: Value = serde_json::from_str(&text).unwrap();
        differences(&document, schema, &value, asked, &mut wrong);
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn parameters_are_the_ones_it_has() {
    let (sources, _publisher) = sources(10 * SECOND);
    for (path, methods) in document()["paths"].as_object().unwrap() {
        if path.contains('{') {
            continue;
        }
        let empty = Vec::new();
        let described: BTreeSet<&str> = methods["get"]["parameters"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        if described.is_empty() {
            continue;
        }
        let (status, text) = get(&format!("{path}?unheard_of=1"), &sources).await;
        assert_eq!(status, 400, "{path}");
        let (_, known) = text.split_once("known: ").unwrap();
        let known: BTreeSet<&str> = known.trim_end_matches("\"}\n").split(", ").collect();
        assert_eq!(known, described, "{path}");
    }
}

#[test]
fn a_difference_is_found() {
    let document = document();
    let mut wrong = Vec::new();
    let schema = &document["components"]["schemas"]["Counts"];
    let value = json!({"healthy": 1, "late": "2", "at_risk": 0, "jeopardy": 0, "more": 1});
    differences(&document, schema, &value, "counts", &mut wrong);
    assert_eq!(
        wrong,
        [
            "counts lacks \"lapsed\"",
            "counts.late is \"2\", not \"integer\"",
            "counts.more is not described",
        ]
    );
}
