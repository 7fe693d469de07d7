//! The store on PostgreSQL: what a school of 16,000 costs it asleep, how fast messages come in and events go out.

mod accept;
mod asleep;
mod feed;

use anyhow::Context as _;
use carrel_core::learner::Status;
use carrel_tests::figures::Figures;
use carrel_tests::{Roles, agent};
use serde_json::json;

const LEARNERS: u32 = 16_000;
/// Their class; it lets many messages wait.
const CLASS: &str = "pace";

pub(super) async fn measure(
    figures: &mut Figures,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    if wanted("accept") {
        accept::measure(figures).await?;
    }
    if wanted("feed") {
        feed::measure(figures).await?;
    }
    if wanted("asleep") {
        asleep::measure(figures).await?;
    }
    Ok(())
}

/// A database with the learners `l0`, `l1` … asleep, and nothing that runs.
fn school(name: &str) -> anyhow::Result<Roles> {
    let class = agent::http(CLASS, &json!({"turn": {"maxQueued": 1000}}));
    let roles = Roles::prepare(name, &[class])?;
    let roles = roles.context("the store is measured with PostgreSQL and S3's protocol")?;
    let status = serde_json::to_string(&Status::default())?;
    let learners = format!(
        "INSERT INTO learner (id, class, created_time, status_epoch, status, fence, repository) \
         SELECT 'l' || n, '{CLASS}', n, 0, '{status}', 0, gen_random_uuid() \
         FROM generate_series(0, {LEARNERS} - 1) n"
    );
    roles.server.psql(&roles.database, &learners);
    // As the server itself does it with what has rows.
    let counted = "VACUUM ANALYZE learner";
    roles.server.psql(&roles.database, counted);
    Ok(roles)
}
