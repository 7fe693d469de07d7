//! 200 learners awake at once, one turn each.

use std::time::Instant;

use anyhow::ensure;
use carrel_tests::figures::Figures;
use carrel_tests::machine::pods;

use crate::up;

const LEARNERS: usize = 200;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let up = up("many", LEARNERS).await?;
    let began = Instant::now();
    let turns = (0..LEARNERS).map(|n| {
        let (api, learner) = (&up.api, format!("l{n}"));
        async move { api.reply(&learner, "Hello!").await }
    });
    let answers = futures::future::join_all(turns).await;
    let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    let took = began.elapsed().as_secs_f64();
    ensure!(
        failed.is_empty(),
        "{} of {LEARNERS} turns failed: {:#}",
        failed.len(),
        failed[0]
    );
    let awake = pods(up.pid()).len();
    figures.held(
        "200 learners awake at once, one turn each",
        &format!("all `done` in {took:.1} s, {awake} awake at the end"),
        "all `done`, no error",
        awake == LEARNERS,
    );
    Ok(())
}
