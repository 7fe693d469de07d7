-- One role of the database for each role of Carrel, with the least rights. Run by a superuser or the database's owner with
-- CREATEROLE, in Carrel's database, before the first migration and again after each:
--
--     psql -v ON_ERROR_STOP=1 -d carrel -f roles.sql
--
-- Give each a way to log in (ALTER ROLE … PASSWORD, or a certificate); the names are fixed. It can be repeated. `carrel migrate`
-- connects as carrel_migrate, which owns the tables and nothing else of the application uses.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['carrel_migrate', 'carrel_gateway', 'carrel_router', 'carrel_vault', 'carrel_fleet'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', name);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO carrel_migrate;
GRANT USAGE ON SCHEMA public TO carrel_gateway, carrel_router, carrel_vault, carrel_fleet;

-- The rights on what a migration has made. Before the first there is nothing to grant.
DO $$
BEGIN
    IF to_regclass('public.learner') IS NULL THEN
        RETURN;
    END IF;
    REVOKE ALL ON ALL TABLES IN SCHEMA public FROM carrel_gateway, carrel_router, carrel_vault, carrel_fleet;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, carrel_gateway, carrel_router, carrel_vault, carrel_fleet;

    GRANT SELECT ON _sqlx_migrations TO carrel_gateway, carrel_router, carrel_vault, carrel_fleet;
    GRANT EXECUTE ON FUNCTION lock_learner TO carrel_gateway, carrel_router, carrel_vault, carrel_fleet;
    -- Whoever acts for a learner appends to its log and moves its version; nobody changes or deletes an event.
    GRANT SELECT, INSERT ON event TO carrel_gateway, carrel_router, carrel_vault, carrel_fleet;
    GRANT SELECT, INSERT, UPDATE, DELETE ON process TO carrel_gateway, carrel_fleet;
    GRANT SELECT ON learner, class TO carrel_gateway, carrel_router, carrel_vault, carrel_fleet;

    -- Gateway: people, inbox, turns, the wish for each learner, closing. It reads what was spent, and moves no head and no money.
    GRANT INSERT ON learner TO carrel_gateway;
    GRANT UPDATE (class, last_activity_time, closing, desired_state, wake_after_epoch, fence, event_version)
        ON learner TO carrel_gateway;
    -- On Kubernetes one takes over into the store what learners' objects show.
    GRANT UPDATE (status_epoch, status_state, status) ON learner TO carrel_gateway;
    GRANT INSERT, UPDATE ON class TO carrel_gateway;
    GRANT SELECT, INSERT, DELETE ON alias TO carrel_gateway;
    GRANT SELECT ON tombstone, generation, account, usage TO carrel_gateway;
    GRANT SELECT, INSERT ON message, file TO carrel_gateway;
    GRANT SELECT, INSERT, UPDATE ON turn, outbox, secret TO carrel_gateway;
    GRANT DELETE ON outbox, secret TO carrel_gateway;
    GRANT SELECT ON lost_turn TO carrel_gateway;
    GRANT UPDATE (told_place) ON lost_turn TO carrel_gateway;

    -- Router: money, and the fence that it is spent behind.
    GRANT UPDATE (fence, reservations, event_version) ON learner TO carrel_router;
    GRANT SELECT, INSERT, DELETE ON reservation TO carrel_router;
    GRANT SELECT, INSERT, UPDATE ON account, usage TO carrel_router;
    GRANT DELETE ON usage TO carrel_router;
    GRANT SELECT (place, turn_id, learner, state, epoch, input_tokens, output_tokens, cost) ON turn TO carrel_router;
    GRANT UPDATE (input_tokens, output_tokens, cost) ON turn TO carrel_router;

    -- Vault: heads, keys, erasing. It ends turns by committing them, and reads no secret of people and no money.
    GRANT UPDATE (fence, head_generation, head_snapshot, event_version, last_activity_time) ON learner TO carrel_vault;
    GRANT SELECT, INSERT ON generation, file TO carrel_vault;
    GRANT UPDATE (damaged, expired) ON generation TO carrel_vault;
    GRANT SELECT, INSERT, UPDATE, DELETE ON lost_turn, data_key TO carrel_vault;
    GRANT SELECT ON message, turn, alias, tombstone, account TO carrel_vault;
    GRANT UPDATE (state, version, reply, failure, snapshot, restore_ms, agent_ms, snapshot_ms, stop_requested, lease_owner,
        lease_until) ON turn TO carrel_vault;
    GRANT INSERT ON outbox TO carrel_vault;
    GRANT UPDATE (swept) ON tombstone TO carrel_vault;
    GRANT EXECUTE ON FUNCTION erase_closed TO carrel_vault;

    -- Fleet: what is seen of each learner, and its wakes.
    GRANT UPDATE (status_epoch, status_state, status, event_version, wake_after_epoch) ON learner TO carrel_fleet;
    GRANT SELECT ON alias, generation, account, message, turn, file TO carrel_fleet;
END $$;
