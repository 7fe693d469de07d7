//! Carrel on a real node, as an operator installs it and as learners use it. One cluster for all of it, in the order of an operator's day.

mod first;
mod first_page;
mod hostile;
mod nodes;
mod removal;
mod turns;
mod ways_out;

use carrel_tests::cluster::{Installation, NodeOptions, Steps};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_installs_carrel_on_a_real_node() -> anyhow::Result<()> {
    let mut steps = Steps::new("an_operator_installs_carrel_on_a_real_node");
    let Some(school) = Installation::start(&mut steps, NodeOptions::default()).await? else {
        return Ok(());
    };
    let day = day(&school, &mut steps).await;
    if day.is_err() {
        school.tell();
    }
    day
}

async fn day(school: &Installation, steps: &mut Steps) -> anyhow::Result<()> {
    first::helm_test_sees_an_answer_before_anybody_makes_a_class(school, steps).await?;
    first_page::its_commands_lead_to_an_answer(school, steps).await?;
    first::a_learner_is_answered_sleeps_and_remembers(school, steps).await?;
    first::an_older_state_is_what_the_next_message_finds(school, steps).await?;
    first::a_pod_of_the_pool_becomes_a_learners(school, steps).await?;
    turns::a_turn_whose_pod_is_killed_runs_again_elsewhere(school, steps).await?;
    turns::an_agent_that_takes_too_much_memory_fails_its_message_alone(school, steps).await?;
    turns::an_agent_that_fills_its_disk_is_evicted_and_its_learner_comes_back(school, steps)
        .await?;
    nodes::a_node_is_drained_in_mid_turn(school, steps).await?;
    hostile::an_agent_finds_no_token_no_name_and_no_sidecar_that_listens(school, steps).await?;
    ways_out::a_host_that_a_class_allows_is_reached_through_the_router(school, steps).await?;
    hostile::a_pod_that_reaches_what_it_must_not_takes_nobody(school, steps).await?;
    let turns = removal::an_upgrade_is_not_noticed_by_those_who_talk(school, steps).await?;
    removal::removal_keeps_what_learners_made(school, turns, steps).await?;
    Ok(())
}
