//! What a pod is told of its learner with the head: only who has the store knows it, and whoever makes pods need not have one.

use aws_lc_rs::digest::{SHA256, digest};
use carrel_core::{LearnerId, RepositoryId};
use carrel_protocol::vault::Head;
use carrel_store::SharedStore;
use jiff::Timestamp;

use crate::{Error, Vault};

/// The idle window is reckoned from the gaps between so many messages.
const MESSAGES: u32 = 5;

impl Vault {
    /// The answer to a pod that asks for its head.
    pub(crate) async fn describe(
        &self,
        learner: &LearnerId,
        head: carrel_store::heads::Head,
        repository: RepositoryId,
    ) -> Result<Head, Error> {
        Ok(Head {
            generation: head.generation,
            snapshot_id: head.snapshot,
            repository,
            recent_gaps_seconds: recent_gaps(self.store(), learner).await?,
            opaque_learner: opaque(repository),
        })
    }
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
fn opaque(repository: RepositoryId) -> String {
    let name = digest(&SHA256, format!("carrel-learner:{repository}").as_bytes());
    hex::encode(&name.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_opaque_name_is_the_repositorys_and_shows_nothing_of_it() {
        let repository = RepositoryId(Uuid::from_u128(77));
        // Agents may keep what they know under it.
        assert_eq!(opaque(repository), "3558b8a9ab039ac3");
        assert_ne!(
            opaque(repository),
            opaque(RepositoryId(Uuid::from_u128(78)))
        );
    }
}
