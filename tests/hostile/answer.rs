//! What a refusal must be: a problem document (RFC 9457) that says what is wrong.

use anyhow::ensure;
use carrel_tests::Api;
use reqwest::Method;
use serde_json::Value;

use crate::raw::Answer;

impl Answer {
    /// Checks that this is a problem of this status and code.
    pub(crate) fn refuses(&self, status: u16, code: &str) -> anyhow::Result<()> {
        ensure!(
            self.status == status,
            "{self:?} should have status {status}"
        );
        let kind = self.header("content-type").unwrap_or_default();
        ensure!(
            kind == "application/problem+json",
            "{self:?} is no problem document"
        );
        let problem: Value = serde_json::from_slice(&self.body)?;
        ensure!(
            problem["code"] == code && problem["status"] == status,
            "{problem} should be {code}"
        );
        let title = problem["title"].as_str().unwrap_or_default();
        ensure!(!title.is_empty(), "{problem}");
        let id = self.header("x-request-id");
        ensure!(
            id.is_some() && problem["request_id"].as_str() == id,
            "{self:?}"
        );
        ensure!(
            self.header("x-content-type-options") == Some("nosniff"),
            "{self:?}"
        );
        Ok(())
    }
}

/// Everything that is stored about learners and what happened to them, to be compared.
pub(crate) async fn stored(api: &Api) -> anyhow::Result<String> {
    let learners = api.admin(Method::GET, "learners?limit=1000", None).await?;
    let events = api.admin(Method::GET, "events?limit=1000", None).await?;
    Ok(format!("{learners}{events}"))
}
