//! Carrel as processes of its own, several of a role, on PostgreSQL and S3: what one process would do, they do together, and
//! any of them may die.

mod certificates;
mod clients;
mod doctor;
mod door;
mod restarts;
mod streams;
mod swallower;
mod together;

use carrel_tests::{Member, Roles, agent};
use serde_json::{Value, json};

/// One of each role, with the learner `ada`, whose agent counts.
struct School {
    gateway: Member,
    fleet: Member,
    router: Member,
    vault: Member,
    roles: Roles,
}

async fn school(test: &str) -> anyhow::Result<Option<School>> {
    school_with(test, |_| Ok(())).await
}

/// The same, on what is `set` before anything starts.
async fn school_with(
    test: &str,
    set: impl FnOnce(&mut Roles) -> anyhow::Result<()>,
) -> anyhow::Result<Option<School>> {
    let Some(mut roles) = Roles::prepare(test, &ada(&json!({})))? else {
        return Ok(None);
    };
    set(&mut roles)?;
    // Each makes the keys that those after it read.
    let gateway = roles.start("gateway").await?;
    let fleet = roles.start("fleet").await?;
    let router = roles.start("router").await?;
    let vault = roles.start("vault").await?;
    Ok(Some(School {
        gateway,
        fleet,
        router,
        vault,
        roles,
    }))
}

fn ada(more: &Value) -> Vec<Value> {
    vec![
        agent::http("counting", more),
        agent::learner("ada", "counting"),
    ]
}
