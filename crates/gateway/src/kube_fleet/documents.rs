//! The objects as documents: made, changed and deleted for operators who use Carrel's own tools.

use std::collections::HashSet;
use std::time::Duration;

use carrel_core::{ClassName, LearnerId};
use carrel_crd::names;
use carrel_protocol::fleet::Error;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::KubeFleet;
use super::calls::{Failed, away, refused, within};

/// Between looks at an object that does not go yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many are looked for one by one; more are listed.
const ONE_BY_ONE: usize = 20;
const PAGE: u32 = 2000;

impl KubeFleet {
    /// Makes the learner's object, or changes its class where nobody else has that in hand.
    pub(super) async fn apply(&self, learner: &LearnerId, class: &ClassName) -> Result<(), Error> {
        let object = json!({
            "apiVersion": api_version(),
            "kind": "Learner",
            "metadata": {"name": learner},
            "spec": {"className": class},
        });
        self.0.parts.writes.count("learners", "patch");
        let (name, params) = (learner.as_str(), PatchParams::apply(names::ADMIN));
        let applied = within(self.0.learners.patch(name, &params, &Patch::Apply(object))).await;
        let applied = applied.map_err(|failed| because("applying a learner's object", failed))?;
        self.0.absent.invalidate(learner).await;
        self.take(applied);
        Ok(())
    }

    /// Deletes the learner's object and waits until it is gone. Its pod goes after it: the store's fence, which erasing has
    /// raised before, lets that pod write, spend and read nothing any more.
    pub(super) async fn delete(&self, learner: &LearnerId) -> Result<(), Error> {
        let doing = "deleting a learner's object";
        loop {
            let there = within(self.0.learners.get_metadata_opt(learner.as_str())).await;
            let Some(there) = there.map_err(|failed| away(doing, failed))? else {
                return Ok(());
            };
            if there.metadata.deletion_timestamp.is_none() {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: there.metadata.uid,
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                self.0.parts.writes.count("learners", "delete");
                match within(self.0.learners.delete(learner.as_str(), &params)).await {
                    // It is gone at once where nothing holds it, which the next look says.
                    Ok(_) => continue,
                    Err(failed) => match refused(&failed) {
                        Some(refused) if refused.is_not_found() => return Ok(()),
                        // It was made anew since.
                        Some(refused) if refused.is_conflict() => {}
                        _ => return Err(away(doing, failed)),
                    },
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Which of these have an object now, whatever the watch has shown: one that was erased must not come back by what is kept
    /// of its object.
    pub(super) async fn confirmed(
        &self,
        learners: &[LearnerId],
    ) -> Result<HashSet<LearnerId>, Error> {
        let doing = "looking whether learners have objects";
        let mut there = HashSet::new();
        if learners.len() <= ONE_BY_ONE {
            for learner in learners {
                let object = within(self.0.learners.get_metadata_opt(learner.as_str())).await;
                let object = object.map_err(|failed| away(doing, failed))?;
                if object.is_some_and(|object| object.metadata.deletion_timestamp.is_none()) {
                    there.insert(learner.clone());
                }
            }
            return Ok(there);
        }
        let wanted: HashSet<&str> = learners.iter().map(LearnerId::as_str).collect();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = within(self.0.learners.list_metadata(&params)).await;
            let page = page.map_err(|failed| away(doing, failed))?;
            let staying = page
                .items
                .into_iter()
                .filter(|object| object.metadata.deletion_timestamp.is_none());
            let names = staying.filter_map(|object| object.metadata.name);
            let names = names.filter(|name| wanted.contains(name.as_str()));
            there.extend(names.filter_map(|name| name.parse::<LearnerId>().ok()));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(there),
            }
        }
    }
}

fn api_version() -> String {
    format!("{}/{}", names::GROUP, names::VERSION)
}

/// What another has in hand, or a rule forbids, is no outage.
fn because(doing: &'static str, failed: Failed) -> Error {
    match refused(&failed) {
        Some(refused) if refused.is_conflict() => {
            let why = format!(
                "somebody else has this in hand, change it there: {}",
                refused.message
            );
            Error::Conflict(why)
        }
        Some(refused) if refused.is_invalid() => Error::Conflict(refused.message.clone()),
        _ => away(doing, failed),
    }
}
