//! How long a learner who sleeps waits for an answer on a real node, with the images there.

use std::time::{Duration, Instant};

use carrel_tests::cluster::{Installation, Steps};
use carrel_tests::eventually;
use serde_json::json;

const WAKES: usize = 7;
const LONG: Duration = Duration::from_mins(1);

/// From a message to its answer, for a learner that sleeps; in order of length.
async fn wakes(school: &Installation, learner: &str, warm: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..WAKES {
        school.api.sleep(learner).await?;
        eventually("as many pods wait as shall", LONG, || async {
            let pods = school.pods()?;
            let blank = pods.iter().filter(|pod| {
                let conditions = pod["status"]["conditions"].as_array();
                let ready = conditions
                    .into_iter()
                    .flatten()
                    .any(|it| it["type"] == "Ready" && it["status"] == "True");
                ready && pod["metadata"]["labels"]["carrel.dev/learner"].is_null()
            });
            Ok((blank.count() == warm).then_some(()))
        })
        .await?;
        let began = Instant::now();
        school.api.reply(learner, "hello").await?;
        took.push(began.elapsed());
    }
    took.sort();
    Ok(took)
}

pub(super) async fn warm_and_cold_wakes_are_measured(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let cold = wakes(school, "bob", 0).await?;
    steps.done(&format!(
        "cold wakes, message to answer: p50 {:?} of {cold:?}",
        cold[WAKES / 2]
    ));
    school.apply(&super::first::class(
        "warm",
        &json!({"warmPool": {"size": 1}}),
    ))?;
    school.learner("carl", "warm").await?;
    school.api.reply("carl", "hello").await?;
    let warm = wakes(school, "carl", 1).await?;
    steps.done(&format!(
        "warm wakes, message to answer: p50 {:?} of {warm:?}",
        warm[WAKES / 2]
    ));
    assert!(warm[WAKES / 2] < cold[WAKES / 2]);
    Ok(())
}
