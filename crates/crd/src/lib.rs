#![doc = include_str!("../README.md")]

pub mod class;
pub mod learner;
pub mod names;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use class::{LearnerClass, LearnerClassSpec};
pub use learner::{Learner, LearnerSpec, LearnerStatus, RestoreStatus};
pub use status::{Beside, from_status, into_status};

/// Why an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field holds what its schema does not allow, or a bound is broken.
    #[error("'{field}' {must}")]
    Field {
        /// Its path.
        field: String,
        /// What it must be.
        must: String,
    },
}

/// Both definitions, in the order in which they are applied.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [LearnerClass::crd(), Learner::crd()]
}

/// A definition as YAML, as `manifests/crds/` has it and kubectl takes it.
///
/// # Errors
/// When it cannot be written as YAML, which a test rules out.
pub fn to_yaml(
    definition: &CustomResourceDefinition,
) -> Result<String, serde_yaml::SerializeError> {
    serde_yaml::to_string(definition)
}

#[cfg(test)]
mod tests;
