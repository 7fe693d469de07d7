//! Commands and the way to their server: one that answers as a test tells it to, and one to which a proxy would be in the way.

use carrel_testkit::provider::{Provider, Scene};
use carrel_tests::Up;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{Said, carrel, plain, said};

/// A learner as a server shows it.
async fn ada(up: &Up) -> anyhow::Result<Value> {
    let made = carrel(up, &["learner", "create", "ada"], "")?;
    assert_eq!(made.status, Some(0), "{made:?}");
    up.api.admin(Method::GET, "learners/ada", None).await
}

/// Runs a command against another server.
fn against(server: &Provider, up: &Up, words: &[&str]) -> anyhow::Result<Said> {
    let token = up.data().join("admin.token").display().to_string();
    let place = ["--server", server.url(), "--token-file", &token];
    carrel(up, &[words, &place].concat(), "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_taken_for_the_end_of_an_erasure() -> anyhow::Result<()> {
    let up = plain("an erasure", json!({})).await?;
    let ada = ada(&up).await?;
    for (code, answered, status, told) in [
        ("not_found", 404, 0, "is erased"),
        ("unavailable", 503, 1, "try again shortly"),
    ] {
        let last = json!({"code": code, "status": answered, "title": "try again shortly"});
        let scenes = [
            Scene::json(200, &ada),
            Scene::json(202, &Value::Null),
            Scene::json(200, &ada),
            Scene::json(answered, &last),
        ];
        let server = Provider::playing(scenes).await?;
        let words = ["learner", "rm", "ada", "--yes", "--wait"];
        let ended = against(&server, &up, &words)?;
        assert_eq!(ended.status, Some(status), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
        assert_eq!(server.recorded().len(), 4);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_every_learner() -> anyhow::Result<()> {
    let up = plain("the doctor", json!({})).await?;
    let ada = ada(&up).await?;
    let mut last = ada.clone();
    (last["id"], last["state"]) = (json!("zoe"), json!("Failed"));
    let server = Provider::answering(move |asked| {
        let page = match asked.path.split_once("after=") {
            None if asked.path.contains("learners") => json!({"learners": [ada], "next": "ada"}),
            None => json!({}),
            Some(_) => json!({"learners": [last]}),
        };
        Some(Scene::json(200, &page))
    });
    let found = against(&server.await?, &up, &["doctor"])?;
    assert_eq!(found.status, Some(1), "{found:?}");
    let told = "FAIL  learners: cannot be started: zoe";
    assert!(found.stdout.contains(told), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_for_this_machine_is_shown_to_no_proxy() -> anyhow::Result<()> {
    let up = plain("a proxy", json!({})).await?;
    let mut command = up.command(&["learner", "ls"])?;
    command.env("ALL_PROXY", "http://127.0.0.1:1");
    let listed = said(command.output()?)?;
    assert_eq!(listed.status, Some(0), "{listed:?}");
    Ok(())
}
