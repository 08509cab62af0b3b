-- Observation: DOT runs and the IU-command layer's rows side by side, one row per process run, and the dry run's report.

-- "By time": the newest first, and what happened since.
CREATE INDEX dot_run_requested ON dot_wrapper.dot_run (requested_at);

-- Looked for at each call, so that nothing here depends on a table that may come later, or be somebody else's.
CREATE FUNCTION @extschema@.fn_dot_iu_commands()
RETURNS TABLE (id text, process_run_id uuid, name text, mode text, status text, mutating boolean, reason text, message text,
               requested_by text, at timestamptz, finished_at timestamptz, detail jsonb)
LANGUAGE c STABLE PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_iu_commands_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_iu_commands() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_iu_commands() IS
    'The rows of dot_iu_command_run, shipped or adopted, under the names of dot_observation; detail is the row as it is. Nothing where there is no such table, or where the caller may not read all of it himself (SELECT, and no row security). Who reads dot_observation or dot_process_run needs EXECUTE on it.';

-- What the views and the report say of a run: which gate stopped it, and when. start_by is set for what the first gates let through.
CREATE VIEW dot_wrapper.run_facts AS
SELECT r.run_id, r.process_run_id, r.code, r.mode, r.run_status, r.reason, r.message, r.fingerprint,
       r.requested_by, r.requested_by_oid, r.requested_at, r.started_at, r.finished_at,
       CASE WHEN r.run_status = 'refused' AND r.start_by IS NULL THEN
           -- A plan is refused by the gate whose reason it has, whatever other gates would say to an apply.
           pg_catalog.jsonb_path_query_first(r.gates, '$[*] ? (@.verdict == "BLOCK" && @.reason == $reason).gate',
                                             pg_catalog.jsonb_build_object('reason', r.reason)) #>> '{}'
       END AS first_gate,
       CASE WHEN r.run_status IN ('refused', 'expired', 'failed', 'in_doubt') AND r.start_by IS NOT NULL THEN (
           SELECT pg_catalog.jsonb_path_query_first(e.detail -> 'gates', '$[*] ? (@.verdict == "BLOCK").gate') #>> '{}'
           FROM dot_wrapper.dot_run_event e
           WHERE e.run_id = r.run_id AND e.from_status = 'queued' AND e.to_status = r.run_status
           ORDER BY e.event_id DESC LIMIT 1)
       END AS second_gate
FROM dot_wrapper.dot_run r;
COMMENT ON VIEW dot_wrapper.run_facts IS 'Runs, and the gate of the first or of the second round that stopped each; for the views and functions of dot_wrapper';

-- Who sees which runs is as in the view dot_run. It is not built upon that one: a view with a barrier in it cannot be read
-- in the order of an index.
CREATE VIEW @extschema@.dot_observation WITH (security_barrier) AS
SELECT o.layer, o.id, o.process_run_id, o.name, o.mode, o.status, o.mutating, o.reason, o.message, o.requested_by, o.at,
       o.finished_at, o.attempts, o.source, o.detail
FROM (
    (SELECT 'dot'::text AS layer, r.run_id::text AS id, r.process_run_id, r.code AS name, r.mode, r.run_status AS status,
            r.mode = 'apply' AS mutating, r.reason, r.message, r.requested_by::text AS requested_by, r.requested_at AS at,
            r.finished_at, r.attempts, r.source,
            pg_catalog.jsonb_build_object('args', r.args, 'engine', r.engine, 'source_ref', r.source_ref, 'actor', r.actor,
                                          'result', r.result, 'observations', r.observations) AS detail
     FROM dot_wrapper.dot_run r
     WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
        OR EXISTS (SELECT FROM pg_catalog.pg_roles o
                   WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'))
     ORDER BY r.requested_at DESC)
    UNION ALL
    (SELECT 'iu_command', c.id, c.process_run_id, c.name, c.mode, c.status, c.mutating, c.reason, c.message, c.requested_by,
            coalesce(c.at, '-infinity') AS at, c.finished_at, NULL, NULL, c.detail
     FROM @extschema@.fn_dot_iu_commands() c
     ORDER BY coalesce(c.at, '-infinity') DESC)
) o
ORDER BY o.at DESC;
COMMENT ON VIEW @extschema@.dot_observation IS
    'DOT runs that the reader may see, and the IU-command layer''s rows for who may read them himself, side by side, the newest first. Who reads it needs EXECUTE on fn_dot_iu_commands.';
COMMENT ON COLUMN @extschema@.dot_observation.layer IS 'dot: a run of the ledger; iu_command: a row of dot_iu_command_run';
COMMENT ON COLUMN @extschema@.dot_observation.id IS 'run_id of that layer, as text';
COMMENT ON COLUMN @extschema@.dot_observation.name IS 'Code of the tool, or name of the command';
COMMENT ON COLUMN @extschema@.dot_observation.mutating IS 'Whether it would change anything, had it been let through: a DOT run in mode apply, a command that says so';
COMMENT ON COLUMN @extschema@.dot_observation.at IS 'When it was requested; -infinity for a command whose row tells no time';
COMMENT ON COLUMN @extschema@.dot_observation.source IS 'By which way a run was requested: call, schedule, trigger, job, request; NULL for a command';
COMMENT ON COLUMN @extschema@.dot_observation.detail IS 'Of a run: args, engine, source_ref, actor, result, observations. Of a command: its row as it is';

CREATE VIEW @extschema@.dot_process_run WITH (security_barrier) AS
SELECT p.process_run_id, p.queued + p.running + p.in_doubt > 0 AS open, p.runs, p.planned, p.refused, p.queued, p.running,
       p.in_doubt, p.succeeded, p.failed, p.cancelled, p.expired, coalesce(pg_catalog.cardinality(p.codes), 0) AS tools, p.codes,
       (SELECT coalesce(pg_catalog.jsonb_object_agg(g.gate, g.times), '{}')
        FROM (SELECT u.gate, count(*) AS times FROM unnest(p.first_gates) AS u (gate) GROUP BY u.gate) g) AS refusals,
       (SELECT coalesce(pg_catalog.jsonb_object_agg(g.gate, g.times), '{}')
        FROM (SELECT u.gate, count(*) AS times FROM unnest(p.second_gates) AS u (gate) GROUP BY u.gate) g) AS refusals_at_send,
       p.iu_commands, p.first_at, p.last_at
FROM (
    SELECT o.process_run_id, count(o.run_id) AS runs,
           count(*) FILTER (WHERE o.run_status = 'planned') AS planned,
           count(*) FILTER (WHERE o.run_status = 'refused') AS refused,
           count(*) FILTER (WHERE o.run_status = 'queued') AS queued,
           count(*) FILTER (WHERE o.run_status = 'running') AS running,
           count(*) FILTER (WHERE o.run_status = 'in_doubt') AS in_doubt,
           count(*) FILTER (WHERE o.run_status = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE o.run_status = 'failed') AS failed,
           count(*) FILTER (WHERE o.run_status = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE o.run_status = 'expired') AS expired,
           pg_catalog.array_agg(DISTINCT o.code) FILTER (WHERE o.code IS NOT NULL) AS codes,
           pg_catalog.array_agg(o.first_gate) FILTER (WHERE o.first_gate IS NOT NULL) AS first_gates,
           pg_catalog.array_agg(o.second_gate) FILTER (WHERE o.second_gate IS NOT NULL) AS second_gates,
           count(*) FILTER (WHERE o.run_id IS NULL) AS iu_commands,
           min(o.first_at) AS first_at, max(o.last_at) AS last_at
    FROM (
        SELECT f.process_run_id, f.run_id, f.run_status, f.code, f.first_gate, f.second_gate, f.requested_at AS first_at,
               greatest(f.requested_at, f.started_at, f.finished_at) AS last_at
        FROM dot_wrapper.run_facts f
        WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
           OR EXISTS (SELECT FROM pg_catalog.pg_roles o
                      WHERE o.oid = f.requested_by_oid AND o.rolname = f.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'))
        UNION ALL
        SELECT c.process_run_id, NULL, NULL, NULL, NULL, NULL, c.at, greatest(c.at, c.finished_at)
        FROM @extschema@.fn_dot_iu_commands() c
        WHERE c.process_run_id IS NOT NULL
    ) o
    GROUP BY o.process_run_id
) p;
COMMENT ON VIEW @extschema@.dot_process_run IS
    'One row per process run, over the runs that the reader may see. Who reads it needs EXECUTE on fn_dot_iu_commands.';
COMMENT ON COLUMN @extschema@.dot_process_run.open IS 'Something in it is queued, running or in doubt';
COMMENT ON COLUMN @extschema@.dot_process_run.tools IS 'How many tools its runs are of';
COMMENT ON COLUMN @extschema@.dot_process_run.codes IS 'Their codes, in order; NULL for none';
COMMENT ON COLUMN @extschema@.dot_process_run.refusals IS 'Runs that the first gates refused, by gate';
COMMENT ON COLUMN @extschema@.dot_process_run.refusals_at_send IS 'Runs that the second gates stopped, by gate, whatever state they ended in';
COMMENT ON COLUMN @extschema@.dot_process_run.iu_commands IS 'Commands of the IU-command layer that name this process run';
COMMENT ON COLUMN @extschema@.dot_process_run.last_at IS 'When anything of it was last requested, started or over';

CREATE FUNCTION @extschema@.fn_dot_wait_all(process_run_id uuid, timeout interval DEFAULT '5 min')
RETURNS @extschema@.dot_process_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_wait_all_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_wait_all(uuid, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_wait_all(uuid, interval) IS
    'Waits until no run of a process run is queued or running, or the time is up, and returns its row of dot_process_run as it then stands. Only the runs that the caller may see count.';

CREATE FUNCTION @extschema@.fn_dot_dry_run_report(
    process_run_id uuid,
    baseline uuid DEFAULT NULL,
    baseline_report jsonb DEFAULT NULL)
RETURNS TABLE (code text, name text, verdict text, why text, change text, plan_status text, plan_reason text,
               verify_status text, verify_reason text, fingerprint text, baseline_verdict text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 100
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_dry_run_report_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_dry_run_report(uuid, uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_dry_run_report(uuid, uuid, jsonb) IS
    'A verdict on each tool that a process run planned and verified: PASS, REFUSED, FAILED, PENDING or RETIRED, and why. Against an earlier process run, or the kept rows of an earlier report: same, better, worse, changed, new or gone. Only the runs that the caller may see count.';
