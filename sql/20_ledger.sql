-- The ledger, its events and attempts, the queue and the lease grants.
--
-- Hot and cold apart: dot_queue and lease_grant hold only what is not finished; dot_run keeps everything. There are no
-- foreign keys between them: rows of the ledger cannot be deleted, so a key could never be violated, and each would cost
-- an index probe per row.

-- What the tables below check of their rows. One function each, since the expressions of CHECK constraints are read anew in
-- every statement that writes: see src/domain/fits.rs for the rules, each with its name, with which it refuses.
CREATE FUNCTION dot_wrapper.run_fits(
    mode text, run_status text, attempts integer, admitted boolean, finished_at timestamptz, started_at timestamptz,
    request jsonb, fingerprint text, engine text, reason text, message text, fencing_token bigint, lease_key text,
    start_by timestamptz, finish_by timestamptz, result jsonb, observations jsonb, args jsonb, gates jsonb, code text,
    source text, source_ref text, actor text, idempotency_key text)
RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'dot_wrapper_run_fits';
REVOKE ALL ON FUNCTION dot_wrapper.run_fits FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.run_fits IS 'True for a row of dot_run that can be; an error that names the rule for any other';

CREATE FUNCTION dot_wrapper.event_fits(from_status text, to_status text, detail jsonb, mark bytea) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'dot_wrapper_event_fits';
REVOKE ALL ON FUNCTION dot_wrapper.event_fits FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.event_fits IS 'As run_fits, for dot_run_event';

CREATE FUNCTION dot_wrapper.queue_fits(state text, past text, worker uuid) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'dot_wrapper_queue_fits';
REVOKE ALL ON FUNCTION dot_wrapper.queue_fits FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.queue_fits IS 'As run_fits, for dot_queue';

CREATE TABLE dot_wrapper.dot_run (
    run_id uuid PRIMARY KEY,
    process_run_id uuid NOT NULL,
    code text NOT NULL,
    mode text NOT NULL,
    run_status text NOT NULL,
    reason text,
    message text,
    attempts integer NOT NULL DEFAULT 0,
    requested_by name NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    idempotency_key text NOT NULL DEFAULT '',
    args jsonb NOT NULL DEFAULT '{}',
    engine text,
    fingerprint text,
    request jsonb,
    gates jsonb NOT NULL,
    lease_key text,
    fencing_token bigint,
    start_by timestamptz,
    finish_by timestamptz,
    result jsonb,
    observations jsonb,
    admitted boolean NOT NULL,
    requested_by_oid oid NOT NULL,
    source text NOT NULL DEFAULT 'call',
    source_ref text,
    actor text,
    CONSTRAINT run_fits CHECK (dot_wrapper.run_fits(
        mode, run_status, attempts, admitted, finished_at, started_at, request, fingerprint, engine, reason, message,
        fencing_token, lease_key, start_by, finish_by, result, observations, args, gates, code, source, source_ref, actor,
        idempotency_key))
) WITH (fillfactor = 80);
COMMENT ON TABLE dot_wrapper.dot_run IS 'The ledger: one row per run, refused and planned ones included. Rows are never deleted, and final ones never changed.';
COMMENT ON COLUMN dot_wrapper.dot_run.run_id IS 'UUIDv7; also the Idempotency-Key that the engine sees';
COMMENT ON COLUMN dot_wrapper.dot_run.process_run_id IS 'The larger undertaking; minted when the caller gave none';
COMMENT ON COLUMN dot_wrapper.dot_run.reason IS 'Why it stands where it stands, for machines: the reason of the gate or of the attempt';
COMMENT ON COLUMN dot_wrapper.dot_run.message IS 'The same for people; secrets masked';
COMMENT ON COLUMN dot_wrapper.dot_run.attempts IS 'Deliveries recorded so far';
COMMENT ON COLUMN dot_wrapper.dot_run.requested_by IS 'The role that called fn_dot_run';
COMMENT ON COLUMN dot_wrapper.dot_run.gates IS 'Decisions of the first gates, in order; the second gates'' are in the events, as names where all of them say the same';
COMMENT ON COLUMN dot_wrapper.dot_run.request IS 'The request as rendered, secrets masked; for a plan, that of the apply';
COMMENT ON COLUMN dot_wrapper.dot_run.fingerprint IS 'SHA-256 over tool version, arguments and request; equal for a plan and its apply';
COMMENT ON COLUMN dot_wrapper.dot_run.fencing_token IS 'Grows with every lease grant; sent along, so that the far side can refuse a late writer';
COMMENT ON COLUMN dot_wrapper.dot_run.start_by IS 'Not claimed by then: expired';
COMMENT ON COLUMN dot_wrapper.dot_run.finish_by IS 'No delivery begins or lasts later';
COMMENT ON COLUMN dot_wrapper.dot_run.source IS 'By which way it was requested: call, schedule, trigger, job, request';
COMMENT ON COLUMN dot_wrapper.dot_run.source_ref IS 'Which schedule, table, job or request';
COMMENT ON COLUMN dot_wrapper.dot_run.actor IS 'On whose behalf, as the caller said; nothing is decided by it';
COMMENT ON COLUMN dot_wrapper.dot_run.admitted IS 'True while the run holds its idempotency key';

-- Invariant 5: one admitted run per key.
CREATE UNIQUE INDEX dot_run_key ON dot_wrapper.dot_run (process_run_id, code, mode, idempotency_key) WHERE admitted;
-- "What happened in this process run", refusals and plans included.
CREATE INDEX dot_run_process ON dot_wrapper.dot_run (process_run_id);

CREATE TABLE dot_wrapper.dot_run_attempt (
    run_id uuid NOT NULL,
    attempt integer NOT NULL CONSTRAINT attempt_counted CHECK (attempt >= 1),
    intent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline timestamptz NOT NULL,
    worker uuid NOT NULL,
    fencing_token bigint,
    PRIMARY KEY (run_id, attempt)
);
COMMENT ON TABLE dot_wrapper.dot_run_attempt IS 'Intents: one row per delivery, on disk before the first byte leaves. Append-only; how it ended is in the events.';
COMMENT ON COLUMN dot_wrapper.dot_run_attempt.worker IS 'Identity of the worker process, new at each start';

CREATE TABLE dot_wrapper.dot_run_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    event text NOT NULL,
    attempt integer,
    from_status text,
    to_status text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail jsonb NOT NULL DEFAULT '{}',
    mark bytea,
    CONSTRAINT event_fits CHECK (dot_wrapper.event_fits(from_status, to_status, detail, mark))
);
COMMENT ON TABLE dot_wrapper.dot_run_event IS 'State changes and remarks, append-only';
COMMENT ON COLUMN dot_wrapper.dot_run_event.event IS 'What happened: the new state, or accepted, late_answer, lease_lost, no_permit';
COMMENT ON COLUMN dot_wrapper.dot_run_event.to_status IS 'The new state; NULL for a remark that changes none';
COMMENT ON COLUMN dot_wrapper.dot_run_event.detail IS 'What there is to say of it. Of running: gates, the second gates'' decisions in order; where all that are asked twice said word for word what they had said at the request, their names, and the words are in dot_run.gates';
COMMENT ON COLUMN dot_wrapper.dot_run_event.mark IS 'Random bytes and an HMAC over them, run, event, attempt, states and detail, under the key in dot_wrapper.instance: the row came through dot_wrapper. NULL: it did not.';
CREATE INDEX dot_run_event_run ON dot_wrapper.dot_run_event (run_id);

CREATE TABLE dot_wrapper.dot_queue (
    run_id uuid PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    state text NOT NULL,
    available_at timestamptz NOT NULL DEFAULT '-infinity',
    lane bigint NOT NULL,
    code text NOT NULL,
    endpoint text NOT NULL,
    permit bytea NOT NULL,
    worker uuid,
    past text NOT NULL DEFAULT 'none',
    cancel_requested boolean NOT NULL DEFAULT false,
    crashes smallint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    lease_wait boolean NOT NULL DEFAULT false,
    followed boolean NOT NULL DEFAULT false,
    alike bigint,
    decided bytea,
    requested_in xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    CONSTRAINT queue_fits CHECK (dot_wrapper.queue_fits(state, past, worker))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE dot_wrapper.dot_queue IS 'Runs that are not finished. A row here is not a permit: one that did not come through fn_dot_run is never executed.';
COMMENT ON COLUMN dot_wrapper.dot_queue.available_at IS 'Queued: not sent before; in doubt: the agent is not asked before. -infinity: at once, whatever becomes of the clock; infinity: not by itself';
COMMENT ON COLUMN dot_wrapper.dot_queue.lane IS 'Requesting role and tool; lanes are served in turn';
COMMENT ON COLUMN dot_wrapper.dot_queue.endpoint IS 'The endpoint at the time of the request';
COMMENT ON COLUMN dot_wrapper.dot_queue.past IS 'What earlier deliveries did: none left, untaken (it changed nothing), unknown';
COMMENT ON COLUMN dot_wrapper.dot_queue.crashes IS 'How often in a row the worker died while it was taking up this run and nothing else';
COMMENT ON COLUMN dot_wrapper.dot_queue.lease_until IS 'In doubt: when the lease is given up; NULL: not before the run is resolved';
COMMENT ON COLUMN dot_wrapper.dot_queue.lease_wait IS 'It was queued without its lease, and waits for it';
COMMENT ON COLUMN dot_wrapper.dot_queue.followed IS 'Rows of dot_run_request show what becomes of it';
COMMENT ON COLUMN dot_wrapper.dot_queue.permit IS 'HMAC over what will be executed and for whom';
COMMENT ON COLUMN dot_wrapper.dot_queue.alike IS 'Digest of role, tool, mode and arguments, for runs that may stand for others like them; NULL: it stands for itself';
COMMENT ON COLUMN dot_wrapper.dot_queue.decided IS 'Digest of what the first gates said, of those that are asked again before the sending: if they say the same, the event running has their names only. NULL: not known. Covered by the permit.';
COMMENT ON COLUMN dot_wrapper.dot_queue.requested_in IS 'The transaction that requested it or let it go on: it is not taken up before all that was committed with it is known to the worker';
-- From lane to lane, and within each in order.
CREATE INDEX dot_queue_lane ON dot_wrapper.dot_queue (lane, available_at, seq) WHERE state = 'queued';
-- What waits for a time.
CREATE INDEX dot_queue_next ON dot_wrapper.dot_queue (available_at) WHERE state = 'queued' AND available_at > '-infinity';
-- How many of a tool wait.
CREATE INDEX dot_queue_code ON dot_wrapper.dot_queue (code) WHERE state = 'queued';
-- Which of them will do for another one like it.
CREATE INDEX dot_queue_alike ON dot_wrapper.dot_queue (alike) WHERE state = 'queued' AND alike IS NOT NULL;
-- Short, all three: whom to ask about, what is out, and what to close.
CREATE INDEX dot_queue_doubt ON dot_wrapper.dot_queue (available_at) WHERE state = 'in_doubt';
CREATE INDEX dot_queue_running ON dot_wrapper.dot_queue (worker) WHERE state = 'running';
CREATE INDEX dot_queue_cancel ON dot_wrapper.dot_queue (run_id) WHERE cancel_requested;

CREATE SEQUENCE dot_wrapper.fencing_token_seq;
COMMENT ON SEQUENCE dot_wrapper.fencing_token_seq IS 'Fencing tokens; one sequence for all leases, so that a token never repeats';

CREATE TABLE dot_wrapper.lease_grant (
    lease_key text PRIMARY KEY,
    run_id uuid NOT NULL,
    fencing_token bigint NOT NULL,
    ttl_s integer NOT NULL CONSTRAINT grant_ttl_bounded CHECK (ttl_s BETWEEN 10 AND 86400),
    expires_at timestamptz NOT NULL,
    renew_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE dot_wrapper.lease_grant IS 'Which run was last granted which lease, and its token. The lease itself is the substrate''s.';
COMMENT ON COLUMN dot_wrapper.lease_grant.renew_at IS 'When the worker looks after it: a third of its time after it was granted, or a second after the substrate did not answer';
-- What is to be looked after next.
CREATE INDEX lease_grant_renew ON dot_wrapper.lease_grant (renew_at);

CREATE TABLE dot_wrapper.usage_debt (
    code text PRIMARY KEY,
    executions bigint NOT NULL CONSTRAINT debt_positive CHECK (executions > 0),
    last_executed timestamptz NOT NULL
);
COMMENT ON TABLE dot_wrapper.usage_debt IS 'Executions that the catalogue''s counters do not show yet; settled by the worker in a transaction of its own';

CREATE TABLE dot_wrapper.worker_life (
    only_row boolean PRIMARY KEY DEFAULT true CONSTRAINT worker_life_single CHECK (only_row),
    worker uuid NOT NULL,
    started_at timestamptz NOT NULL,
    left_at timestamptz
);
COMMENT ON TABLE dot_wrapper.worker_life IS 'The last worker of this database, and whether it left of its own accord: its successor is careful if it did not. Never dumped.';

CREATE TABLE dot_wrapper.instance (
    only_row boolean PRIMARY KEY DEFAULT true CONSTRAINT instance_single CHECK (only_row),
    system_identifier numeric NOT NULL,
    database_oid oid NOT NULL,
    permit_key bytea NOT NULL CONSTRAINT instance_key_long CHECK (length(permit_key) >= 32)
);
COMMENT ON TABLE dot_wrapper.instance IS 'Which database this is, and the key of its permits. Never dumped: no permit of another database verifies here. A copy made with TEMPLATE is told by it.';
INSERT INTO dot_wrapper.instance (system_identifier, database_oid, permit_key)
SELECT s.system_identifier, d.oid,
       -- Two version 4 UUIDs: 244 bits from the server's strong random source.
       pg_catalog.decode(replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex')
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database();

-- Its name comes first in the alphabet, and so its rows come first in a restore: what follows is then known as a copy.
CREATE TABLE dot_wrapper.ancestry (
    system_identifier numeric NOT NULL,
    database_oid oid NOT NULL
);
COMMENT ON TABLE dot_wrapper.ancestry IS 'The databases that this ledger has lived in. Dumped: a row of another database says that this one was restored, and nothing is executed until fn_dot_resume().';
INSERT INTO dot_wrapper.ancestry SELECT i.system_identifier, i.database_oid FROM dot_wrapper.instance i;

CREATE FUNCTION dot_wrapper.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = format('%s on %s.%s is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME),
        DETAIL = CASE WHEN TG_WHEN = 'INSTEAD OF'
                      THEN 'The views of the ledger are for reading.'
                      WHEN TG_TABLE_NAME = 'dot_run' AND TG_OP = 'UPDATE'
                      THEN 'The run is over, and what is final stays final.'
                      ELSE 'The ledger only grows.' END,
        HINT = 'Correct a run by another run.';
END
$$;
REVOKE ALL ON FUNCTION dot_wrapper.refuse_change() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.refuse_change() IS 'Keeps the ledger append-only, for its owner too';

CREATE TRIGGER dot_run_final BEFORE UPDATE ON dot_wrapper.dot_run
    FOR EACH ROW WHEN (old.finished_at IS NOT NULL) EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER dot_run_kept BEFORE DELETE OR TRUNCATE ON dot_wrapper.dot_run
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER dot_run_attempt_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON dot_wrapper.dot_run_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER dot_run_event_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON dot_wrapper.dot_run_event
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();

-- The worker connects with nothing but these.
GRANT EXECUTE ON FUNCTION dot_wrapper.run_fits, dot_wrapper.event_fits, dot_wrapper.queue_fits TO dot_wrapper_worker;
GRANT USAGE ON SCHEMA dot_wrapper TO dot_wrapper_worker;
GRANT SELECT ON dot_wrapper.dot_run, dot_wrapper.port, dot_wrapper.instance, dot_wrapper.ancestry TO dot_wrapper_worker;
GRANT UPDATE (run_status, reason, message, attempts, started_at, finished_at, fencing_token, result, observations, admitted)
    ON dot_wrapper.dot_run TO dot_wrapper_worker;
GRANT SELECT, INSERT ON dot_wrapper.dot_run_attempt, dot_wrapper.dot_run_event TO dot_wrapper_worker;
GRANT SELECT, UPDATE, DELETE ON dot_wrapper.dot_queue TO dot_wrapper_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON dot_wrapper.lease_grant, dot_wrapper.usage_debt TO dot_wrapper_worker;
GRANT SELECT, INSERT, UPDATE ON dot_wrapper.worker_life TO dot_wrapper_worker;
GRANT USAGE ON SEQUENCE dot_wrapper.fencing_token_seq TO dot_wrapper_worker;

-- Dumped: the history and what is not finished. Not dumped: instance, so that a restored queue has no valid permit.
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_run', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_run_attempt', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_run_event', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_run_event_event_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_queue', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_queue_seq_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.fencing_token_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.usage_debt', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.ancestry', '');
