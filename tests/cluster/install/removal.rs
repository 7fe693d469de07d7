//! The release is upgraded, removed and installed anew: what learners have made stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use carrel_tests::cluster::{Installation, Steps};
use carrel_tests::eventually;
use serde_json::json;

/// What a cluster does of itself is done by then, also where the machine is busy.
const LONG: Duration = Duration::from_mins(1);

/// How many turns bob has had by then.
pub(super) async fn an_upgrade_is_not_noticed_by_those_who_talk(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<i32> {
    let upgraded = AtomicBool::new(false);
    let before: i32 = school.api.reply("bob", "before").await?.parse()?;
    let pod = school.object("learner/bob")?["status"]["podUid"].take();
    ensure!(pod.is_string(), "bob is awake");
    let talk = async {
        let mut replies = 0;
        while !upgraded.load(Ordering::Relaxed) {
            let text = format!("during the upgrade {replies}");
            // A client sends again, with the same key, what was not accepted, and asks again when its gateway goes.
            let accepted = eventually("the message is accepted", LONG, || async {
                Ok(school.api.try_post("bob", &text, &text).await?.ok())
            })
            .await?;
            let turn = eventually("the turn has ended", LONG, || async {
                let turn = school.api.turn("bob", &accepted.turn).await.ok();
                Ok(turn.filter(|turn| !turn["reply"].is_null()))
            })
            .await?;
            replies += 1;
            let counted = turn["reply"]["text"]
                .as_str()
                .and_then(|text| text.parse().ok());
            ensure!(counted == Some(before + replies), "{turn}");
        }
        anyhow::Ok(replies)
    };
    let upgrade = async {
        let more = json!({"config": {"telemetry": {"logFilter": "debug"}}});
        let said = school.install(&more).await;
        upgraded.store(true, Ordering::Relaxed);
        said
    };
    let (replies, said) = tokio::join!(talk, upgrade);
    said?;
    let replies = replies?;
    ensure!(replies > 0, "nobody talked");
    assert_eq!(school.object("learner/bob")?["status"]["podUid"], pod);
    steps.done(&format!(
        "helm upgrade, while {replies} messages were answered, each once, by the pod that was there before"
    ));
    Ok(before + replies)
}

pub(super) async fn removal_keeps_what_learners_made(
    school: &Installation,
    turns: i32,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    school.helm(&["uninstall", "carrel", "--wait"]).await?;
    steps.done("helm uninstall");
    assert_eq!(
        school.object("learner/ida")?["spec"]["className"],
        "counting"
    );
    school.install(&json!({})).await?;
    let api = school.again()?;
    assert_eq!(api.reply("ida", "who am I?").await?, "3");
    // Nobody had put him to sleep.
    let next = (turns + 1).to_string();
    assert_eq!(api.reply("bob", "and I?").await?, next);
    steps.done("helm install anew, and learners remember");
    Ok(())
}
