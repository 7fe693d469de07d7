//! No hot statement reads a whole table: the plan of each, as it is whatever the arguments are, on a database with 16,000
//! learners, is searched for scans. Partial indexes that hold only what is open, stirring, held or unswept may be walked: with all
//! learners asleep they are empty.

use std::fmt::Write as _;

use carrel_store::ledger::UsageBy;
use carrel_testkit::postgres::{SUPERUSER, Server};

use crate::open::OF_FEW;
use crate::{
    Options, accept, access, attempt, claim, commit, erase, events, fall_back, heads, keys,
    learner_row, learners, ledger, migrate, outbox, outcome, turn_row, turns, usage, write,
};

/// Walks that are as long as what is under way.
const ALLOWED: [&str; 7] = [
    "turn_waiting",
    "turn_open",
    "turn_running",
    "turn_leased",
    "learner_stirring",
    // A narrow entry of each learner, every few seconds while somebody scrapes.
    "learner_census",
    "outbox_pkey",
];

/// A school: what 16,000 learners have left behind, and a few that are at it.
const SCHOOL: &str = "
SET session_replication_role = replica;
INSERT INTO learner (id, class, created_time, status_epoch, status, fence, repository)
    SELECT 'learner-' || n, 'free', n, 1, '{}', 1, gen_random_uuid() FROM generate_series(1, 16000) n;
UPDATE learner SET status_state = 'Ready' WHERE id LIKE 'learner-77%';
INSERT INTO message (message_id, learner, idempotency_key, body_hash, channel, text, sent_time)
    SELECT gen_random_uuid(), id, 'k' || n, 'hash', 'web', 'text', n FROM generate_series(1, 5) n, learner;
INSERT INTO turn (place, turn_id, learner, state, version, epoch)
    SELECT place, gen_random_uuid(), learner, 'done', 3, 1 FROM message;
UPDATE turn SET state = 'queued' WHERE place % 400 = 1;
INSERT INTO event (learner, version, time, type, body)
    SELECT id, n, n, CASE WHEN n = 4 THEN 'charged' ELSE 'queued' END, '{}' FROM generate_series(1, 10) n, learner;
INSERT INTO generation (learner, generation, parent, time, turn, version)
    SELECT learner, row_number() OVER (PARTITION BY learner), 0, 0, place, 3 FROM turn;
INSERT INTO account (learner, day, held, settled) SELECT id, n, 0, 5 FROM generate_series(1, 10) n, learner;
INSERT INTO usage SELECT n, id, 'free', 'demo/tutor', 1, 1, 1, 1 FROM generate_series(1, 10) n, learner;
INSERT INTO secret SELECT decode(md5(id), 'hex'), 'token', id, 9 FROM learner;
INSERT INTO data_key SELECT id, 'A256GCM', 'kek', 'x' FROM learner;
INSERT INTO alias SELECT 'lti', id, id FROM learner;
INSERT INTO file SELECT place, 'message', 0, '[]', 'x' FROM message WHERE place % 9 = 0;
INSERT INTO reservation SELECT gen_random_uuid(), learner, 'free', 'demo/tutor', place, 1, 1, place FROM turn WHERE place % 8 = 0;
INSERT INTO outbox (learner, channel, body) SELECT id, 'lti', '{}' FROM learner;
INSERT INTO lost_turn (learner, place) SELECT learner, place FROM turn WHERE place % 7 = 0;
INSERT INTO tombstone SELECT gen_random_uuid(), 'gone-' || n, 1, n, true FROM generate_series(1, 5000) n;
SET session_replication_role = origin;
VACUUM ANALYZE;
";

fn school() -> Option<&'static Server> {
    static MADE: std::sync::Once = std::sync::Once::new();
    let server = Server::shared(&["fsync=off"])?;
    MADE.call_once(|| {
        server.psql("postgres", "CREATE DATABASE school");
        let options = Options::new(&server.url(SUPERUSER, "school"));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(migrate(&options)).expect("migrated");
        // What a plan is made from that was made before anything was written.
        server.psql("postgres", "CREATE DATABASE new_school TEMPLATE school");
        server.psql("school", SCHOOL);
    });
    Some(server)
}

/// The plan of each statement that serves any arguments.
fn plans(
    server: &Server,
    database: &str,
    settings: &[(&str, &str)],
    statements: &[&str],
) -> Vec<String> {
    let mut script = "SET plan_cache_mode = force_generic_plan;\n".to_owned();
    for (name, value) in settings {
        writeln!(script, "SET {name} = {value};").expect("a string takes it");
    }
    for sql in statements {
        let arguments = (1..99)
            .take_while(|n| sql.contains(&format!("${n}")))
            .count();
        let arguments = vec!["NULL"; arguments].join(", ");
        let arguments = if arguments.is_empty() {
            arguments
        } else {
            format!("({arguments})")
        };
        writeln!(
            script,
            "PREPARE q AS {sql};\nEXPLAIN (COSTS OFF) EXECUTE q {arguments};\nDEALLOCATE q;\n\\echo ----"
        )
        .expect("a string takes it");
    }
    let told = server.psql(database, &script);
    let plans: Vec<String> = told.split("----\n").map(str::to_owned).collect();
    assert_eq!(plans.len(), statements.len() + 1, "{told}");
    plans
}

/// The steps of a plan that read more than they need: a table, or an index from end to end.
fn wasteful(plan: &str) -> Vec<&str> {
    let steps: Vec<&str> = plan.lines().collect();
    let walks = |at: usize| {
        let mut below = steps[at + 1..]
            .iter()
            .take_while(|line| !line.contains("->"));
        !below.any(|line| line.contains("Index Cond:"))
            && !ALLOWED.iter().any(|allowed| steps[at].contains(allowed))
    };
    let is_wasteful = |at: usize| {
        steps[at].contains("Seq Scan") || (steps[at].contains("Scan using") && walks(at))
    };
    (0..steps.len())
        .filter(|at| is_wasteful(*at))
        .map(|at| steps[at].trim())
        .collect()
}

#[test]
fn no_hot_statement_reads_a_whole_table() {
    let Some(server) = school() else {
        return;
    };
    let of_one = [
        UsageBy::Learner,
        UsageBy::Class,
        UsageBy::Model,
        UsageBy::Day,
    ]
    .map(|by| usage::statement(by, true));
    let mut statements = vec![
        accept::TAKE,
        accept::TAKEN,
        access::GRANT,
        access::SUBJECTS,
        access::REDEEM,
        access::REVOKE,
        access::REVOKE_ONE,
        access::SWEEP,
        attempt::BEGIN,
        attempt::BEGIN_WAITING,
        attempt::LOST,
        attempt::PUT_BACK,
        attempt::PUT_VERSION,
        claim::ATTACHMENTS,
        claim::BACKLOG,
        claim::CLAIM,
        claim::OWNER,
        claim::RELEASE,
        claim::RENEW,
        claim::WAITING,
        claim::WAITING_AMONG,
        commit::BEFORE,
        commit::MOVE_HEAD,
        erase::CLOSE,
        erase::OPEN,
        erase::UNSWEPT,
        events::EVENTS,
        events::FEED,
        fall_back::HISTORY,
        heads::CONTACT,
        heads::GENERATIONS,
        heads::NEWEST,
        heads::HEAD,
        keys::KEY,
        keys::REWRAP,
        learners::BY_ALIAS,
        learners::CENSUS,
        learners::LEARNER,
        learner_row::LEARNERS,
        learners::LEARNERS_AFTER,
        learners::OPEN,
        learners::PUT_CLASS,
        learners::SEE,
        learners::STIRRING,
        ledger::ORPHANS,
        ledger::RESERVE,
        ledger::RESERVED,
        ledger::SETTLE,
        outbox::CLAIM_OUTBOX,
        outbox::DELIVERED,
        outcome::END,
        outcome::WISH_STOP,
        turn_row::TURN,
        turn_row::WHOSE,
        turns::HISTORY,
        turns::LAST_ENDED,
        turns::PLACE,
        turns::REPLY_FILE,
        usage::CHARGED,
        write::APPEND,
        write::FENCE,
        write::RAISE,
    ];
    statements.extend(of_one.iter().map(String::as_str));
    let (of_few, of_many): (&[_], &[_]) = (&OF_FEW, &[]);
    for (database, settings) in [
        ("new_school", of_few),
        ("school", of_few),
        ("school", of_many),
    ] {
        let plans = plans(server, database, settings, &statements);
        let found: Vec<_> = statements
            .iter()
            .zip(&plans)
            .filter(|(_, plan)| !wasteful(plan).is_empty())
            .map(|(sql, plan)| format!("{sql}\n{:#?}\n{plan}", wasteful(plan)))
            .collect();
        assert!(
            found.is_empty(),
            "{database} {settings:?}: {}",
            found.join("\n\n")
        );
    }
    let plans = plans(server, "school", &[], &statements);
    for waiting in [claim::WAITING, claim::WAITING_AMONG] {
        let at = statements.iter().position(|sql| *sql == waiting);
        let plan = &plans[at.expect("it is among them")];
        assert!(plan.contains("turn_open"), "{plan}");
    }
    for plan in &plans[statements.len() - of_one.len()..statements.len()] {
        assert!(plan.contains("usage_learner"), "{plan}");
    }
}

#[test]
fn a_scan_would_be_seen() {
    let Some(server) = school() else {
        return;
    };
    let statements = [
        "SELECT * FROM turn WHERE lease_until < $1",
        "SELECT * FROM learner WHERE class = $1 ORDER BY created_time",
        "SELECT count(*) FROM turn WHERE state = 'done'",
        "SELECT id FROM learner ORDER BY id",
    ];
    let plans = plans(server, "school", &[], &statements);
    for (sql, plan) in statements.iter().zip(&plans) {
        assert_ne!(wasteful(plan), [""; 0], "{sql}\n{plan}");
    }
}
