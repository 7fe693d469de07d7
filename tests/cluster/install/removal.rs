//! The release is upgraded, removed and installed anew: what learners have made stays.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use carrel_tests::cluster::{Installation, Steps};
use serde_json::json;

pub(super) async fn an_upgrade_is_not_noticed_by_those_who_talk(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let upgraded = AtomicBool::new(false);
    let talk = async {
        let mut replies = 0;
        while !upgraded.load(Ordering::Relaxed) {
            let text = format!("during the upgrade {replies}");
            // A client sends again, with the same key, what was not accepted.
            loop {
                if let Ok(accepted) = school.api.try_post("bob", &text, &text).await? {
                    let turn = school.api.post_and_follow("bob", &text, &text).await;
                    drop((accepted, turn));
                    break;
                }
                tokio::task::yield_now().await;
            }
            replies += 1;
        }
        anyhow::Ok(replies)
    };
    let upgrade = async {
        let more = json!({"config": {"telemetry": {"logFilter": "debug"}}});
        let said = tokio::task::block_in_place(|| school.install(&more));
        upgraded.store(true, Ordering::Relaxed);
        said
    };
    let (replies, said) = tokio::join!(talk, upgrade);
    said?;
    ensure!(replies? > 0, "nobody talked");
    steps.done("helm upgrade under traffic");
    Ok(())
}

pub(super) async fn removal_keeps_what_learners_made(
    school: &Installation,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    school.api.sleep("bob").await?;
    school.helm(&["uninstall", "carrel", "--wait"])?;
    steps.done("helm uninstall");
    assert_eq!(
        school.object("learner/ada")?["spec"]["className"],
        "counting"
    );
    school.install(&json!({}))?;
    let api = school.again()?;
    assert_eq!(api.reply("ada", "who am I?").await?, "3");
    steps.done("helm install anew, and the learner remembers");
    Ok(())
}
