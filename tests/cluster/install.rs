//! Carrel on a real node, as an operator installs it and as learners use it. One cluster for all of it, in the order of an operator's day.

mod first;
mod hostile;
mod removal;
mod turns;
mod wakes;

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
    turns::a_turn_whose_pod_is_killed_runs_again_elsewhere(school, steps).await?;
    turns::an_agent_that_takes_too_much_memory_fails_its_message_alone(school, steps).await?;
    hostile::an_agent_finds_no_token_no_name_and_no_sidecar_that_listens(school, steps).await?;
    wakes::warm_and_cold_wakes_are_measured(school, steps).await?;
    removal::an_upgrade_is_not_noticed_by_those_who_talk(school, steps).await?;
    removal::removal_keeps_what_learners_made(school, steps).await?;
    Ok(())
}
