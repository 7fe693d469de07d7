//! What was written to the API server, by its audit log. A request stands in it twice: when it came, before anything of it can be seen, and
//! when it was answered, which may be after others have seen what it did. So the first says when it was, the second how it ended.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::wait::eventually;

/// A request stands in the log by then.
const LOGGED_WITHIN: Duration = Duration::from_secs(30);
/// The field manager of requests that are only marks begins so.
const MARK: &str = "carrel-mark-";

/// Every verb that writes, when it came and when it was answered.
pub(super) fn policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["ResponseStarted"],
        "rules": [
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ],
    })
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// One request that writes, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Who asked.
    pub user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// What kind of object, in the plural, and its part: `pods`, `pods/status`.
    pub resource: String,
    /// Its namespace, if it has one.
    pub namespace: String,
    /// Its name; empty where the server chooses it.
    pub name: String,
    /// The field manager, if the request names one.
    pub manager: Option<String>,
    /// The status of the answer.
    pub code: u64,
}

/// How often a user has written what: `{"create pods": 2, "patch pods/status": 1}`.
pub fn tally(writes: &[Write], user: &str) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for write in writes.iter().filter(|write| write.user == user) {
        *tally
            .entry(format!("{} {}", write.verb, write.resource))
            .or_default() += 1;
    }
    tally
}

/// The same as a process itself counts it, by its metrics.
pub fn counted(metrics: &str) -> BTreeMap<String, usize> {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("carrel_api_writes_total{resource=\""));
    let counts = lines.filter_map(|line| {
        let (resource, rest) = line.split_once("\",verb=\"")?;
        let (verb, count) = rest.split_once("\"} ")?;
        Some((format!("{verb} {resource}"), count.parse().ok()?))
    });
    counts.collect()
}

/// The log.
#[derive(Debug)]
pub(super) struct Audit {
    pub(super) log: PathBuf,
}

impl Audit {
    /// The end of the log: everything of which anybody has seen anything before this call came before it.
    pub(super) async fn mark(&self, client: &kube::Client) -> anyhow::Result<Mark> {
        Ok(Mark(self.mark_line(client).await?.1))
    }

    /// What was written since, all of it answered.
    pub(super) async fn since(
        &self,
        mark: Mark,
        client: &kube::Client,
    ) -> anyhow::Result<Vec<Write>> {
        let (end, _) = self.mark_line(client).await?;
        eventually("what came since is answered", LOGGED_WITHIN, || async {
            let log = std::fs::read_to_string(&self.log)?;
            let since = log.get(mark.0..).context("the log has been cut")?;
            answered(since, end.saturating_sub(mark.0))
        })
        .await
    }

    /// Writes a line of its own and waits until it stands in the log: where it begins and ends.
    async fn mark_line(&self, client: &kube::Client) -> anyhow::Result<(usize, usize)> {
        let name = format!("{MARK}{}", Uuid::new_v4());
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = format!("/apis/authentication.k8s.io/v1/selfsubjectreviews?fieldManager={name}");
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())?;
        client
            .request_text(request)
            .await
            .context("marking the audit log")?;
        eventually("the mark stands in the audit log", LOGGED_WITHIN, || {
            let log = std::fs::read_to_string(&self.log);
            let name = &name;
            async move {
                let log = log?;
                let Some(found) = log.find(name.as_str()) else {
                    return Ok(None);
                };
                let begin = log[..found].rfind('\n').map_or(0, |newline| newline + 1);
                let end = log[found..].find('\n').map(|newline| found + newline + 1);
                Ok(end.map(|end| (begin, end)))
            }
        })
        .await
    }
}

/// The requests that came in the first so many bytes of this log; `None` until each of them is answered.
fn answered(log: &str, end: usize) -> anyhow::Result<Option<Vec<Write>>> {
    let (mut came, mut ended) = (Vec::new(), HashMap::new());
    let mut at = 0;
    for line in log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let event: Value = serde_json::from_str(line)?;
        let id = event["auditID"].as_str().unwrap_or_default().to_owned();
        if event["stage"] != "RequestReceived" {
            ended.insert(id, write(&event));
        } else if at < end {
            came.push(id);
        }
        at += line.len();
    }
    let writes: Option<Vec<Write>> = came.into_iter().map(|id| ended.remove(&id)).collect();
    let is_mark = |write: &Write| {
        let manager = write.manager.as_ref();
        manager.is_some_and(|name| name.starts_with(MARK))
    };
    Ok(writes.map(|mut writes| {
        writes.retain(|write| !is_mark(write));
        writes
    }))
}

fn write(event: &Value) -> Write {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let mut resource = text(&object["resource"]);
    if let Some(part) = object["subresource"].as_str() {
        resource = format!("{resource}/{part}");
    }
    let uri = text(&event["requestURI"]);
    let manager = uri
        .split(['?', '&'])
        .find_map(|pair| pair.strip_prefix("fieldManager="));
    Write {
        user: text(&event["user"]["username"]),
        verb: text(&event["verb"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        manager: manager.map(str::to_owned),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    }
}
