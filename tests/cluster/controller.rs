//! The controller on a real API server with fake nodes.

mod away;
mod conflicts;
mod events;
mod faults;
mod idle;
mod nodes;
mod restore;
mod room;
mod sleep;
mod steps;
mod storms;
mod unanswered;
mod wake;
mod watches;

use carrel_tests::cluster::school::School;
use serde_json::{Value, json};

/// A school on three fake nodes.
async fn school(test: &str, settings: &Value) -> anyhow::Result<Option<School>> {
    School::open(test, 3, settings).await
}

/// A class with a pool of so many pods.
fn pool_of(size: u32) -> Value {
    json!({"warmPool": {"size": size}, "isolation": {"userNamespace": false}})
}
