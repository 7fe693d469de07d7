//! What is compared, in SQL that SQLite and PostgreSQL read alike: each statement gives the learners for whom it does not add up.

/// What is said of a learner, and the statement that finds them.
pub const CHECKS: [(&str, &str); 6] = [
    (
        "its events are not numbered without a hole",
        "SELECT l.id FROM learner l LEFT JOIN (SELECT learner, count(*) AS events, max(version) AS newest \
            FROM event GROUP BY learner) e ON e.learner = l.id \
         WHERE l.event_version <> coalesce(e.events, 0) OR l.event_version <> coalesce(e.newest, 0)",
    ),
    (
        "its head is not its newest generation",
        "SELECT l.id FROM learner l LEFT JOIN generation g ON g.learner = l.id AND g.generation = l.head_generation \
         WHERE coalesce(g.snapshot, '') <> coalesce(l.head_snapshot, '') \
            OR l.head_generation <> (SELECT coalesce(max(n.generation), 0) FROM generation n WHERE n.learner = l.id)",
    ),
    (
        "a turn that ended well is in no generation",
        "SELECT DISTINCT t.learner FROM turn t WHERE t.state IN ('done', 'stopped') AND t.snapshot IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM generation g WHERE g.turn = t.place)",
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
