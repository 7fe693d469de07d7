//! What a school that sleeps costs: processor time of all roles and of PostgreSQL, and whether anything reads a whole table.

use std::time::Duration;

use anyhow::Context as _;
use carrel_tests::figures::Figures;
use carrel_tests::machine::family;

use super::school;
use crate::idle::ticks;

/// How long is watched.
const WATCH: Duration = Duration::from_mins(1);
/// What a start itself does has ended by then.
const SETTLED: Duration = Duration::from_secs(20);
/// Of one core.
const BAR_PERCENT: f64 = 1.0;

/// What five turns of each learner left behind.
const PAST: &str = "
SET session_replication_role = replica;
UPDATE learner SET event_version = 10, status_epoch = 1, fence = 1;
INSERT INTO message (message_id, learner, idempotency_key, body_hash, channel, text, sent_time)
    SELECT gen_random_uuid(), id, 'k' || n, 'hash', 'web', 'text', n FROM generate_series(1, 5) n, learner;
INSERT INTO turn (place, turn_id, learner, state, version, epoch)
    SELECT place, gen_random_uuid(), learner, 'done', 3, 1 FROM message;
INSERT INTO event (learner, version, time, type, body)
    SELECT id, n, n, 'state_changed', '{\"type\": \"state_changed\", \"state\": \"Ready\", \"epoch\": 1}'
    FROM generate_series(1, 10) n, learner;
INSERT INTO account (learner, day, held, settled) SELECT id, n, 0, 5 FROM generate_series(1, 10) n, learner;
INSERT INTO usage SELECT n, id, 'pace', 'demo/tutor', 1, 1, 1, 1 FROM generate_series(1, 10) n, learner;
INSERT INTO secret SELECT decode(md5(id), 'hex'), 'token', id, 9000000000000000000 FROM learner;
INSERT INTO alias SELECT 'lti', id, id FROM learner;
SET session_replication_role = origin;
";
/// Scans from end to end of tables that hold a row for each learner or more.
const SCANS: &str =
    "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE n_live_tup >= 16000";

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let roles = school("asleep")?;
    roles.server.psql(&roles.database, PAST);
    roles.server.psql(&roles.database, "VACUUM ANALYZE");
    let mut members = Vec::new();
    for role in ["gateway", "fleet", "router", "vault"] {
        members.push((role, roles.start(role).await?));
    }
    tokio::time::sleep(SETTLED).await;
    let scans = || -> anyhow::Result<u64> {
        let sum = roles.server.psql(&roles.database, SCANS);
        sum.trim().parse().context("a number of scans")
    };
    let mut parts: Vec<(&str, u32)> = members
        .iter()
        .map(|(role, member)| (*role, member.pid()))
        .collect();
    parts.push(("PostgreSQL", roles.server.pid()));
    // A child may end between two looks.
    let used = || -> Vec<u64> {
        let of = |pid: u32| family(pid).into_iter().filter_map(|pid| ticks(pid).ok());
        parts.iter().map(|(_, pid)| of(*pid).sum()).collect()
    };
    let (scans_before, before) = (scans()?, used());
    tokio::time::sleep(WATCH).await;
    let (after, scans_after) = (used(), scans()?);
    let percent = |ticks: u64| {
        let seconds = f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / 100.0;
        seconds / WATCH.as_secs_f64() * 100.0
    };
    let each: Vec<u64> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.saturating_sub(*before))
        .collect();
    let shares: Vec<String> = parts
        .iter()
        .zip(&each)
        .map(|((role, _), ticks)| format!("{role} {:.2}", percent(*ticks)))
        .collect();
    let all = percent(each.iter().sum());
    let scans = scans_after - scans_before;
    figures.held(
        "16,000 learners asleep on PostgreSQL, 60 s: processor time of all roles and the database, in % of one core",
        &format!("{all:.2} % ({}); {scans} full scans", shares.join(", ")),
        "≤ 1 %; no full scan",
        all <= BAR_PERCENT && scans == 0,
    );
    Ok(())
}
