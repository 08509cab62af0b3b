-- The ledger as others may read it: a role sees the runs that it, or a role it is a member of, requested;
-- members of pg_read_all_data see all. SELECT on a view is for the administrator to grant.
-- Name and OID must both fit: in another cluster, after a restore, the OID may be somebody else's.
-- The condition is in each of them. Built upon dot_run, they would have all of it read for a list of runs: what is asked of
-- one side of a join reaches the other, behind a barrier, only where it is one value.

CREATE VIEW @extschema@.dot_run WITH (security_barrier) AS
SELECT r.run_id, r.process_run_id, r.code, r.mode, r.run_status, r.reason, r.message, r.attempts, r.requested_by,
       r.requested_at, r.started_at, r.finished_at, r.idempotency_key, r.args, r.engine, r.fingerprint, r.request,
       r.gates, r.lease_key, r.fencing_token, r.start_by, r.finish_by, r.result, r.observations, r.source,
       r.source_ref, r.actor
FROM dot_wrapper.dot_run r
WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
   OR EXISTS (SELECT FROM pg_catalog.pg_roles o
              WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'));
COMMENT ON VIEW @extschema@.dot_run IS 'The ledger: one row per run that the reader may see';

CREATE VIEW @extschema@.dot_run_event WITH (security_barrier) AS
SELECT e.event_id, e.run_id, e.event, e.attempt, e.from_status, e.to_status, e.at, e.detail
FROM dot_wrapper.dot_run_event e
JOIN dot_wrapper.dot_run r USING (run_id)
WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
   OR EXISTS (SELECT FROM pg_catalog.pg_roles o
              WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'));
COMMENT ON VIEW @extschema@.dot_run_event IS 'What happened to the runs that the reader may see';

CREATE VIEW @extschema@.dot_run_attempt WITH (security_barrier) AS
SELECT a.run_id, a.attempt, a.intent_at, a.deadline, a.fencing_token, a.worker,
       e.at AS ended_at, e.to_status AS ended_in, e.detail ->> 'reason' AS reason, e.detail ->> 'message' AS message,
       e.detail ->> 'reach' AS reach, (e.detail ->> 'http_status')::integer AS http_status,
       (e.detail ->> 'elapsed_ms')::bigint AS elapsed_ms, (e.detail ->> 'bytes')::bigint AS bytes
FROM dot_wrapper.dot_run_attempt a
JOIN dot_wrapper.dot_run r USING (run_id)
LEFT JOIN LATERAL (
    SELECT v.at, v.to_status, v.detail FROM dot_wrapper.dot_run_event v
    WHERE v.run_id = a.run_id AND v.attempt = a.attempt AND v.from_status = 'running' AND v.to_status IS NOT NULL
    ORDER BY v.event_id LIMIT 1
) e ON true
WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
   OR EXISTS (SELECT FROM pg_catalog.pg_roles o
              WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'));
COMMENT ON VIEW @extschema@.dot_run_attempt IS 'Deliveries to the engine and how each ended; ended_at is NULL while a call is out';

CREATE VIEW @extschema@.dot_run_gate WITH (security_barrier) AS
SELECT r.run_id, 'request'::text AS stage, g.position, g.decision ->> 'gate' AS gate, g.decision ->> 'verdict' AS verdict,
       g.decision ->> 'reason' AS reason, g.decision ->> 'message' AS message, g.decision -> 'inputs' AS inputs
FROM dot_wrapper.dot_run r
CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(r.gates) WITH ORDINALITY AS g (decision, position)
WHERE (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
   OR EXISTS (SELECT FROM pg_catalog.pg_roles o
              WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE'))
UNION ALL
SELECT e.run_id, 'send', d.position, d.gate, d.decision ->> 'verdict', d.decision ->> 'reason', d.decision ->> 'message',
       d.decision -> 'inputs'
FROM dot_wrapper.dot_run_event e
JOIN dot_wrapper.dot_run r USING (run_id)
-- OFFSET 0: what was said at the request is taken apart once for an event, and each decision found once for all columns.
CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(f.decision ->> 'gate') AS gates, pg_catalog.array_agg(f.decision) AS decisions
    FROM pg_catalog.jsonb_array_elements(r.gates) AS f (decision)
    OFFSET 0
) said
-- A name is that of a gate that said word for word what it had said at the request.
CROSS JOIN LATERAL (
    SELECT g.position, coalesce(g.decision ->> 'gate', g.decision #>> '{}') AS gate,
           CASE pg_catalog.jsonb_typeof(g.decision)
               WHEN 'string' THEN said.decisions[pg_catalog.array_position(said.gates, g.decision #>> '{}')]
               ELSE g.decision END AS decision
    FROM pg_catalog.jsonb_array_elements(e.detail -> 'gates') WITH ORDINALITY AS g (decision, position)
    OFFSET 0
) d
WHERE e.detail ? 'gates' AND ((SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
    OR EXISTS (SELECT FROM pg_catalog.pg_roles o
               WHERE o.oid = r.requested_by_oid AND o.rolname = r.requested_by AND pg_catalog.pg_has_role(o.oid, 'USAGE')));
COMMENT ON VIEW @extschema@.dot_run_gate IS 'Every gate''s decision: stage request (the caller''s transaction) and stage send (the worker, before it sends), which is kept as names where all of it is word for word that of the request';

-- This view is simple enough that PostgreSQL would let a change through to the table, with the owner's rights, for
-- whoever has been granted more than SELECT, as by GRANT ALL ON ALL TABLES.
CREATE TRIGGER dot_run_read_only INSTEAD OF INSERT OR UPDATE OR DELETE ON @extschema@.dot_run
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.refuse_change();
