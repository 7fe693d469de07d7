use kube::core::cel::ValidationErrors;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

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

/// The columns that k9s shows are columns of ours, or say where their value stands.
#[test]
fn the_columns_for_k9s_are_there() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/k9s/views.yaml");
    let views: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let views = views["views"].as_object().unwrap();
    let known: Vec<_> = definitions()
        .iter()
        .map(|one| format!("carrel.dev/v1alpha1/{}", one.spec.names.plural))
        .collect();
    assert!(views.keys().all(|kind| known.contains(kind)), "{known:?}");
    for (definition, kind) in definitions().iter().zip(&known) {
        let version = serde_json::to_value(&definition.spec.versions[0]).unwrap();
        let printed = version["additionalPrinterColumns"].as_array().unwrap();
        let mut names: Vec<String> = printed
            .iter()
            .map(|column| column["name"].as_str().unwrap().to_uppercase())
            .collect();
        names.push("NAME".to_owned());
        let columns = views[kind]["columns"].as_array().unwrap();
        assert!(columns.len() >= 6, "{kind}");
        for column in columns {
            let column = column.as_str().unwrap();
            let Some((_, path)) = column.split_once(":.") else {
                assert!(names.iter().any(|name| name == column), "{kind}: {column}");
                continue;
            };
            let pointer = path.replace('.', "/properties/");
            let schema = &version["schema"]["openAPIV3Schema"];
            let found = schema.pointer(&format!("/properties/{pointer}"));
            assert!(found.is_some(), "{kind}: {column}");
        }
    }
}

/// An object of a case of `tests/rules.yaml`.
fn object<K: DeserializeOwned>(case: &Value, state: &str) -> Option<K> {
    let name = case["name"].as_str().unwrap_or("one");
    let kind = &case["kind"];
    let object = json!({
        "apiVersion": "carrel.dev/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": case[state]["spec"], "status": case[state]["status"],
    });
    (!case[state].is_null()).then(|| serde_json::from_value(object).unwrap())
}

fn verdict<K: DeserializeOwned>(
    case: &Value,
    made: fn(&K) -> Result<(), ValidationErrors>,
    changed: fn(&K, &K) -> Result<(), ValidationErrors>,
) -> Result<(), ValidationErrors> {
    let now = object(case, "now").unwrap();
    object(case, "before").map_or_else(|| made(&now), |before| changed(&now, &before))
}

#[test]
fn rules_let_through_and_refuse_as_their_cases_say() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rules.yaml");
    let cases: Vec<Value> = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for case in cases {
        let verdict = match case["kind"].as_str().unwrap() {
            "Learner" => verdict(&case, Learner::validate_cel, Learner::validate_cel_update),
            "LearnerClass" => verdict(
                &case,
                LearnerClass::validate_cel,
                LearnerClass::validate_cel_update,
            ),
            kind => unreachable!("{kind}"),
        };
        let said = verdict.err().map(|errors| errors.to_string());
        match case["refused"].as_str() {
            Some(refused) => assert!(said.is_some_and(|said| said.contains(refused)), "{case}"),
            None => assert_eq!(said, None, "{case}"),
        }
    }
}
