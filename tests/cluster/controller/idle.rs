//! What costs nothing: time that passes, and a pool while somebody waits.

use std::time::Duration;

use carrel_protocol::sidecar::Phase;
use carrel_tests::cluster::school::{CONTROLLER, SOON};
use carrel_tests::cluster::{Answer, Script, tally};
use carrel_tests::eventually;
use serde_json::Value;

use super::{pool_of, school};
use crate::gateways::{GATEWAY, Town};

/// What an hour brings, over and over: a pool is looked at every 5 s, a watch ends and goes on after at most 5 min.
/// Ten of these ends are seen here, in the time of more than two looks.
const ROUNDS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_stirs_nothing_is_written() -> anyhow::Result<()> {
    let test = "while_nobody_stirs_nothing_is_written";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let school = &town.school;
    let (proxy, gateways) = (school.proxy().await?, town.proxy().await?);
    let controller = school.controller_by(&proxy.kubeconfig()).await?;
    let _gateway = town.gateway_by(&gateways.kubeconfig()).await?;
    school.class("free", &pool_of(5)).await?;
    for number in 0..20 {
        let name = format!("l{number}");
        school.resting(&name, "free").await?;
        if number < 5 {
            school.wake(&name, 0).await?;
            let up = school.status(&name, "awake", |status| status.is_ready(1));
            up.await?;
        }
    }
    school.pool(5).await?;
    let mark = school.plane.mark().await?;
    let looks = gateways.count(|asked| asked.is_watch);
    for _ in 0..ROUNDS {
        let watches = proxy.count(|asked| asked.is_watch && asked.path.ends_with("/pods"));
        proxy.cut_watches();
        gateways.cut_watches();
        eventually("watches go on", SOON, || async {
            Ok((watches.so_far() >= 2).then_some(()))
        })
        .await?;
    }
    // A gateway waits longer each time that they end again soon.
    assert!(looks.so_far() >= 6, "{} watches", looks.so_far());
    eventually("time passes", SOON, || async {
        let renewed = tally(&school.plane.writes_since(mark).await?, CONTROLLER);
        Ok((renewed.get("update leases") > Some(&6)).then_some(()))
    })
    .await?;
    let writes = school.plane.writes_since(mark).await?;
    for user in [CONTROLLER, GATEWAY] {
        let mut ours = tally(&writes, user);
        ours.retain(|what, _| !what.ends_with(" leases"));
        assert!(ours.is_empty(), "{user}: {ours:?}");
    }
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_not_refilled_while_somebody_waits_for_a_pod() -> anyhow::Result<()> {
    let test = "a_pool_is_not_refilled_while_somebody_waits_for_a_pod";
    let Some(school) = school(test, &Value::Null).await? else {
        return Ok(());
    };
    let controller = school.controller().await?;
    school.class("free", &pool_of(5)).await?;
    let silent = Script {
        assignment: Answer::Silence,
        ..Script::default()
    };
    school.stand_in.otherwise(silent);
    let names: Vec<String> = (0..5).map(|number| format!("l{number}")).collect();
    for name in &names {
        school.resting(name, "free").await?;
    }
    school.pool(5).await?;
    let mark = school.plane.mark().await?;
    for name in &names {
        school.wake(name, 0).await?;
    }
    eventually("all are told", SOON, || async {
        let came = school.stand_in.assignments();
        let mut names = names.iter();
        let all = names.all(|name| came.iter().any(|came| came.learner == *name));
        Ok(all.then_some(()))
    })
    .await?;
    // The pool is looked at twice meanwhile.
    let looked = Duration::from_secs(11);
    let renewals = usize::try_from(looked.as_secs() / 2)?;
    eventually("time passes", SOON, || async {
        let writes = school.plane.writes_since(mark).await?;
        let ours = tally(&writes, CONTROLLER);
        anyhow::ensure!(!ours.contains_key("create pods"), "{ours:?}");
        let renewed = ours.get("update leases").copied().unwrap_or_default();
        Ok((renewed >= renewals).then_some(()))
    })
    .await?;
    // Whoever restores holds nobody up.
    school.stand_in.otherwise(Script {
        phase: Phase::Restoring,
        ..Script::default()
    });
    school.pool(5).await?;
    controller.stop()
}
