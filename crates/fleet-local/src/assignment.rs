//! What a blank pod is told: whose it is, with everything that its sidecar needs to serve.

use carrel_core::class::ClassSpec;
use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_protocol::sidecar::Assignment;
use carrel_protocol::token;
use jiff::Timestamp;

use crate::fleet::Shared;

/// The assignment, signed.
pub(crate) fn signed(
    shared: &Shared,
    learner: &LearnerId,
    epoch: Epoch,
    pod: PodUid,
    class: &ClassSpec,
    now: Timestamp,
) -> Result<String, token::Error> {
    let signer = &shared.ground.signer;
    let assignment = Assignment {
        learner: learner.clone(),
        epoch,
        pod,
        token: signer.learner_token(learner, epoch, pod, now)?,
        vault: shared.vault.clone(),
        router: shared.router.clone(),
        authorities: shared.trust.authorities(),
        egress: None,
        callers: shared.callers.clone(),
        class: class.clone(),
        time_zone: shared.time_zone.clone(),
        locale: shared.locale.clone(),
    };
    signer.assignment(&assignment, now)
}
