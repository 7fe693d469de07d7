//! Letting somebody in: a fresh secret is kept until it expires. What has expired is removed then, as no timer does it: who
//! lets nobody in keeps no more than there is.

use std::sync::Mutex;

use carrel_store::access::{SecretKind, Subject};
use jiff::{SignedDuration, Timestamp};

use crate::gateway::Gateway;
use crate::refusal::Result;
use crate::secret;

/// Between two sweeps of what has expired.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// When expired secrets were last removed.
#[derive(Debug, Default)]
pub(crate) struct Swept(Mutex<Option<Timestamp>>);

impl Swept {
    /// Whether it is time to sweep; who hears so sweeps.
    fn is_due(&self, now: Timestamp) -> bool {
        let mut last = match self.0.lock() {
            Ok(last) => last,
            Err(poisoned) => poisoned.into_inner(),
        };
        let is_due = last.is_none_or(|last| now.duration_since(last) >= SWEEP_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// A fresh secret for so many seconds, and when it expires. `None`: there is no such learner, or it is being erased.
pub(crate) async fn grant(
    gateway: &Gateway,
    kind: SecretKind,
    subject: &Subject,
    seconds: i64,
) -> Result<Option<(String, Timestamp)>> {
    let (store, now) = (&gateway.options.store, gateway.now());
    if gateway.swept.is_due(now)
        && let Err(error) = store.sweep_access(now).await
    {
        tracing::warn!(%error, "what has expired stays until the next sweep");
    }
    let (secret, expires) = (secret::fresh(), now + SignedDuration::from_secs(seconds));
    let hash = secret::hash_of(&secret);
    let granted = store.grant(hash, kind, subject, now, expires).await?;
    Ok(granted.then_some((secret, expires)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_swept_at_the_first_grant_and_then_once_in_some_minutes() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let swept = Swept::default();
        assert!(swept.is_due(at(1_000)));
        assert!(!swept.is_due(at(1_000)));
        assert!(!swept.is_due(at(1_599)));
        assert!(swept.is_due(at(1_600)));
        assert!(!swept.is_due(at(2_199)));
    }
}
