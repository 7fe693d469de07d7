//! What is compared, in SQL that SQLite and PostgreSQL read alike: each statement gives the learners for whom it does not add up.

/// What is said of a learner, and the statement that finds them.
pub const CHECKS: [(&str, &str); 12] = [
    (
        "its events are not numbered without a hole",
        "SELECT l.id FROM learner l LEFT JOIN (SELECT learner, count(*) AS events, max(version) AS newest \
            FROM event GROUP BY learner) e ON e.learner = l.id \
         WHERE l.event_version <> coalesce(e.events, 0) OR l.event_version <> coalesce(e.newest, 0)",
    ),
    (
        "its head is not its newest generation",
        "SELECT l.id FROM learner l LEFT JOIN generation g ON g.learner = l.id AND g.generation = l.head_generation \
         WHERE coalesce(g.snapshot, '') <> coalesce(l.head_snapshot, '') OR CASE WHEN g.expired THEN 1 ELSE 0 END = 1 \
            OR l.head_generation <> (SELECT coalesce(max(n.generation), 0) FROM generation n WHERE n.learner = l.id)",
    ),
    (
        "a generation does not follow the one before it",
        "SELECT learner FROM generation GROUP BY learner HAVING count(*) <> max(generation) \
            OR max(CASE WHEN parent <> generation - 1 OR copy_of >= generation THEN 1 ELSE 0 END) = 1",
    ),
    (
        "a generation is not what its event says",
        "SELECT DISTINCT g.learner FROM generation g \
            LEFT JOIN event e ON e.learner = g.learner AND e.version = g.version \
         WHERE e.type IS NULL OR e.type NOT IN ('done', 'snapshotted', 'fell_back', 'restored') \
            OR coalesce(CAST(e.body->>'generation' AS bigint), -1) <> g.generation \
            OR coalesce(e.body->>'snapshot_id', g.snapshot, '') <> coalesce(g.snapshot, '') \
            OR coalesce(CAST(e.body->>'to' AS bigint), g.copy_of, -1) <> coalesce(g.copy_of, -1)",
    ),
    (
        "a generation ended a turn that did not end with it",
        "SELECT DISTINCT g.learner FROM generation g JOIN turn t ON t.place = g.turn \
         WHERE t.state NOT IN ('done', 'stopped') OR t.learner <> g.learner \
            OR coalesce(t.snapshot, '') <> coalesce(g.snapshot, '')",
    ),
    (
        "a turn that ended well is in no generation",
        "SELECT DISTINCT t.learner FROM turn t WHERE t.state IN ('done', 'stopped') AND t.snapshot IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM generation g WHERE g.turn = t.place)",
    ),
    (
        "a turn ended otherwise than its newest event says",
        "SELECT DISTINCT t.learner FROM turn t LEFT JOIN event e ON e.learner = t.learner AND e.version = t.version \
         WHERE t.state IN ('done', 'failed', 'stopped') \
            AND coalesce(e.type, '') <> CASE t.state WHEN 'failed' THEN 'failed' ELSE 'done' END",
    ),
    (
        "a turn runs in another epoch than its start says",
        "SELECT t.learner FROM turn t LEFT JOIN event e ON e.learner = t.learner AND e.version = t.started_version \
         WHERE t.state = 'running' AND (t.epoch IS NULL OR coalesce(e.type, '') <> 'started' \
            OR coalesce(CAST(e.body->>'epoch' AS bigint), -1) <> t.epoch)",
    ),
    (
        "a message has no turn",
        "SELECT DISTINCT m.learner FROM message m LEFT JOIN turn t ON t.place = m.place WHERE t.place IS NULL",
    ),
    (
        "what its accounts hold is not what its reservations hold",
        "SELECT DISTINCT learner FROM (SELECT x.learner AS learner FROM ( \
            SELECT learner, day, held FROM account UNION ALL SELECT learner, day, -amount FROM reservation) x \
         GROUP BY x.learner, x.day HAVING sum(x.held) <> 0) y",
    ),
    (
        "what its accounts settled is not what its events charged",
        "SELECT x.learner FROM (SELECT learner, settled FROM account \
            UNION ALL SELECT learner, -CAST(body->>'cost' AS bigint) FROM event WHERE type = 'charged') x \
         GROUP BY x.learner HAVING sum(x.settled) <> 0",
    ),
    (
        "its usage is not the fold of its events ('carrel store rebuild usage' mends it)",
        "SELECT DISTINCT learner FROM (SELECT x.learner AS learner FROM ( \
            SELECT hour, learner, class, model, calls, input_tokens, output_tokens, cost FROM usage \
            UNION ALL SELECT time / 3600000000000, learner, body->>'class', body->>'model', -1, \
                -CAST(body->>'input_tokens' AS bigint), -CAST(body->>'output_tokens' AS bigint), \
                -CAST(body->>'cost' AS bigint) FROM event WHERE type = 'charged' \
                AND (CAST(body->>'cost' AS bigint) <> 0 OR CAST(body->>'input_tokens' AS bigint) <> 0 \
                    OR CAST(body->>'output_tokens' AS bigint) <> 0)) x \
         GROUP BY x.hour, x.learner, x.class, x.model HAVING sum(x.calls) <> 0 OR sum(x.input_tokens) <> 0 \
            OR sum(x.output_tokens) <> 0 OR sum(x.cost) <> 0) y",
    ),
];
