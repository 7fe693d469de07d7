//! What a server that has seen good and bad days says of them.

use std::collections::BTreeSet;
use std::time::Duration;

use carrel_tests::{Setup, Up, eventually};
use serde_json::json;

use crate::ada;

/// Every name that is promised and that one machine can have. `carrel_api_writes_total` counts writes to Kubernetes.
const PROMISED: [&str; 19] = [
    "carrel_build_info",
    "carrel_budget_refusals_total",
    "carrel_learners",
    "carrel_model_cost_usd_total",
    "carrel_model_overhead_seconds",
    "carrel_model_requests_total",
    "carrel_model_time_to_first_token_seconds",
    "carrel_model_tokens_total",
    "carrel_oldest_message_age_seconds",
    "carrel_reconcile_duration_seconds",
    "carrel_snapshot_bytes",
    "carrel_snapshot_duration_seconds",
    "carrel_turn_duration_seconds",
    "carrel_turns_waiting",
    "carrel_wake_duration_seconds",
    "carrel_wakes_total",
    // Ours besides.
    "carrel_budget_overruns_total",
    "carrel_fall_backs_total",
    "carrel_vault_calls_total",
];

/// Series that are there after a wake, a turn by a model, and a turn whose snapshot was refused.
const SERIES: [&str; 18] = [
    r#"carrel_learners{state="Ready",class="default"} 1"#,
    r#"carrel_wakes_total{start_kind="cold",result="ready"}"#,
    r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="queue"}"#,
    r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="schedule"}"#,
    r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="assign"}"#,
    r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="restore"}"#,
    r#"carrel_wake_duration_seconds_count{start_kind="cold",stage="agent"}"#,
    r#"carrel_turn_duration_seconds_count{result="done"} 1"#,
    r#"carrel_turn_duration_seconds_count{result="failed"} 1"#,
    r#"carrel_snapshot_duration_seconds_count{result="ok"} 1"#,
    r#"carrel_snapshot_duration_seconds_count{result="failed"} 1"#,
    r#"carrel_vault_calls_total{result="ok"}"#,
    "carrel_fall_backs_total 0",
    r#"carrel_snapshot_bytes_count{kind="new"} 1"#,
    r#"carrel_snapshot_bytes_count{kind="total"} 1"#,
    r#"carrel_reconcile_duration_seconds_count{result="ok"}"#,
    "carrel_turns_waiting 0",
    "carrel_oldest_message_age_seconds 0",
];

/// The names of all samples, those of histograms without their endings.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .unwrap_or(name)
        })
        .collect()
}

#[tokio::test]
async fn everything_that_is_promised_is_measured_and_nothing_names_a_learner() -> anyhow::Result<()>
{
    let mut documents = ada(&json!({"snapshot": {"maxBytes": "1Mi"}}));
    documents.push(carrel_tests::agent::learner("yara", "default"));
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let Some(up) = Up::start("everything that is promised is measured", setup).await? else {
        return Ok(());
    };
    up.api.reply("yara", "Remember that I like chess").await?;
    let refused = up.api.failure("ada", "write 2").await?;
    assert_eq!(refused.data["code"], "workspace_limit", "{refused:?}");

    let address = format!("{}/metrics", up.text("gateway_url"));
    // The last turn is measured just after its client was told, so the text may lack it at first.
    let seen = std::cell::RefCell::new(String::new());
    let all = eventually("every series is there", Duration::from_secs(20), || async {
        let text = reqwest::get(&address).await?.text().await?;
        let whole = SERIES.iter().all(|series| text.contains(series));
        seen.replace(text);
        Ok(whole.then_some(()))
    });
    let all = all.await;
    let text = seen.into_inner();
    let missing: Vec<_> = SERIES
        .iter()
        .filter(|series| !text.contains(*series))
        .collect();
    assert!(all.is_ok(), "{missing:#?} are missing in {text}");
    assert_eq!(names(&text), BTreeSet::from(PROMISED), "{text}");
    for learner in ["yara", "ada", "\"me\""] {
        assert!(!text.contains(learner), "{learner} is named: {text}");
    }
    Ok(())
}
