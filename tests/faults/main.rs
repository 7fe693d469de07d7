//! What goes wrong, and what must not be lost by it. Each test runs a server of its own, as people do.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests print their evidence, and their tasks end with their runtime"
)]

mod bucket;
mod damage;
mod idempotency;
mod kills;
mod life;
mod metrics;
mod orphans;
mod pages;
mod parking;
mod server;
mod starts;
mod storage;
mod streams;

use carrel_tests::{Setup, Up, agent};
use serde_json::{Value, json};

/// A server with the learner `ada`, whose agent counts behind the adapter `Http`; `more` is laid over its class.
async fn with_ada(test: &str, more: &Value) -> anyhow::Result<Option<Up>> {
    Up::start(
        test,
        Setup {
            documents: ada(more),
            ..Setup::default()
        },
    )
    .await
}

fn ada(more: &Value) -> Vec<Value> {
    vec![
        agent::http("counting", more),
        agent::learner("ada", "counting"),
    ]
}

/// The same, after a shell did something in mounts that only the server sees.
async fn with_ada_after(test: &str, first: &str) -> anyhow::Result<Option<Up>> {
    let first = Some(first.to_owned());
    Up::start(
        test,
        Setup {
            documents: ada(&json!({})),
            first,
            keeps_log: true,
            ..Setup::default()
        },
    )
    .await
}
