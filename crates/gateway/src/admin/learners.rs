//! Learners: made, listed, shown, changed.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use carrel_core::class::DEFAULT_CLASS;
use carrel_core::learner::LearnerState;
use carrel_core::lifecycle;
use carrel_core::{ClassName, LearnerId};
use carrel_protocol::Code;
use carrel_protocol::fleet::{self, IsolationReport};
use carrel_protocol::gateway::{
    AliasBody, CreateLearner, LastFailure, Learner, LearnerList, PatchLearner, SnapshotSummary,
};
use carrel_store::learners::{self, Alias, Created, NewLearner};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::query::Asked;
use crate::auth::{Managed, Operator};
use crate::body::{ORDINARY_BYTES, json};
use crate::dispatch::changed;
use crate::gateway::{Gateway, Shared};
use crate::refusal::{Refusal, Result};

const LIST_DEFAULT: u32 = 100;
const LIST_MOST: u32 = 1000;
const ALIAS_BYTES: usize = 256;
const MOST_ALIASES: usize = 64;
/// Who makes a learner anew waits this long until nothing is left of its namesake.
const ERASED_WITHIN: Duration = Duration::from_secs(20);
/// Looks again without a hint.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn create(
    State(shared): State<Shared>,
    _: Operator,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Learner>)> {
    let asked: CreateLearner = json(&headers, body, ORDINARY_BYTES).await?;
    let class = asked.class.as_deref().unwrap_or(DEFAULT_CLASS);
    let new = NewLearner {
        id: asked.id.clone(),
        class: known_class(&shared, class).await?,
        aliases: aliases(&asked.aliases)?,
    };
    let created = create_when_free(&shared, &new).await?;
    // The answer to a repeat is the answer to the first.
    accepted(created)?;
    let fleet = &shared.options.fleet;
    fleet.declare(&new.id, &new.class).await?;
    Ok((StatusCode::OK, Json(find(&shared, &asked.id).await?)))
}

/// Makes a learner. One of its id that is being erased is gone for everybody already; what is left of it is waited for.
async fn create_when_free(gateway: &Gateway, new: &NewLearner) -> Result<Created> {
    let store = &gateway.options.store;
    let mut changes = store.changes();
    let created = async {
        loop {
            let created = store.create_learner(new, gateway.now()).await?;
            if created != Created::StillErasing {
                return Ok(created);
            }
            // A missed hint is made up for by looking again.
            let _ = tokio::time::timeout(LOOK_EVERY, changed(&mut changes, &new.id)).await;
        }
    };
    let waited = tokio::time::timeout(ERASED_WITHIN, created).await;
    waited.unwrap_or(Ok(Created::StillErasing))
}

fn accepted(created: Created) -> Result<()> {
    let conflict = |detail: String| Err(Refusal::new(Code::Conflict, detail));
    match created {
        Created::New | Created::Same => Ok(()),
        Created::Differs => {
            conflict("there is a learner of this id with another class or other aliases".to_owned())
        }
        Created::AliasTaken(alias) => conflict(format!(
            "an alias on channel '{}' belongs to another learner",
            alias.channel
        )),
        Created::StillErasing => {
            conflict("a learner of this id is still being erased; try again shortly".to_owned())
        }
    }
}

async fn known_class(gateway: &Gateway, name: &str) -> Result<ClassName> {
    let class: ClassName = name.parse().map_err(|error: carrel_core::id::Error| {
        Refusal::new(Code::InvalidBody, error.to_string())
    })?;
    let known = gateway.options.store.classes().await?;
    let known: BTreeSet<&str> = known
        .iter()
        .map(|(class, _)| class.as_str())
        .chain([DEFAULT_CLASS])
        .collect();
    if known.contains(name) {
        return Ok(class);
    }
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let detail = format!("there is no class '{class}': there are {known}");
    Err(Refusal::new(Code::InvalidBody, detail))
}

fn aliases(bodies: &[AliasBody]) -> Result<Vec<Alias>> {
    let plain =
        |text: &str| (1..=ALIAS_BYTES).contains(&text.len()) && !text.contains(char::is_control);
    if bodies.len() > MOST_ALIASES
        || !bodies
            .iter()
            .all(|alias| plain(&alias.channel) && plain(&alias.external_id))
    {
        let detail = "an alias is a channel and an external_id of 1 to 256 bytes, 64 at most";
        return Err(Refusal::new(Code::InvalidBody, detail));
    }
    let alias = |body: &AliasBody| Alias {
        channel: body.channel.clone(),
        external_id: body.external_id.clone(),
    };
    Ok(bodies.iter().map(alias).collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<LearnerId>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    _: Operator,
    Asked(page): Asked<Page>,
) -> Result<Json<LearnerList>> {
    let limit = page.limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MOST);
    let store = &shared.options.store;
    let rows = store
        .learners(page.after.as_ref(), limit, shared.now())
        .await?;
    let next = (rows.len() == limit as usize)
        .then(|| rows.last().map(|row| row.id.clone()))
        .flatten();
    let fleet = &shared.options.fleet;
    let open = rows
        .into_iter()
        .filter(|row| !row.desired.deleting && fleet.lists(&row.id));
    let isolation = isolation(&shared).await;
    let learners = open.map(|row| view(&shared, &isolation, row)).collect();
    Ok(Json(LearnerList { learners, next }))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Managed(learner): Managed,
) -> Result<Json<Learner>> {
    find(&shared, &learner).await.map(Json)
}

pub(super) async fn change(
    State(shared): State<Shared>,
    Managed(learner): Managed,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Learner>> {
    let patch: PatchLearner = json(&headers, body, ORDINARY_BYTES).await?;
    find(&shared, &learner).await?;
    let class = match &patch.class {
        Some(name) => Some(known_class(&shared, name).await?),
        None => None,
    };
    let aliases = patch.aliases.as_deref().map(aliases).transpose()?;
    if let Some(class) = &class {
        shared.options.fleet.declare(&learner, class).await?;
    }
    let store = &shared.options.store;
    let changed = store
        .change_learner(&learner, class.as_ref(), aliases.as_deref())
        .await?;
    accepted(changed.ok_or_else(Refusal::no_learner)?)?;
    find(&shared, &learner).await.map(Json)
}

/// The learner's document; one that is being erased is gone for everybody.
pub(super) async fn find(gateway: &Gateway, learner: &LearnerId) -> Result<Learner> {
    let row = gateway
        .options
        .store
        .learner(learner, gateway.now())
        .await?;
    let row = row.filter(|row| !row.desired.deleting);
    let mut row = row.ok_or_else(Refusal::no_learner)?;
    // Steps that are not stored, and why they take long, the fleet knows.
    match gateway.options.fleet.status(learner).await {
        Ok(status) => row.status = status,
        Err(fleet::Error::NoLearner(_)) => return Err(Refusal::no_learner()),
        // What is stored is shown.
        Err(fleet::Error::Unavailable { .. } | fleet::Error::Conflict(_)) => {}
    }
    let last = gateway.options.store.last_ended(learner).await?;
    let last_failure = last.and_then(|turn| {
        let failure = turn.failure?;
        Some(LastFailure {
            turn_id: turn.turn_id,
            code: failure.code.to_string(),
            reason: failure.operator_reason,
        })
    });
    Ok(Learner {
        last_failure,
        ..view(gateway, &isolation(gateway).await, row)
    })
}

/// What the fleet says of itself; that it is away is no reason to show no learners.
async fn isolation(gateway: &Gateway) -> IsolationReport {
    let report = gateway.options.fleet.isolation().await;
    report.unwrap_or_else(|error| {
        tracing::warn!(%error, "the fleet does not say how learners are kept apart");
        IsolationReport {
            isolation: "unknown".to_owned(),
            limits_missing: Vec::new(),
            warning: String::new(),
        }
    })
}

fn view(gateway: &Gateway, isolation: &IsolationReport, row: learners::Learner) -> Learner {
    let aliases = row.aliases.into_iter().map(|alias| AliasBody {
        channel: alias.channel,
        external_id: alias.external_id,
    });
    let mut status = lifecycle::shown(&row.desired, row.status);
    status.state = match status.state {
        // That it works is not stored: this process runs its turn.
        LearnerState::Ready if gateway.roster.is_running(&row.id) => LearnerState::Busy,
        state => state,
    };
    Learner {
        id: row.id,
        class: row.class.into(),
        aliases: aliases.collect(),
        state: status.state,
        conditions: status.all_conditions(row.created_time),
        state_detail: status.detail,
        epoch: status.epoch,
        created_time: row.created_time,
        last_activity_time: row.last_activity_time,
        newest_snapshot: row
            .newest_snapshot
            .map(|(snapshot_id, time)| SnapshotSummary {
                snapshot_id: Some(snapshot_id),
                generation: None,
                time,
                turn_id: None,
                damaged: false,
            }),
        cost_today_nano_usd: row.cost_today,
        isolation: isolation.isolation.clone(),
        limits_missing: isolation.limits_missing.clone(),
        pod: status.pod.map(|pod| pod.name),
        last_failure: None,
    }
}
