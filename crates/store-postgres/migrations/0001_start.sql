-- Times are nanoseconds since 1970, days and hours are whole ones since 1970, all UTC. Documents are `json`, not `jsonb`: they
-- are kept as they were written, and what an agent says may hold characters that `jsonb` refuses.

CREATE TABLE class (
    name text COLLATE "C" PRIMARY KEY,
    spec json NOT NULL
);

-- The room in each page keeps what every event changes (version, activity) in place, without new entries in the indexes.
CREATE TABLE learner (
    id                 text COLLATE "C" PRIMARY KEY,
    class              text COLLATE "C" NOT NULL,
    created_time       bigint NOT NULL,
    last_activity_time bigint,
    closing            boolean NOT NULL DEFAULT false,
    desired_state      text NOT NULL DEFAULT 'Auto',
    wake_after_epoch   bigint,
    status_epoch       bigint NOT NULL,
    status_state       text NOT NULL DEFAULT 'Asleep',
    status             json NOT NULL,
    fence              bigint NOT NULL,
    repository         uuid NOT NULL UNIQUE,
    head_generation    bigint NOT NULL DEFAULT 0,
    head_snapshot      text,
    event_version      bigint NOT NULL DEFAULT 0,
    reservations       bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 60);

-- The condition of `stirring`, word for word: a fleet that starts never reads the sleeping ones.
CREATE INDEX learner_stirring ON learner (id)
    WHERE status_state <> 'Asleep' OR desired_state = 'Running' OR closing OR wake_after_epoch >= status_epoch;

-- All that a census reads of a learner.
CREATE INDEX learner_census ON learner (class, status_state, id);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER fence_never_falls BEFORE UPDATE OF fence ON learner FOR EACH ROW
    WHEN (NEW.fence < OLD.fence) EXECUTE FUNCTION refuse('the fence is never lowered');

CREATE TABLE alias (
    channel     text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    learner     text COLLATE "C" NOT NULL REFERENCES learner (id),
    PRIMARY KEY (channel, external_id)
);
CREATE INDEX alias_learner ON alias (learner);

-- What stays of an erased learner: the fence of its id, and its repository until its objects are gone for good.
CREATE TABLE tombstone (
    repository  uuid PRIMARY KEY,
    id          text COLLATE "C" NOT NULL,
    fence       bigint NOT NULL,
    erased_time bigint NOT NULL,
    swept       boolean NOT NULL DEFAULT false
);
CREATE INDEX tombstone_id ON tombstone (id, fence);
CREATE INDEX tombstone_unswept ON tombstone (erased_time) WHERE NOT swept;

CREATE TRIGGER tombstones_stay BEFORE DELETE OR TRUNCATE ON tombstone FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('a tombstone keeps the fence');

-- A message, as it was accepted, and its turn, as it stands, have the same place: the order of acceptance.
CREATE TABLE message (
    place           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id      uuid NOT NULL UNIQUE,
    learner         text COLLATE "C" NOT NULL REFERENCES learner (id),
    idempotency_key text COLLATE "C" NOT NULL,
    body_hash       bytea NOT NULL,
    channel         text COLLATE "C" NOT NULL,
    text            text NOT NULL,
    sent_time       bigint NOT NULL,
    UNIQUE (learner, idempotency_key)
);

CREATE TABLE turn (
    place                 bigint PRIMARY KEY REFERENCES message (place),
    turn_id               uuid NOT NULL UNIQUE,
    learner               text COLLATE "C" NOT NULL REFERENCES learner (id),
    state                 text NOT NULL DEFAULT 'queued'
                          CHECK (state IN ('queued', 'running', 'done', 'failed', 'stopped')),
    version               bigint NOT NULL,
    epoch                 bigint,
    attempts              integer NOT NULL DEFAULT 0,
    infrastructure_deaths integer NOT NULL DEFAULT 0,
    agent_deaths          integer NOT NULL DEFAULT 0,
    stop_requested        boolean NOT NULL DEFAULT false,
    lease_owner           uuid,
    lease_generation      bigint NOT NULL DEFAULT 0,
    lease_until           bigint NOT NULL DEFAULT 0,
    claimed_time          bigint,
    started_version       bigint NOT NULL DEFAULT 0,
    start_kind            text,
    input_tokens          bigint NOT NULL DEFAULT 0,
    output_tokens         bigint NOT NULL DEFAULT 0,
    cost                  bigint NOT NULL DEFAULT 0,
    reply                 json,
    failure               json,
    snapshot              text,
    queue_ms              bigint NOT NULL DEFAULT 0,
    wake_ms               bigint NOT NULL DEFAULT 0,
    restore_ms            bigint NOT NULL DEFAULT 0,
    agent_ms              bigint NOT NULL DEFAULT 0,
    snapshot_ms           bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

CREATE INDEX turn_history ON turn (learner, place);
CREATE INDEX turn_open ON turn (learner, place) INCLUDE (state) WHERE state IN ('queued', 'running');
CREATE INDEX turn_waiting ON turn (place) INCLUDE (learner, lease_until) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX turn_running ON turn (learner) WHERE state = 'running';
CREATE INDEX turn_leased ON turn (lease_owner) WHERE lease_owner IS NOT NULL;

CREATE TRIGGER an_ended_turn_never_runs_again BEFORE UPDATE OF state ON turn FOR EACH ROW
    WHEN (OLD.state IN ('done', 'failed', 'stopped')) EXECUTE FUNCTION refuse('an ended turn never runs again');

-- `about` is the pair of name and media type.
CREATE TABLE file (
    place  bigint NOT NULL REFERENCES message (place),
    side   text NOT NULL CHECK (side IN ('message', 'reply')),
    number integer NOT NULL,
    about  json NOT NULL,
    data   bytea NOT NULL,
    PRIMARY KEY (place, side, number)
);

CREATE TABLE outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    learner       text COLLATE "C" NOT NULL REFERENCES learner (id),
    channel       text COLLATE "C" NOT NULL,
    body          json NOT NULL,
    claimed_until bigint NOT NULL DEFAULT 0
);
CREATE INDEX outbox_channel ON outbox (channel, id) INCLUDE (claimed_until);
CREATE INDEX outbox_learner ON outbox (learner);

-- The log. Its order for readers of all is (tx, sequence), up to the oldest transaction that still runs.
CREATE TABLE event (
    tx       xid8 NOT NULL DEFAULT pg_current_xact_id(),
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    learner  text COLLATE "C" NOT NULL REFERENCES learner (id),
    version  bigint NOT NULL,
    time     bigint NOT NULL,
    type     text NOT NULL,
    body     json NOT NULL,
    PRIMARY KEY (learner, version)
);
CREATE UNIQUE INDEX event_feed ON event (tx, sequence);

CREATE TRIGGER events_are_not_changed BEFORE UPDATE OR TRUNCATE ON event FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('events are append-only');

CREATE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM learner WHERE id = OLD.learner AND closing) THEN
        RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER events_go_with_their_learner_only BEFORE DELETE ON event FOR EACH ROW EXECUTE FUNCTION keep_events();

CREATE TABLE generation (
    learner    text COLLATE "C" NOT NULL REFERENCES learner (id),
    generation bigint NOT NULL,
    snapshot   text,
    parent     bigint NOT NULL,
    copy_of    bigint,
    time       bigint NOT NULL,
    turn       bigint REFERENCES turn (place),
    version    bigint NOT NULL,
    digest     bytea,
    damaged    boolean NOT NULL DEFAULT false,
    expired    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (learner, generation)
);
CREATE INDEX generation_turn ON generation (turn) WHERE turn IS NOT NULL;

-- Turns whose effects a fall-back took from the workspace; told to the agent with the turn at `told_place`, which is
-- certain once that turn committed as `told_generation`.
CREATE TABLE lost_turn (
    learner         text COLLATE "C" NOT NULL REFERENCES learner (id),
    place           bigint NOT NULL REFERENCES turn (place),
    told_place      bigint REFERENCES turn (place),
    told_generation bigint,
    PRIMARY KEY (learner, place)
);
CREATE INDEX lost_turn_place ON lost_turn (place);
CREATE INDEX lost_turn_told ON lost_turn (told_place);

CREATE TABLE data_key (
    learner   text COLLATE "C" PRIMARY KEY REFERENCES learner (id),
    algorithm text NOT NULL,
    key_id    text NOT NULL,
    wrapped   bytea NOT NULL
);

-- Held reservations only: settling one deletes it and appends `charged`.
CREATE TABLE reservation (
    id      uuid PRIMARY KEY,
    learner text COLLATE "C" NOT NULL REFERENCES learner (id),
    class   text COLLATE "C" NOT NULL,
    model   text COLLATE "C" NOT NULL,
    turn    bigint REFERENCES turn (place),
    day     bigint NOT NULL,
    amount  bigint NOT NULL CHECK (amount >= 0),
    time    bigint NOT NULL
);
CREATE INDEX reservation_time ON reservation (time);
CREATE INDEX reservation_learner ON reservation (learner);
CREATE INDEX reservation_turn ON reservation (turn) WHERE turn IS NOT NULL;

-- What budgets are checked against: a call counts on the day of its reservation.
CREATE TABLE account (
    learner text COLLATE "C" NOT NULL REFERENCES learner (id),
    day     bigint NOT NULL,
    held    bigint NOT NULL CHECK (held >= 0),
    settled bigint NOT NULL CHECK (settled >= 0),
    PRIMARY KEY (learner, day)
) WITH (fillfactor = 80);

-- The read model of usage: a fold of `charged`, kept in the transaction that appends the event.
CREATE TABLE usage (
    hour          bigint NOT NULL,
    learner       text COLLATE "C" NOT NULL,
    class         text COLLATE "C" NOT NULL,
    model         text COLLATE "C" NOT NULL,
    calls         bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost          bigint NOT NULL,
    PRIMARY KEY (hour, learner, class, model)
) WITH (fillfactor = 80);
CREATE INDEX usage_learner ON usage (learner, hour);

-- SHA-256 of tokens, sign-in codes and browser sessions; without a learner they are the operator's.
CREATE TABLE secret (
    hash         bytea NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('token', 'code', 'session')),
    learner      text COLLATE "C" REFERENCES learner (id),
    expires_time bigint NOT NULL,
    PRIMARY KEY (hash, kind)
);
CREATE INDEX secret_learner ON secret (learner);
CREATE INDEX secret_expires ON secret (expires_time);

-- Processes that are there until they say so no more; few rows.
CREATE TABLE process (
    id      uuid PRIMARY KEY,
    role    text NOT NULL CHECK (role IN ('gateway', 'fleet')),
    address text NOT NULL,
    report  text NOT NULL,
    until   bigint NOT NULL
);

-- One learner's writers one after the other. It gives a transaction no number yet: so numbers rise in the order of the lock.
CREATE FUNCTION lock_learner(learner text) RETURNS void LANGUAGE sql
    AS $$ SELECT pg_advisory_xact_lock(hashtextextended(learner, 0)) $$;

-- The only way in which events, messages and turns go, for roles that may not delete them: all of a closed learner at once.
CREATE FUNCTION erase_closed(erased text, now bigint) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM lock_learner(erased);
    INSERT INTO tombstone (repository, id, fence, erased_time)
        SELECT repository, id, greatest(fence, status_epoch), now FROM learner WHERE id = erased AND closing;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM lost_turn WHERE learner = erased;
    DELETE FROM generation WHERE learner = erased;
    DELETE FROM reservation WHERE learner = erased;
    DELETE FROM account WHERE learner = erased;
    DELETE FROM usage WHERE learner = erased;
    DELETE FROM file WHERE place IN (SELECT place FROM message WHERE learner = erased);
    DELETE FROM outbox WHERE learner = erased;
    DELETE FROM turn WHERE learner = erased;
    DELETE FROM message WHERE learner = erased;
    DELETE FROM event WHERE learner = erased;
    DELETE FROM alias WHERE learner = erased;
    DELETE FROM secret WHERE learner = erased;
    DELETE FROM data_key WHERE learner = erased;
    DELETE FROM learner WHERE id = erased;
END $$;
REVOKE EXECUTE ON FUNCTION erase_closed FROM PUBLIC;
