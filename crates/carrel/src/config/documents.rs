//! The documents that kubectl takes, read from files: `LearnerClass` and `Learner`.

use std::str::FromStr;

use carrel_core::class::ClassSpec;
use carrel_core::learner::DesiredState;
use carrel_core::{ClassName, LearnerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::located::{Fault, typed};

/// The group and version of our documents.
pub(crate) const API_VERSION: &str = "carrel.dev/v1alpha1";

/// A class with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassDocument {
    pub(crate) name: ClassName,
    pub(crate) spec: ClassSpec,
}

/// A learner with its class and wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LearnerDocument {
    pub(crate) id: LearnerId,
    pub(crate) class: ClassName,
    pub(crate) state: DesiredState,
}

/// One document of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Class(Box<ClassDocument>),
    Learner(LearnerDocument),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LearnerSpec {
    class_name: String,
    #[serde(default)]
    state: DesiredState,
}

/// Reads a document that names our group.
pub(super) fn read(value: Value) -> Result<Document, Fault> {
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != API_VERSION {
        let what = format!("'{api_version}' must be '{API_VERSION}'");
        return Err(Fault::new("apiVersion", what));
    }
    match kind.as_str() {
        "LearnerClass" => {
            let envelope: Envelope<ClassSpec> = typed(value)?;
            let name = named("metadata.name", &envelope.metadata.name)?;
            if let Some(violation) = envelope.spec.violations().first() {
                return Err(Fault::new(violation.field, &violation.must));
            }
            Ok(Document::Class(Box::new(ClassDocument {
                name,
                spec: envelope.spec,
            })))
        }
        "Learner" => {
            let envelope: Envelope<LearnerSpec> = typed(value)?;
            Ok(Document::Learner(LearnerDocument {
                id: named("metadata.name", &envelope.metadata.name)?,
                class: named("spec.className", &envelope.spec.class_name)?,
                state: envelope.spec.state,
            }))
        }
        _ => {
            let what = format!("'{kind}' must be 'LearnerClass' or 'Learner'");
            Err(Fault::new("kind", what))
        }
    }
}

fn named<T: FromStr<Err = carrel_core::id::Error>>(path: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error| Fault::new(path, error))
}
