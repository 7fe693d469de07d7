//! 200 learners awake at once, one turn each.

use std::time::Instant;

use anyhow::ensure;
use carrel_tests::machine::pods;

use crate::{row, up};

const LEARNERS: usize = 200;

pub(super) async fn measure() -> anyhow::Result<()> {
    let up = up("many", LEARNERS).await?;
    let began = Instant::now();
    let turns: Vec<_> = (0..LEARNERS)
        .map(|n| {
            let (api, learner) = (up.api.clone(), format!("l{n}"));
            tokio::task::spawn(async move { api.reply(&learner, "Hello!").await })
        })
        .collect();
    let mut failed = Vec::new();
    for turn in turns {
        if let Err(error) = turn.await? {
            failed.push(format!("{error:#}"));
        }
    }
    let took = began.elapsed().as_secs_f64();
    ensure!(failed.is_empty(), "{} of {LEARNERS} turns failed: {}", failed.len(), failed[0]);
    let awake = pods(up.pid()).len();
    row(
        "200 learners awake at once, one turn each",
        &format!("all `done` in {took:.1} s, {awake} awake at the end"),
        "all `done`, no error",
    );
    Ok(())
}
