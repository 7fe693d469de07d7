//! What a blank pod is told: whose it is, with everything that its sidecar needs to serve.

use carrel_core::class::ClassSpec;
use carrel_core::{Epoch, PodUid};
use carrel_protocol::sidecar::Assignment;
use carrel_store::learners::Learner;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::fleet::Shared;

/// How many gaps between messages the idle window is reckoned from.
const GAPS: u32 = 5;

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
    let turns = shared.store.history(&learner.id, None, GAPS + 1).await?;
    let times: Vec<Timestamp> = turns.iter().map(|turn| turn.message.sent_time).collect();
    let recent_gaps_seconds = times
        .windows(2)
        .map(|pair| u32::try_from(pair[1].duration_since(pair[0]).as_secs()).unwrap_or(0))
        .collect();
    let assignment = Assignment {
        learner: learner.id.clone(),
        epoch,
        pod,
        token: signer.learner_token(&learner.id, epoch, pod, now)?,
        vault: shared.vault.clone(),
        router: shared.router.clone(),
        egress: None,
        callers: shared.callers.clone(),
        class: class.clone(),
        recent_gaps_seconds,
        opaque_learner: opaque(learner),
        time_zone: shared.time_zone.clone(),
        locale: shared.locale.clone(),
    };
    Ok(signer.assignment(&assignment, now)?)
}

/// A name for the learner that tells the agent nothing and stays the same while its repository does.
fn opaque(learner: &Learner) -> String {
    let digest = Sha256::digest(format!("carrel-learner:{}", learner.repository));
    hex::encode(&digest[..8])
}
