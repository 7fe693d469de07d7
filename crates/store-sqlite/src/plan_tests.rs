//! No hot statement reads a whole table: the plan of each is searched for scans. Partial indexes that hold only what is open,
//! stirring, held or unswept may be walked: with all learners asleep they are empty.

use carrel_store::ledger::UsageBy;
use sqlx::{AssertSqlSafe, Row};

use crate::{
    SqliteStore, accept, access, attempt, claim, commit, erase, events, fall_back, heads, keys,
    learners, ledger, outbox, outcome, turn_row, turns, usage, write,
};

/// Walks that are as long as what is under way, or that end at once.
const ALLOWED: [&str; 6] = [
    "SCAN t USING COVERING INDEX turn_waiting",
    "SCAN turn USING COVERING INDEX turn_waiting",
    "SCAN l USING INDEX learner_stirring",
    // A narrow entry of each learner, every few seconds while somebody scrapes.
    "SCAN l USING COVERING INDEX learner_census",
    // The aliases of one learner, the files of one message.
    "USE TEMP B-TREE FOR json_group_array(ORDER BY)",
    // No table at all.
    "SCAN CONSTANT ROW",
];

async fn plan(store: &SqliteStore, sql: &'static str) -> Vec<String> {
    let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explained)
        .fetch_all(&store.writer)
        .await
        .expect(sql);
    rows.iter().map(|row| row.get("detail")).collect()
}

/// The steps of a plan that read or sort more than they need.
fn wasteful(plan: &[String]) -> Vec<&String> {
    plan.iter()
        .filter(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE"))
        .filter(|step| !ALLOWED.iter().any(|allowed| step == allowed))
        .collect()
}

async fn opened() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("store.db")).await;
    (store.expect("a store"), folder)
}

#[tokio::test]
async fn no_hot_statement_reads_a_whole_table() {
    let (store, _folder) = opened().await;
    let statements = [
        accept::TAKE,
        accept::TAKEN,
        accept::QUEUE,
        access::SUBJECT,
        access::REDEEM,
        access::REVOKE,
        access::REVOKE_ONE,
        access::SWEEP,
        attempt::BEGIN,
        claim::WAITING,
        claim::BACKLOG,
        claim::OLDEST,
        claim::LEASE,
        claim::RENEW,
        attempt::LOST,
        commit::BEFORE,
        commit::TOLD,
        erase::OPEN,
        erase::UNSWEPT,
        events::EVENTS,
        events::FEED,
        fall_back::HISTORY,
        heads::HEAD,
        heads::GENERATIONS,
        heads::NEWEST,
        keys::KEY,
        learners::LEARNER,
        learners::LEARNERS_AFTER,
        learners::STIRRING,
        learners::BY_ALIAS,
        learners::CENSUS,
        learners::OPEN,
        learners::WAITING,
        ledger::SPENT,
        ledger::RUNNING,
        ledger::HELD,
        ledger::HOLD,
        ledger::SETTLE,
        ledger::CHARGE,
        ledger::COUNT,
        ledger::ORPHANS,
        outbox::CLAIM_OUTBOX,
        outcome::END,
        turn_row::TURN,
        turns::HISTORY,
        turns::LAST_ENDED,
        turns::PLACE,
        turns::REPLY_FILE,
        usage::CURSOR,
        usage::CHARGED,
        usage::BEHIND,
        write::FENCE,
        write::NEXT_VERSION,
    ];
    let by_one = [
        UsageBy::Learner,
        UsageBy::Class,
        UsageBy::Model,
        UsageBy::Day,
    ];
    let mut found = Vec::new();
    for sql in statements.into_iter().chain(erase::ERASE) {
        let plan = plan(&store, sql).await;
        if !wasteful(&plan).is_empty() {
            found.push((sql, plan));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for by in by_one {
        let plan = plan(&store, usage::statement(by, true)).await;
        let search = "SEARCH usage USING INDEX usage_learner (learner=? AND hour>? AND hour<?)";
        assert!(plan.iter().any(|step| step == search), "{by}\n{plan:#?}");
    }
}

#[tokio::test]
async fn a_scan_would_be_seen() {
    let (store, _folder) = opened().await;
    for sql in [
        "SELECT * FROM turn WHERE lease_until < 5",
        "SELECT * FROM learner WHERE class = 'free' ORDER BY created_time",
        "SELECT count(*) FROM turn WHERE state = 'running'",
    ] {
        let plan = plan(&store, sql).await;
        assert_ne!(wasteful(&plan), [""; 0], "{sql}\n{plan:#?}");
    }
}
