//! Invariant 8, secrets stay home: which role may hold which secret, as one table.

use crate::id::LearnerId;

/// Who may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The gateway.
    Gateway,
    /// The fleet: controller, or the local one.
    Fleet,
    /// The router.
    Router,
    /// The vault.
    Vault,
    /// The sidecar of this learner.
    Sidecar(LearnerId),
    /// The shim and the agent of a learner, and every file in their reach.
    Agent(LearnerId),
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// A key of a model provider.
    ProviderKey,
    /// A key of the object storage.
    BucketKey,
    /// The key that wraps data keys.
    KeyEncryptionKey,
    /// The key that signs learners' tokens.
    SigningKey,
    /// What opens the store.
    StoreAccess,
    /// A channel's secret.
    ChannelSecret,
    /// The token of one incarnation of a learner.
    LearnerToken(LearnerId),
    /// The data key of a learner's repository.
    DataKey(LearnerId),
}

/// Whether a role may hold a secret.
pub fn may_hold(holder: &Holder, secret: &Secret) -> bool {
    match (holder, secret) {
        (Holder::Gateway, secret) => matches!(secret, Secret::ChannelSecret | Secret::StoreAccess),
        (Holder::Fleet, secret) => matches!(secret, Secret::SigningKey | Secret::LearnerToken(_)),
        (Holder::Router, secret) => matches!(secret, Secret::ProviderKey | Secret::StoreAccess),
        (Holder::Vault, secret) => matches!(
            secret,
            Secret::BucketKey | Secret::KeyEncryptionKey | Secret::StoreAccess | Secret::DataKey(_)
        ),
        (Holder::Sidecar(own), Secret::LearnerToken(of) | Secret::DataKey(of)) => own == of,
        (Holder::Agent(_), _)
        | (
            Holder::Sidecar(_),
            Secret::ProviderKey
            | Secret::BucketKey
            | Secret::KeyEncryptionKey
            | Secret::SigningKey
            | Secret::StoreAccess
            | Secret::ChannelSecret,
        ) => false,
    }
}

/// 8: nobody holds what is not theirs.
pub fn secrets_stay_home<'a>(holdings: impl IntoIterator<Item = (&'a Holder, &'a Secret)>) -> bool {
    holdings
        .into_iter()
        .all(|(holder, secret)| may_hold(holder, secret))
}
