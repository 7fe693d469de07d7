//! What a blank pod is told: whose it is, with everything that its sidecar needs to serve.

use carrel_core::{Epoch, LearnerId, PodUid};
use carrel_protocol::sidecar::Assignment;
use carrel_protocol::token;
use jiff::Timestamp;

use crate::options::Options;
use crate::world::Class;

pub(crate) fn signed(
    options: &Options,
    learner: &LearnerId,
    epoch: Epoch,
    pod: PodUid,
    class: &Class,
    now: Timestamp,
) -> Result<String, token::Error> {
    let may_go_out = !class.spec.egress.allow.is_empty();
    let assignment = Assignment {
        learner: learner.clone(),
        epoch,
        pod,
        token: options.signer.learner_token(learner, epoch, pod, now)?,
        vault: options.vault.clone(),
        router: options.router.clone(),
        authorities: options.trust.authorities(),
        egress: options.egress.clone().filter(|_| may_go_out),
        callers: options.callers.clone(),
        class: class.spec.clone(),
        time_zone: options.time_zone.clone(),
        locale: options.locale.clone(),
    };
    options.signer.assignment(&assignment, now)
}
