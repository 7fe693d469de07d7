//! What the sidecar says to the vault.

use std::time::Duration;

use bytes::Bytes;
use carrel_core::LearnerId;
use carrel_protocol::vault::{CommitAnswer, CommitRequest, DamageReport, DataKey, Head};
use carrel_protocol::{Code, Problem};
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::upstream::{Upstream, Whole, chain};

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How long a report of damage may take: the vault reads the whole repository before it answers.
const DAMAGE_WITHIN: Duration = Duration::from_mins(8);
/// The most bytes of an answer.
const ANSWER_BYTES: usize = 1 << 20;

/// What a refusal or silence of the vault means.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It does not answer, or asks to try again: try again.
    #[error("the vault does not answer ({0})")]
    Away(String),
    /// This incarnation is over.
    #[error("this incarnation is over: {0}")]
    Over(Problem),
    /// It refuses the snapshot or the call.
    #[error("the vault refuses: {0}")]
    Refused(Problem),
}

/// The vault, for one learner.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    upstream: Upstream,
    learner: LearnerId,
}

impl Vault {
    /// The vault behind an upstream.
    pub(crate) fn new(upstream: Upstream, learner: LearnerId) -> Self {
        Self { upstream, learner }
    }

    /// The newest committed state; raises the fence.
    pub(crate) async fn head(&self) -> Result<Head, Error> {
        self.call(Method::GET, "head", None::<&()>).await
    }

    /// The learner's data key; raises the fence.
    pub(crate) async fn key(&self) -> Result<DataKey, Error> {
        self.call(Method::GET, "key", None::<&()>).await
    }

    /// Moves the head.
    pub(crate) async fn commit(&self, commit: &CommitRequest) -> Result<CommitAnswer, Error> {
        self.call(Method::PUT, "head", Some(commit)).await
    }

    /// Reports what may be damage; answers with the head to restore.
    pub(crate) async fn damage(&self, report: &DamageReport) -> Result<Head, Error> {
        self.call_within(DAMAGE_WITHIN, Method::POST, "damage", Some(report))
            .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        what: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        self.call_within(CALL_WITHIN, method, what, body).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        within: Duration,
        method: Method,
        what: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let away = |reason: &dyn std::error::Error| Error::Away(chain(reason));
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|e| away(&e))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/learners/{}/{what}", self.learner))
            .header(CONTENT_TYPE, "application/json")
            .body(Whole::from(Bytes::from(bytes.unwrap_or_default())))
            .map_err(|e| away(&e))?;
        let call = async {
            let answer = self.upstream.send(request).await.map_err(|e| away(&e))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES)
                .collect()
                .await;
            Ok((status, body.map_err(|e| away(&*e))?.to_bytes()))
        };
        let (status, bytes) = tokio::time::timeout(within, call)
            .await
            .map_err(|_| Error::Away("no answer in time".to_owned()))??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| away(&e));
        }
        Err(refusal(status, &bytes))
    }
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Error {
    let Ok(problem) = serde_json::from_slice::<Problem>(bytes) else {
        return Error::Away(format!("status {status}"));
    };
    match problem.code {
        Code::StaleEpoch
        | Code::HeadMoved
        | Code::TurnNotRunning
        | Code::Unauthenticated
        | Code::Forbidden
        | Code::NotFound => Error::Over(problem),
        Code::Unavailable
        | Code::Internal
        | Code::RequestTimeout
        | Code::RateLimited
        | Code::QueueFull => Error::Away(problem.to_string()),
        Code::InvalidBody
        | Code::InvalidRequest
        | Code::BodyTooLarge
        | Code::MethodNotAllowed
        | Code::Conflict
        | Code::IdempotencyKeyReused
        | Code::SnapshotUnreadable
        | Code::AgentUnavailable
        | Code::Misdirected
        | Code::Draining => Error::Refused(problem),
    }
}
