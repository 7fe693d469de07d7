//! A pod's first contact and its commits.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_core::{LearnerId, RepositoryId};
use carrel_protocol::problem::{Code, Problem};
use carrel_protocol::token::LearnerClaims;
use carrel_protocol::vault::{CommitAnswer, CommitRequest, DataKey, Head, TurnResult};
use carrel_store::heads::{Commit, Committed};
use carrel_store::turns::{Attachment, Timing};

use crate::{Error, Vault};

impl Vault {
    /// The head, after raising the fence.
    pub(crate) async fn first_contact(&self, claims: &LearnerClaims) -> Result<Head, Error> {
        let (head, repository) = {
            let _alone = self.exclusive(&claims.sub).await;
            self.contact(&claims.sub, claims.ep).await?;
            // At the fence: nobody else moves it now.
            self.sound_head(&claims.sub).await?
        };
        self.describe(&claims.sub, head, repository).await
    }

    /// The data key, after raising the fence; the repository exists then.
    pub(crate) async fn data_key(&self, claims: &LearnerClaims) -> Result<DataKey, Error> {
        let (_, repository) = self.contact(&claims.sub, claims.ep).await?;
        Ok(self.keyed(&claims.sub, repository).await?.key)
    }

    /// Commits: the snapshot is read back, then the store decides.
    pub(crate) async fn commit(
        &self,
        claims: &LearnerClaims,
        repository: RepositoryId,
        request: CommitRequest,
    ) -> Result<CommitAnswer, Problem> {
        if request.epoch != claims.ep {
            let told = "the epoch is not the token's";
            return Err(Problem::new(Code::InvalidRequest, told));
        }
        let figures = request.figures;
        let commit = admitted(&claims.sub, request)?;
        let read_back = async {
            let keyed = self.keyed(&claims.sub, repository).await?;
            self.read_back(&keyed, &commit.snapshot).await
        };
        read_back.await.map_err(|error| {
            tracing::warn!(learner.id = %claims.sub, %error, "a snapshot was not committed: it cannot be read back");
            error.problem()
        })?;
        let committed = self
            .store()
            .commit(&commit, self.now())
            .await
            .map_err(|error| Error::from(error).problem())?;
        match committed {
            Committed::Committed {
                version,
                usage,
                repeated,
            } => {
                if !repeated {
                    self.options().snapshots.committed(
                        Duration::from_millis(figures.took_ms),
                        figures.new_bytes,
                        figures.total_bytes,
                    );
                }
                Ok(CommitAnswer {
                    generation: commit.generation,
                    snapshot_id: commit.snapshot,
                    version,
                    usage,
                })
            }
            Committed::StaleEpoch { fence } => Err(Problem::stale_epoch(fence)),
            Committed::HeadMoved { head } => Err(Problem::new(
                Code::HeadMoved,
                format!("the head is at generation {}", head.generation),
            )),
            Committed::TurnNotRunning => Err(Problem::new(Code::TurnNotRunning, "")),
            Committed::NoLearner => Err(Error::NoLearner.problem()),
        }
    }
}

/// The commit that a request means.
fn admitted(learner: &LearnerId, request: CommitRequest) -> Result<Commit, Problem> {
    let turn = match (request.turn_id, request.result) {
        (None, None) => None,
        (Some(turn_id), Some(result)) => {
            let TurnResult {
                stopped,
                reply,
                files,
                timing,
                operator_note,
            } = result;
            let files = files
                .into_iter()
                .map(|file| {
                    let data = STANDARD
                        .decode(&file.data)
                        .map_err(|_| Problem::new(Code::InvalidBody, "a file is not base64"))?;
                    Ok(Attachment {
                        name: file.name,
                        media_type: file.media_type,
                        data,
                    })
                })
                .collect::<Result<_, Problem>>()?;
            Some(carrel_store::heads::TurnResult {
                turn_id,
                stopped,
                reply,
                files,
                timing: Timing {
                    restore: timing.restore,
                    agent: timing.agent,
                    snapshot: timing.snapshot,
                    ..Timing::default()
                },
                operator_note,
            })
        }
        _ => {
            let told = "turn_id and result come together";
            return Err(Problem::new(Code::InvalidBody, told));
        }
    };
    Ok(Commit {
        learner: learner.clone(),
        epoch: request.epoch,
        generation: request.generation,
        parent: request.parent_snapshot_id,
        snapshot: request.snapshot_id,
        turn,
    })
}
