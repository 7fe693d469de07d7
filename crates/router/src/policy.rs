//! What a caller may use and spend: for a learner, what its class says.

use std::collections::BTreeMap;
use std::sync::Arc;

use carrel_core::class::{Budget, ClassSpec, DEFAULT_CLASS};
use carrel_core::{ClassName, LearnerId};
use carrel_store::SharedStore;

/// What a learner's class says of models, money and hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Route name to `provider/model`; these win over the operator's.
    pub routes: BTreeMap<String, String>,
    /// Patterns of `provider/model`; empty: whatever the routes name.
    pub allow: Vec<String>,
    /// The bounds.
    pub budget: Budget,
    /// Hosts and networks that the egress port lets it reach.
    pub egress: Vec<String>,
}

impl From<ClassSpec> for Policy {
    fn from(spec: ClassSpec) -> Self {
        Self {
            routes: spec.models.routes,
            allow: spec.models.allow,
            budget: spec.budget,
            egress: spec.egress.allow,
        }
    }
}

/// Why a policy cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No such learner, or it is being erased.
    #[error("there is no learner '{0}'")]
    NoLearner(LearnerId),
    /// Its class has no document.
    #[error("there is no class '{0}'")]
    NoClass(ClassName),
    /// The store could not answer.
    #[error("reading a learner's class")]
    Store(#[from] carrel_store::Error),
}

/// Tells what a learner may use and spend now.
#[async_trait::async_trait]
pub trait LearnerPolicy: Send + Sync {
    /// The policy of one learner.
    async fn policy(&self, learner: &LearnerId) -> Result<Policy, PolicyError>;
}

/// Policies from the class documents in the store.
#[derive(Clone)]
pub struct StorePolicy(pub SharedStore);

#[async_trait::async_trait]
impl LearnerPolicy for StorePolicy {
    async fn policy(&self, learner: &LearnerId) -> Result<Policy, PolicyError> {
        let class = self.0.class_of(learner).await?;
        let class = class.ok_or_else(|| PolicyError::NoLearner(learner.clone()))?;
        match self.0.class(&class).await? {
            Some(spec) => Ok(spec.into()),
            None if class.as_str() == DEFAULT_CLASS => Ok(ClassSpec::default().into()),
            None => Err(PolicyError::NoClass(class)),
        }
    }
}

#[async_trait::async_trait]
impl<T: LearnerPolicy + ?Sized> LearnerPolicy for Arc<T> {
    async fn policy(&self, learner: &LearnerId) -> Result<Policy, PolicyError> {
        (**self).policy(learner).await
    }
}
