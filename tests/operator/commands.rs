//! Commands that look at classes and learners and change them.

use serde_json::{Value, json};

use crate::{carrel, plain};

const SMALL: &str = "apiVersion: carrel.dev/v1alpha1
kind: LearnerClass
metadata: {name: small}
spec:
  budget:
    perDayUsd: \"0.50\"
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_comes_by_standard_input_and_a_learner_is_moved_to_it() -> anyhow::Result<()> {
    let up = plain("classes", json!({})).await?;
    let wrong = SMALL.replace("\"0.50\"", "0.50");
    let said = carrel(&up, &["class", "apply", "-f", "-"], &wrong)?;
    assert_eq!(said.status, Some(2));
    assert!(
        said.stderr
            .contains("standard input:6: spec.budget.perDayUsd: ")
            && said.stderr.contains("put it in quotes, as in \"0.5\""),
        "{}",
        said.stderr
    );
    let said = carrel(&up, &["class", "apply", "-f", "-"], SMALL)?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);

    let said = carrel(&up, &["learner", "create", "ada"], "")?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let words = [
        "learner", "set", "ada", "--class", "small", "--alias", "mail=a@b",
    ];
    let said = carrel(&up, &words, "")?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let ada = up.api.learner("ada").await?;
    assert_eq!(ada["class"], "small");
    assert_eq!(
        ada["aliases"],
        json!([{"channel": "mail", "external_id": "a@b"}])
    );
    // What is not named stays.
    let said = carrel(&up, &["learner", "set", "ada", "--class", "default"], "")?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let ada = up.api.learner("ada").await?;
    assert_eq!(
        (&ada["class"], &ada["aliases"][0]["channel"]),
        (&json!("default"), &json!("mail"))
    );
    for (words, status) in [
        (["learner", "set", "ada", "-o", "yaml"], 2),
        (["learner", "set", "ada", "--class", "none-such"], 2),
        (["learner", "set", "nobody", "--class", "small"], 4),
    ] {
        let said = carrel(&up, &words, "")?;
        assert_eq!(said.status, Some(status), "{words:?}: {}", said.stderr);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_cannot_be_erased_and_who_is_has_an_age() -> anyhow::Result<()> {
    let up = plain("ages", json!({})).await?;
    let said = carrel(&up, &["learner", "rm", "nobody"], "")?;
    assert_eq!(said.status, Some(4), "{}", said.stderr);
    assert_eq!(said.stderr, "carrel: there is no such learner\n");
    let said = carrel(&up, &["learner", "rm", "me"], "")?;
    assert_eq!(said.status, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("usage records") && said.stderr.contains("--yes"),
        "{}",
        said.stderr
    );

    let said = carrel(&up, &["learner", "ls", "-o", "wide", "--no-headers"], "")?;
    let cells: Vec<_> = said.stdout.split_whitespace().collect();
    let age = cells.get(5).copied().unwrap_or_default();
    assert!(
        age.strip_suffix('s')
            .is_some_and(|age| age.parse::<u32>().is_ok()),
        "{}",
        said.stdout
    );
    let said = carrel(&up, &["learner", "ls", "-o", "json"], "")?;
    let listed: Value = serde_json::from_str(&said.stdout)?;
    assert_eq!(
        listed[0]["created_time"],
        up.api.learner("me").await?["created_time"]
    );
    let said = carrel(&up, &["learner", "logs", "me"], "")?;
    let time = said.stdout.split(' ').next().unwrap_or_default();
    assert_eq!(time.len(), "2026-01-01T00:00:00Z".len(), "{}", said.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_command_is_one_for_the_same_folder() -> anyhow::Result<()> {
    let mut up = plain("next commands", json!({})).await?;
    let elsewhere = up.data().join("else where");
    std::fs::create_dir(&elsewhere)?;
    let elsewhere = elsewhere.display().to_string();
    let said = carrel(&up, &["doctor", "--data-dir", &elsewhere], "")?;
    assert_eq!(said.status, Some(1));
    let next = format!("next: carrel up --data-dir '{elsewhere}'\n");
    assert!(said.stdout.contains(&next), "{}", said.stdout);

    let data = up.data().display().to_string();
    for words in [
        ["--data-dir", &data, "learner", "ls"],
        ["learner", "--data-dir", &data, "ls"],
    ] {
        let said = crate::said(up.command(&words)?.env_remove("CARREL_DATA_DIR").output()?)?;
        assert_eq!(said.status, Some(0), "{}", said.stderr);
    }

    let said = carrel(&up, &["config", "show"], "")?;
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let who = format!("(pid {}) was not asked", up.pid());
    assert!(said.stderr.contains(&who), "{}", said.stderr);

    let pid = up.pid();
    up.kill()?;
    let said = carrel(&up, &["learner", "ls"], "")?;
    assert_eq!(said.status, Some(1));
    let ended = format!("(pid {pid}) has ended: start it again with 'carrel up --data-dir {data}'");
    assert!(said.stderr.contains(&ended), "{}", said.stderr);
    Ok(())
}
