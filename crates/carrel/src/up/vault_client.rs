//! A vault that is another process, as the gateway's operators see it.

use std::time::Duration;

use carrel_core::{Generation, LearnerId, SnapshotId};
use carrel_gateway::vault_admin::{Error, VaultAdmin};
use carrel_protocol::token::Signer;
use carrel_protocol::vault::{OfLearner, OfSnapshot, ResticAccess, Restored, Rewrapped, Verified};
use carrel_protocol::{Code, Problem};
use carrel_wire::Trust;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an answer may take: a whole repository may be read for it.
const ANSWERS_WITHIN: Duration = Duration::from_mins(15);

/// A vault that is another process.
#[derive(Debug)]
pub(super) struct RemoteVault {
    client: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    signer: Signer,
    now: fn() -> Timestamp,
}

impl RemoteVault {
    pub(super) fn new(
        url: &str,
        signer: Signer,
        trust: &Trust,
        now: fn() -> Timestamp,
    ) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(ANSWERS_WITHIN)
            // Another certificate may be asked for by then.
            .pool_max_idle_per_host(0)
            .tls_backend_preconfigured((*trust.config()).clone())
            .no_proxy();
        Ok(Self {
            client: client.build()?,
            url: url.trim_end_matches('/').to_owned(),
            signer,
            now,
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        what: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let away =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable { doing, source };
        let token = self.signer.vault_admin_token((self.now)());
        let token = token.map_err(|error| away(error.into()))?;
        let answer = self
            .client
            .post(format!("{}/v1/admin/{what}", self.url))
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .map_err(|error| away(error.without_url().into()))?;
        let is_done = answer.status().is_success();
        let bytes = answer.bytes().await;
        let bytes = bytes.map_err(|error| away(error.without_url().into()))?;
        if is_done {
            // What has nothing to say says nothing.
            let text = if bytes.is_empty() { b"null" } else { &*bytes };
            return serde_json::from_slice(text).map_err(|error| away(error.into()));
        }
        let problem: Problem =
            serde_json::from_slice(&bytes).map_err(|error| away(error.into()))?;
        Err(match problem.code {
            Code::Forbidden => Error::NoLearner,
            Code::NotFound => Error::NoSnapshot,
            Code::Conflict => Error::Conflict(problem.detail),
            _ => away(problem.to_string().into()),
        })
    }
}

fn of_snapshot(learner: &LearnerId, snapshot: &SnapshotId) -> OfSnapshot {
    OfSnapshot {
        learner: learner.clone(),
        snapshot_id: snapshot.clone(),
    }
}

fn of_learner(learner: &LearnerId) -> OfLearner {
    OfLearner {
        learner: learner.clone(),
    }
}

#[async_trait::async_trait]
impl VaultAdmin for RemoteVault {
    async fn restore(
        &self,
        learner: &LearnerId,
        snapshot: &SnapshotId,
    ) -> Result<Generation, Error> {
        let of = of_snapshot(learner, snapshot);
        let restored: Restored = self.ask("restoring a snapshot", "restore", &of).await?;
        Ok(restored.generation)
    }

    async fn verify(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<Verified, Error> {
        let of = of_snapshot(learner, snapshot);
        self.ask("verifying a snapshot", "verify", &of).await
    }

    async fn remove(&self, learner: &LearnerId, snapshot: &SnapshotId) -> Result<(), Error> {
        let of = of_snapshot(learner, snapshot);
        self.ask("removing a snapshot", "remove", &of).await
    }

    async fn restic(&self, learner: &LearnerId) -> Result<ResticAccess, Error> {
        let doing = "opening a repository for restic";
        self.ask(doing, "restic", &of_learner(learner)).await
    }

    async fn rewrap(&self) -> Result<Rewrapped, Error> {
        self.ask("wrapping keys anew", "rewrap", &()).await
    }

    async fn erase(&self, learner: &LearnerId) -> Result<(), Error> {
        self.ask("erasing a learner", "erase", &of_learner(learner))
            .await
    }
}
