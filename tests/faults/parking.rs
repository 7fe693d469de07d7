//! An agent's own deaths and verdicts: which are tried again, how often, and what is said of them.

use serde_json::json;

use crate::with_ada;

#[tokio::test]
async fn an_agent_killed_three_times_on_one_message_parks_it() -> anyhow::Result<()> {
    let Some(up) = with_ada("an agent killed three times", &json!({})).await? else {
        return Ok(());
    };
    let api = &up.api;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let error = api.failure("ada", "die").await?;
    assert_eq!(
        (error.text("code"), &error.data["retryable"]),
        ("agent_died", &json!(false))
    );
    assert!(error.text("detail").starts_with("Sorry"), "{error:?}");
    let turn = api.turn("ada", error.text("turn_id")).await?;
    assert_eq!(
        (&turn["state"], &turn["attempts"]),
        (&json!("failed"), &json!(3))
    );

    let failed = api.logged("ada", "failed").await?;
    let reason = failed[0]["operator_reason"].as_str().unwrap_or_default();
    println!(
        "to the learner: {}\nto the operator: {reason}",
        error.text("detail")
    );
    assert_eq!(failed.len(), 1);
    assert!(
        reason.contains("SIGKILL") || reason.contains("signal 9"),
        "{reason}"
    );
    assert!(
        !turn.to_string().contains(reason),
        "the operator's reason is not the learner's"
    );
    let restarted = api.logged("ada", "restarted").await?;
    let deaths: Vec<_> = restarted.iter().map(|event| &event["death"]).collect();
    assert_eq!(deaths, ["agent", "agent"], "the third parks it");

    assert_eq!(
        api.reply("ada", "count").await?,
        "2",
        "it goes on from the last commit"
    );
    Ok(())
}

#[tokio::test]
async fn an_agents_verdict_is_not_asked_for_twice() -> anyhow::Result<()> {
    let more = json!({"turn": {"timeoutSeconds": 2}});
    let Some(up) = with_ada("an agent's verdict", &more).await? else {
        return Ok(());
    };
    let api = &up.api;
    let mut count = 0;
    for (message, code) in [("exit", "agent_failed"), ("hang", "timeout")] {
        count += 1;
        assert_eq!(api.reply("ada", "count").await?, count.to_string());
        let error = api.failure("ada", message).await?;
        assert_eq!(error.text("code"), code, "{error:?}");
        let turn = api.turn("ada", error.text("turn_id")).await?;
        assert_eq!(turn["attempts"], json!(1), "{message}");
        println!("{message}: {}", error.data);
    }
    assert_eq!(
        api.reply("ada", "count").await?,
        "3",
        "what failed left nothing behind"
    );
    assert!(api.logged("ada", "restarted").await?.is_empty());
    Ok(())
}
