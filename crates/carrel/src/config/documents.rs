//! The documents that kubectl takes, read from files: `LearnerClass` and `Learner`.

use carrel_core::class::ClassSpec;
use carrel_core::learner::DesiredState;
use carrel_core::{ClassName, LearnerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Reads a document that names our group; the error is a sentence.
pub(crate) fn read(value: Value) -> Result<Document, String> {
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != API_VERSION {
        return Err(format!(
            "apiVersion '{api_version}' must be '{API_VERSION}'"
        ));
    }
    match kind.as_str() {
        "LearnerClass" => {
            let envelope: Envelope<ClassSpec> =
                serde_json::from_value(value).map_err(|error| error.to_string())?;
            let name = envelope
                .metadata
                .name
                .parse()
                .map_err(|e: carrel_core::id::Error| e.to_string())?;
            if let Some(violation) = envelope.spec.violations().first() {
                return Err(format!("LearnerClass '{name}': {violation}"));
            }
            Ok(Document::Class(Box::new(ClassDocument {
                name,
                spec: envelope.spec,
            })))
        }
        "Learner" => {
            let envelope: Envelope<LearnerSpec> =
                serde_json::from_value(value).map_err(|error| error.to_string())?;
            let id = |text: &str| {
                text.parse()
                    .map_err(|e: carrel_core::id::Error| e.to_string())
            };
            let class = envelope.spec.class_name.parse();
            Ok(Document::Learner(LearnerDocument {
                id: id(&envelope.metadata.name)?,
                class: class.map_err(|e: carrel_core::id::Error| e.to_string())?,
                state: envelope.spec.state,
            }))
        }
        _ => Err(format!("kind '{kind}' must be 'LearnerClass' or 'Learner'")),
    }
}
