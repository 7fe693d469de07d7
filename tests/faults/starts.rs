//! Learners that do not wake: no pod can be made, or their document keeps them asleep.

use anyhow::Context as _;
use carrel_tests::{Setup, Up, agent};
use reqwest::Method;
use serde_json::{Value, json};

fn counting(more: &Value) -> Value {
    agent::http("counting", more)
}

#[tokio::test]
async fn a_message_to_a_learner_whose_image_cannot_be_pulled_fails_with_the_reason()
-> anyhow::Result<()> {
    let mut class = counting(&json!({}));
    // Nobody listens there.
    class["spec"]["agent"]["image"] = json!("127.0.0.1:9/school:one");
    let setup = Setup {
        documents: vec![class, agent::learner("ada", "counting")],
        ..Setup::default()
    };
    let Some(up) = Up::start("an image that cannot be pulled", setup).await? else {
        return Ok(());
    };
    let api = &up.api;
    let events = api.ask("ada", "count").await?;
    let details: Vec<_> = events.iter().map(|event| event.text("detail")).collect();
    println!("the learner was told: {details:?}");
    assert!(
        details.iter().any(|detail| detail.contains("tried again")),
        "{details:?}"
    );
    let error = events.last().context("a turn has an outcome")?;
    assert_eq!(
        (error.text("code"), &error.data["retryable"]),
        ("agent_not_ready", &json!(true))
    );
    let failed = api.logged("ada", "failed").await?;
    let reason = failed[0]["operator_reason"].as_str().unwrap_or_default();
    println!("the operator is told: {reason}");
    assert!(reason.contains("image"), "{failed:?}");
    let document = api.learner("ada").await?;
    assert_eq!(
        (&document["state"], &document["state_detail"]),
        (&json!("Asleep"), &json!(reason))
    );
    assert_eq!(document["conditions"][1]["reason"], "GivenUp", "{document}");

    let spec = &counting(&json!({}))["spec"];
    api.admin(Method::PUT, "classes/counting", Some(spec.clone()))
        .await?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_message_to_a_learner_that_its_document_keeps_asleep_waits_and_says_so()
-> anyhow::Result<()> {
    let mut ada = agent::learner("ada", "counting");
    ada["spec"]["state"] = json!("Asleep");
    let setup = Setup {
        documents: vec![counting(&json!({})), ada],
        ..Setup::default()
    };
    let Some(up) = Up::start("kept asleep", setup).await? else {
        return Ok(());
    };
    let api = &up.api;
    let mut stream = api.post_and_follow("ada", "count", "k").await?;
    loop {
        let event = stream.next().await?.context("the turn waits")?;
        if event.text("detail").contains("your message waits") {
            break;
        }
    }
    let document = api.learner("ada").await?;
    assert_eq!(document["state"], "Asleep");
    let detail = document["state_detail"].as_str().unwrap_or_default();
    assert!(detail.contains("keeps it asleep"), "{document}");
    Ok(())
}
