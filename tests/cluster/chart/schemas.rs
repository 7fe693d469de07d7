//! What an API server says of its kinds of objects, as JSON schemas that know every key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::cluster::ControlPlane;
use carrel_tests::eventually;
use serde_json::{Map, Value, json};

/// What the API server publishes of a definition is there by then.
const PUBLISHED_WITHIN: Duration = Duration::from_mins(1);

/// Writes a schema for the kind of each object: `GROUP/KIND_VERSION.json`, where the group of the core is `v1`.
pub(super) async fn write(
    plane: &ControlPlane,
    objects: &[Value],
    folder: &Path,
) -> anyhow::Result<()> {
    let mut kinds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for object in objects {
        let text = |key: &str| object[key].as_str().context("an object has a kind");
        kinds
            .entry(text("apiVersion")?)
            .or_default()
            .insert(text("kind")?);
    }
    for (api_version, kinds) in kinds {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let published = published(plane, api_version, &kinds).await?;
        let folder = folder.join(if group.is_empty() { version } else { group });
        std::fs::create_dir_all(&folder)?;
        for (kind, schema) in published {
            let file = format!("{}_{version}.json", kind.to_lowercase());
            std::fs::write(folder.join(file), schema.to_string())?;
        }
    }
    Ok(())
}

/// The schemas of these kinds.
async fn published(
    plane: &ControlPlane,
    api_version: &str,
    kinds: &BTreeSet<&str>,
) -> anyhow::Result<Vec<(String, Value)>> {
    let apis = if api_version.contains('/') {
        "apis"
    } else {
        "api"
    };
    let path = format!("/openapi/v3/{apis}/{api_version}");
    eventually(
        "the API server publishes schemas",
        PUBLISHED_WITHIN,
        || async {
            let request = http::Request::get(&path).body(Vec::new())?;
            // It answers 404 until it has heard of a definition.
            let Ok(document) = plane.client().request_text(request).await else {
                return Ok(None);
            };
            let document: Value = serde_json::from_str(&document)?;
            let all = document["components"]["schemas"].as_object();
            let all = all.context("an API has schemas")?;
            let of = |kind: &&str| Some(((*kind).to_owned(), schema_of(all, api_version, kind)?));
            let found: Vec<_> = kinds.iter().filter_map(of).collect();
            Ok((found.len() == kinds.len()).then_some(found))
        },
    )
    .await
    .with_context(|| format!("{path} has not all of {kinds:?}"))
}

/// The schema of a kind, with all that it refers to.
fn schema_of(all: &Map<String, Value>, api_version: &str, kind: &str) -> Option<Value> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let wanted = json!({"group": group, "version": version, "kind": kind});
    let is_wanted = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.contains(&wanted))
    };
    let mut schema = all.values().find(is_wanted)?.clone();
    let mut missing = strict(&mut schema);
    let mut definitions = Map::new();
    while let Some(name) = missing.pop() {
        if !definitions.contains_key(&name) {
            let mut definition = all.get(&name)?.clone();
            missing.extend(strict(&mut definition));
            definitions.insert(name, definition);
        }
    }
    schema["definitions"] = definitions.into();
    Some(schema)
}

/// Makes a schema refuse keys that it does not name, as the API server does when it is asked to be strict, and says which others
/// it refers to.
fn strict(schema: &mut Value) -> Vec<String> {
    let Some(schema) = schema.as_object_mut() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(Value::String(reference)) = schema.get_mut("$ref") {
        let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
        *reference = format!("#/definitions/{name}");
        found.push(name);
    }
    let is = |key: &str| schema.get(key).is_some_and(|value| *value == true);
    let takes_null = is("nullable");
    let takes_others =
        is("x-kubernetes-preserve-unknown-fields") || schema.contains_key("additionalProperties");
    if schema.contains_key("properties") && !takes_others {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    if let Some(kind) = schema.get_mut("type").filter(|_| takes_null) {
        *kind = json!([kind.take(), "null"]);
    }
    for (key, below) in schema {
        match (key.as_str(), below) {
            ("properties", Value::Object(properties)) => {
                found.extend(properties.values_mut().flat_map(strict));
            }
            ("items" | "additionalProperties", below) => found.extend(strict(below)),
            // A reference with words of its own; else a rule about keys that are named elsewhere.
            ("allOf", Value::Array(parts)) => {
                let references = parts.iter_mut().filter(|part| !part["$ref"].is_null());
                found.extend(references.flat_map(strict));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_schema_names_all_keys_wherever_they_stand() {
    let reference = |name: &str| json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}], "default": {}});
    let all = json!({
        "Pod": {
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
            "properties": {"spec": reference("Spec"), "kind": {"type": "string"}},
        },
        "Spec": {
            "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "anything": {"properties": {}, "x-kubernetes-preserve-unknown-fields": true},
                "again": {"items": reference("Spec")},
                "none": {"type": "object", "nullable": true, "properties": {}, "allOf": [{"properties": {}}]},
            },
        },
        "Other": {},
    });
    let all = all.as_object().unwrap();
    let schema = schema_of(all, "v1", "Pod").unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let spec = &schema["properties"]["spec"]["allOf"][0]["$ref"];
    assert_eq!(spec, "#/definitions/Spec");
    assert_eq!(schema["definitions"].as_object().unwrap().len(), 1);
    let spec = &schema["definitions"]["Spec"];
    assert_eq!(spec["additionalProperties"], false);
    let labels = &spec["properties"]["labels"];
    assert_eq!(labels["additionalProperties"], json!({"type": "string"}));
    let anything = &spec["properties"]["anything"];
    assert_eq!(anything["additionalProperties"], Value::Null);
    let none = &spec["properties"]["none"];
    assert_eq!(none["type"], json!(["object", "null"]));
    assert_eq!(none["additionalProperties"], false);
    assert_eq!(none["allOf"], json!([{"properties": {}}]));
    assert_eq!(schema_of(all, "v1", "Node"), None);
}
