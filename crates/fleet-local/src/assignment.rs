//! What a blank pod is told: whose it is, with everything that its sidecar needs to serve.

use carrel_core::class::ClassSpec;
use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_protocol::sidecar::Assignment;
use carrel_store::SharedStore;
use carrel_store::learners::Learner;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::fleet::Shared;

/// The idle window is reckoned from the gaps between so many messages.
const MESSAGES: u32 = 5;

/// Why an assignment could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the learner's last messages could not be read")]
    Store(#[from] carrel_store::Error),
    #[error("it could not be signed")]
    Token(#[from] carrel_protocol::token::Error),
}

pub(crate) async fn signed(
    shared: &Shared,
    learner: &Learner,
    epoch: Epoch,
    pod: PodUid,
    class: &ClassSpec,
    now: Timestamp,
) -> Result<String, Error> {
    let signer = &shared.ground.signer;
    let assignment = Assignment {
        learner: learner.id.clone(),
        epoch,
        pod,
        token: signer.learner_token(&learner.id, epoch, pod, now)?,
        vault: shared.vault.clone(),
        router: shared.router.clone(),
        authorities: shared.trust.authorities(),
        egress: None,
        callers: shared.callers.clone(),
        class: class.clone(),
        recent_gaps_seconds: recent_gaps(&shared.store, &learner.id).await?,
        opaque_learner: opaque(learner),
        time_zone: shared.time_zone.clone(),
        locale: shared.locale.clone(),
    };
    Ok(signer.assignment(&assignment, now)?)
}

/// Seconds between the learner's last messages, in their order.
async fn recent_gaps(
    store: &SharedStore,
    learner: &LearnerId,
) -> Result<Vec<u32>, carrel_store::Error> {
    let turns = store.history(learner, None, MESSAGES).await?;
    let times: Vec<Timestamp> = turns.iter().map(|turn| turn.message.sent_time).collect();
    let seconds = |pair: &[Timestamp]| pair[1].duration_since(pair[0]).as_secs();
    let gaps = times.windows(2).map(seconds);
    Ok(gaps.map(|gap| u32::try_from(gap).unwrap_or(0)).collect())
}

/// A name for the learner that tells the agent nothing and stays the same while its repository does.
fn opaque(learner: &Learner) -> String {
    let digest = Sha256::digest(format!("carrel-learner:{}", learner.repository));
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carrel_core::{MessageId, TurnId};
    use carrel_store::learners::NewLearner;
    use carrel_store::turns::NewMessage;
    use carrel_store_sqlite::SqliteStore;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_pod_is_told_the_gaps_between_its_learners_last_five_messages() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        let store: SharedStore = Arc::new(store.unwrap());
        let at = |second: i64| Timestamp::from_second(1_783_591_200 + second).unwrap();
        let new = NewLearner {
            id: "ada".parse().unwrap(),
            class: "plain".parse().unwrap(),
            aliases: Vec::new(),
        };
        store.create_learner(&new, at(0)).await.unwrap();
        assert!(recent_gaps(&store, &new.id).await.unwrap().is_empty());
        for (key, second) in [
            (1, 7),
            (2, 1000),
            (3, 1010),
            (4, 1030),
            (5, 1060),
            (6, 1100),
        ] {
            let message = NewMessage {
                learner: new.id.clone(),
                message_id: MessageId(Uuid::from_u128(key)),
                turn_id: TurnId(Uuid::from_u128(100 + key)),
                idempotency_key: key.to_string(),
                body_hash: [0; 32],
                channel: "web".to_owned(),
                text: "hello".to_owned(),
                attachments: Vec::new(),
                max_queued: 20,
            };
            store.accept(&message, at(second)).await.unwrap();
        }
        let gaps = recent_gaps(&store, &new.id).await.unwrap();
        assert_eq!(gaps, [10, 20, 30, 40]);
    }
}
