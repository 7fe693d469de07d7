use serde_json::Value;

use super::*;

/// `manifests/crds/` beside the crates.
fn published(definition: &CustomResourceDefinition) -> std::path::PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/crds");
    let name = definition.metadata.name.clone().unwrap();
    std::path::Path::new(folder).join(format!("{name}.yaml"))
}

/// `CARREL_WRITE_MANIFESTS=1 cargo test -p carrel-crd` writes them anew.
#[test]
fn the_published_definitions_are_those_of_this_crate() {
    for definition in definitions() {
        let (path, yaml) = (published(&definition), to_yaml(&definition).unwrap());
        if std::env::var_os("CARREL_WRITE_MANIFESTS").is_some() {
            std::fs::write(&path, &yaml).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == yaml,
            "{} is not what the crate says",
            path.display()
        );
        assert!(yaml.len() < 256 * 1024, "too large for client-side apply");
    }
}

/// Calls `each` with the path and the schema of every field.
fn walk(path: &str, schema: &Value, each: &mut dyn FnMut(&str, &Value)) {
    each(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, each);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            walk(&format!("{path}[]"), &schema[part], each);
        }
    }
}

fn fields() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for definition in definitions() {
        let value = serde_json::to_value(&definition).unwrap();
        let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let kind = value["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        for part in ["spec", "status"] {
            let schema = &schema["properties"][part];
            if schema.is_object() {
                walk(&format!("{kind}.{part}"), schema, &mut |path, schema| {
                    found.push((path.to_owned(), schema.clone()));
                });
            }
        }
    }
    found
}

#[test]
fn every_field_is_described() {
    let bare = fields().into_iter().filter(|(path, schema)| {
        !path.ends_with("[]") && schema["description"].as_str().is_none_or(str::is_empty)
    });
    let bare: Vec<_> = bare.map(|(path, _)| path).collect();
    assert_eq!(bare, [""; 0]);
}

#[test]
fn every_text_list_map_and_number_is_bounded() {
    let unbounded = fields()
        .into_iter()
        .filter(|(_, schema)| match schema["type"].as_str() {
            Some("string") => {
                schema["maxLength"].is_null()
                    && schema["enum"].is_null()
                    && schema["format"] != "date-time"
            }
            Some("array") => schema["maxItems"].is_null(),
            Some("integer") => schema["minimum"].is_null(),
            Some("object") => {
                !schema["additionalProperties"].is_null() && schema["maxProperties"].is_null()
            }
            _ => false,
        });
    let unbounded: Vec<_> = unbounded.map(|(path, _)| path).collect();
    assert_eq!(unbounded, [""; 0]);
}
