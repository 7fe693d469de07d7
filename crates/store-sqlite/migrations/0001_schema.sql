-- Times are nanoseconds since 1970, ids of 16 bytes are UUIDs, days and hours are whole ones since 1970, all UTC.

CREATE TABLE class (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL CHECK (json_valid(spec))
) STRICT, WITHOUT ROWID;

CREATE TABLE learner (
    id                  TEXT PRIMARY KEY,
    class               TEXT NOT NULL,
    created_time        INTEGER NOT NULL,
    last_activity_time  INTEGER,
    closing             INTEGER NOT NULL DEFAULT 0 CHECK (closing IN (0, 1)),
    desired_state       TEXT NOT NULL DEFAULT 'Auto',
    wake_after_epoch    INTEGER,
    status_epoch        INTEGER NOT NULL,
    status_state        TEXT NOT NULL DEFAULT 'Asleep',
    status_since        INTEGER,
    status_detail       TEXT NOT NULL DEFAULT '',
    status_pod          TEXT CHECK (json_valid(status_pod)),
    status_start_kind   TEXT,
    status_young_deaths INTEGER NOT NULL DEFAULT 0,
    status_retry_time   INTEGER,
    fence               INTEGER NOT NULL,
    repository          BLOB NOT NULL UNIQUE,
    head_generation     INTEGER NOT NULL DEFAULT 0,
    head_snapshot       TEXT,
    event_version       INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The condition of `stirring`, word for word: a fleet that starts never reads the sleeping ones.
CREATE INDEX learner_stirring ON learner (id)
    WHERE status_state <> 'Asleep' OR desired_state = 'Running' OR closing = 1 OR wake_after_epoch >= status_epoch;

CREATE TRIGGER fence_never_falls BEFORE UPDATE OF fence ON learner WHEN NEW.fence < OLD.fence
BEGIN SELECT RAISE(ABORT, 'the fence is never lowered'); END;

CREATE TABLE alias (
    channel     TEXT NOT NULL,
    external_id TEXT NOT NULL,
    learner     TEXT NOT NULL REFERENCES learner (id),
    PRIMARY KEY (channel, external_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_learner ON alias (learner);

-- What stays of an erased learner: the fence of its id, and its repository until its objects are gone for good.
CREATE TABLE tombstone (
    repository  BLOB PRIMARY KEY,
    id          TEXT NOT NULL,
    fence       INTEGER NOT NULL,
    erased_time INTEGER NOT NULL,
    swept       INTEGER NOT NULL DEFAULT 0 CHECK (swept IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_id ON tombstone (id, fence);
CREATE INDEX tombstone_unswept ON tombstone (erased_time) WHERE swept = 0;

CREATE TRIGGER tombstones_stay BEFORE DELETE ON tombstone
BEGIN SELECT RAISE(ABORT, 'a tombstone keeps the fence'); END;

-- A message, as it was accepted, and its turn, as it stands, have the same place: the order of acceptance.
CREATE TABLE message (
    place           INTEGER PRIMARY KEY,
    message_id      BLOB NOT NULL UNIQUE,
    learner         TEXT NOT NULL REFERENCES learner (id),
    idempotency_key TEXT NOT NULL,
    body_hash       BLOB NOT NULL,
    channel         TEXT NOT NULL,
    text            TEXT NOT NULL,
    sent_time       INTEGER NOT NULL,
    UNIQUE (learner, idempotency_key)
) STRICT;

CREATE TABLE turn (
    place                 INTEGER PRIMARY KEY REFERENCES message (place),
    turn_id               BLOB NOT NULL UNIQUE,
    learner               TEXT NOT NULL REFERENCES learner (id),
    state                 TEXT NOT NULL DEFAULT 'queued'
                          CHECK (state IN ('queued', 'running', 'done', 'failed', 'stopped')),
    version               INTEGER NOT NULL,
    epoch                 INTEGER,
    attempts              INTEGER NOT NULL DEFAULT 0,
    infrastructure_deaths INTEGER NOT NULL DEFAULT 0,
    agent_deaths          INTEGER NOT NULL DEFAULT 0,
    stop_requested        INTEGER NOT NULL DEFAULT 0 CHECK (stop_requested IN (0, 1)),
    lease_owner           BLOB,
    lease_generation      INTEGER NOT NULL DEFAULT 0,
    lease_until           INTEGER NOT NULL DEFAULT 0,
    claimed_time          INTEGER,
    started_version       INTEGER NOT NULL DEFAULT 0,
    start_kind            TEXT,
    input_tokens          INTEGER NOT NULL DEFAULT 0,
    output_tokens         INTEGER NOT NULL DEFAULT 0,
    cost                  INTEGER NOT NULL DEFAULT 0,
    reply                 TEXT CHECK (json_valid(reply)),
    failure               TEXT CHECK (json_valid(failure)),
    snapshot              TEXT,
    timing                TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(timing))
) STRICT;

CREATE INDEX turn_history ON turn (learner, place);
CREATE INDEX turn_open ON turn (learner, place, state) WHERE state IN ('queued', 'running');
CREATE INDEX turn_waiting ON turn (place, state, lease_until, learner) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX turn_running ON turn (learner) WHERE state = 'running';
CREATE INDEX turn_leased ON turn (lease_owner) WHERE lease_owner IS NOT NULL;

CREATE TRIGGER an_ended_turn_never_runs_again BEFORE UPDATE OF state ON turn
    WHEN OLD.state IN ('done', 'failed', 'stopped')
BEGIN SELECT RAISE(ABORT, 'an ended turn never runs again'); END;

CREATE TABLE file (
    place      INTEGER NOT NULL REFERENCES message (place),
    side       TEXT NOT NULL CHECK (side IN ('message', 'reply')),
    number     INTEGER NOT NULL,
    name       TEXT NOT NULL,
    media_type TEXT NOT NULL,
    data       BLOB NOT NULL,
    PRIMARY KEY (place, side, number)
) STRICT;

CREATE TABLE outbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    learner       TEXT NOT NULL REFERENCES learner (id),
    channel       TEXT NOT NULL,
    body          TEXT NOT NULL CHECK (json_valid(body)),
    claimed_until INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_channel ON outbox (channel, id, claimed_until);
CREATE INDEX outbox_learner ON outbox (learner);

-- The log. A sequence is never used twice, so that a reader's cursor stays right when a learner is erased.
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    learner  TEXT NOT NULL REFERENCES learner (id),
    version  INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    type     TEXT NOT NULL,
    body     TEXT NOT NULL CHECK (json_valid(body)),
    UNIQUE (learner, version)
) STRICT;
CREATE INDEX event_charged ON event (sequence) WHERE type = 'charged';

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_go_with_their_learner_only BEFORE DELETE ON event
    WHEN NOT EXISTS (SELECT 1 FROM learner WHERE id = OLD.learner AND closing = 1)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TABLE generation (
    learner    TEXT NOT NULL REFERENCES learner (id),
    generation INTEGER NOT NULL,
    snapshot   TEXT,
    parent     INTEGER NOT NULL,
    copy_of    INTEGER,
    time       INTEGER NOT NULL,
    turn       INTEGER REFERENCES turn (place),
    version    INTEGER NOT NULL,
    digest     BLOB,
    damaged    INTEGER NOT NULL DEFAULT 0 CHECK (damaged IN (0, 1)),
    expired    INTEGER NOT NULL DEFAULT 0 CHECK (expired IN (0, 1)),
    PRIMARY KEY (learner, generation)
) STRICT, WITHOUT ROWID;
CREATE INDEX generation_turn ON generation (turn) WHERE turn IS NOT NULL;

-- Turns whose effects a fall-back took from the workspace; told to the agent with the turn at `told_place`, which is
-- certain once that turn committed as `told_generation`.
CREATE TABLE lost_turn (
    learner         TEXT NOT NULL REFERENCES learner (id),
    place           INTEGER NOT NULL REFERENCES turn (place),
    told_place      INTEGER REFERENCES turn (place),
    told_generation INTEGER,
    PRIMARY KEY (learner, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX lost_turn_place ON lost_turn (place);
CREATE INDEX lost_turn_told ON lost_turn (told_place);

CREATE TABLE data_key (
    learner   TEXT PRIMARY KEY REFERENCES learner (id),
    algorithm TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    wrapped   BLOB NOT NULL
) STRICT;

-- Held reservations only: settling one deletes it and appends `charged`.
CREATE TABLE reservation (
    id      BLOB PRIMARY KEY,
    learner TEXT NOT NULL REFERENCES learner (id),
    class   TEXT NOT NULL,
    model   TEXT NOT NULL,
    turn    INTEGER REFERENCES turn (place),
    day     INTEGER NOT NULL,
    amount  INTEGER NOT NULL CHECK (amount >= 0),
    time    INTEGER NOT NULL
) STRICT;
CREATE INDEX reservation_time ON reservation (time);
CREATE INDEX reservation_learner ON reservation (learner);
CREATE INDEX reservation_turn ON reservation (turn) WHERE turn IS NOT NULL;

-- What budgets are checked against: a call counts on the day of its reservation.
CREATE TABLE account (
    learner TEXT NOT NULL REFERENCES learner (id),
    day     INTEGER NOT NULL,
    held    INTEGER NOT NULL CHECK (held >= 0),
    settled INTEGER NOT NULL CHECK (settled >= 0),
    PRIMARY KEY (learner, day)
) STRICT, WITHOUT ROWID;

-- The read model of usage, and how far into the log it has come.
CREATE TABLE usage (
    hour          INTEGER NOT NULL,
    learner       TEXT NOT NULL,
    class         TEXT NOT NULL,
    model         TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost          INTEGER NOT NULL,
    PRIMARY KEY (hour, learner, class, model)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_learner ON usage (learner, hour);

CREATE TABLE projection (
    name     TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO projection (name, sequence) VALUES ('usage', 0);

-- SHA-256 of tokens, sign-in codes and browser sessions; without a learner they are the operator's.
CREATE TABLE secret (
    hash         BLOB NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('token', 'code', 'session')),
    learner      TEXT REFERENCES learner (id),
    expires_time INTEGER NOT NULL,
    PRIMARY KEY (hash, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX secret_learner ON secret (learner);
CREATE INDEX secret_expires ON secret (expires_time);
