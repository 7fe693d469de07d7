//! Carrel on a real node, as an operator installs it and as learners use it. One cluster for all of it, in the order of an operator's day.

mod first;

use carrel_tests::cluster::{Installation, Steps};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_installs_carrel_on_a_real_node() -> anyhow::Result<()> {
    let mut steps = Steps::new("an_operator_installs_carrel_on_a_real_node");
    let Some(school) = Installation::start(&mut steps).await? else {
        return Ok(());
    };
    let day = day(&school, &mut steps).await;
    if day.is_err() {
        school.tell();
    }
    day
}

async fn day(school: &Installation, steps: &mut Steps) -> anyhow::Result<()> {
    first::a_learner_is_answered_sleeps_and_remembers(school, steps).await?;
    Ok(())
}
