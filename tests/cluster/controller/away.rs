//! No API server for longer than leases, tokens, back-offs and the patience with nodes last.

use std::collections::BTreeMap;
use std::time::Duration;

use carrel_tests::cluster::school::{Controller, SOON, School, Status};
use carrel_tests::eventually;
use http::StatusCode;
use serde_json::json;

use super::{pool_of, storms};
use crate::gateways::Town;

/// How long it is away.
const MINUTES: usize = 5;
/// So many pods wait in the pool.
const POOL: u32 = 5;

fn of(kind: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{kind}-{number}"))
        .collect()
}

fn uid(status: &Status) -> &str {
    status.0["podUid"].as_str().unwrap_or_default()
}

async fn ready(school: &School, names: &[String]) -> anyhow::Result<BTreeMap<String, Status>> {
    let mut ready = BTreeMap::new();
    for name in names {
        let up = school.status(name, "awake", |status| status.is_ready(1));
        ready.insert(name.clone(), up.await?);
    }
    Ok(ready)
}

/// As a kubelet does: whoever has ended is started again; how many there were.
async fn relieve(school: &School, controllers: &mut [Controller]) -> anyhow::Result<usize> {
    let mut ended = 0;
    for controller in controllers {
        if controller.has_ended()? {
            *controller = school.controller().await?;
            ended += 1;
        }
    }
    Ok(ended)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a tier of its own: cargo xtask test outage"]
async fn five_minutes_without_an_api_server_lose_nothing_and_double_nothing() -> anyhow::Result<()>
{
    let test = "five_minutes_without_an_api_server_lose_nothing_and_double_nothing";
    let Some(mut town) = Town::open(test).await? else {
        return Ok(());
    };
    let school = &town.school;
    let mut controllers = [school.controller().await?, school.controller().await?];
    let mut class = pool_of(POOL);
    class["turn"] = json!({"timeoutSeconds": 3600});
    school.class("free", &class).await?;
    let (_gateway, api) = town.gateway().await?;
    // One of each for each minute, and one whose turn has begun before and ends after all of it.
    let (awake, asleep) = (of("awake", MINUTES + 1), of("asleep", MINUTES));
    for name in awake.iter().chain(&asleep) {
        school.resting(name, "free").await?;
        api.learner(name).await?;
    }
    for name in &awake {
        school.wake(name, 0).await?;
    }
    let before = ready(school, &awake).await?;
    let longest = &awake[MINUTES];
    api.post(longest, longest, longest).await?;
    town.delivered(longest).await?;
    school.pool(POOL as usize).await?;
    storms::enrol(school, "free").await?;
    // It goes in the middle of a storm.
    storms::wake_all(school).await?;
    town.school.plane.stop_api_server();

    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut ended = 0;
    for second in 0..60 * MINUTES {
        seconds.tick().await;
        ended += relieve(&town.school, &mut controllers).await?;
        if second % 60 == 30 {
            let (up, down) = (&awake[second / 60], &asleep[second / 60]);
            for name in [up, down] {
                api.post(name, name, name).await?;
            }
            assert_eq!(town.delivered(up).await?, uid(&before[up]));
            let (status, _) = api.send("nobody", "who is not known", "1").await?;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "nobody can say");
        }
    }
    assert_eq!(
        ended, 1,
        "whoever led ends once it cannot renew; others wait"
    );
    town.school.plane.start_api_server().await?;

    let school = &town.school;
    let mut all = storms::all_ready(school).await?;
    all.extend(ready(school, &asleep).await?);
    let still = ready(school, &awake).await?;
    for (name, status) in &still {
        assert_eq!(uid(status), uid(&before[name]), "{name}");
    }
    all.extend(still);
    storms::judge(school, &all).await?;
    for name in &asleep {
        assert_eq!(town.delivered(name).await?, uid(&all[name]));
    }
    let mut said: Vec<String> = school
        .stand_in
        .turns()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    said.sort();
    let mut expected = [&awake[..], &asleep].concat();
    expected.sort();
    assert_eq!(said, expected, "each once");
    let count = all.len() + POOL as usize;
    eventually(
        "nobody has two pods, and the pool is full",
        SOON,
        || async { Ok((school.pods("").await?.len() == count).then_some(())) },
    )
    .await?;
    assert_eq!(relieve(school, &mut controllers).await?, 0);
    eventually("one of them leads", SOON, || async {
        let mut leaders = 0;
        for controller in &controllers {
            leaders += usize::from(controller.metrics().await?.contains("carrel_leader 1"));
        }
        Ok((leaders == 1).then_some(()))
    })
    .await?;
    Ok(())
}
