-- A large ledger in a scratch database, for docs/performance.md: psql -v runs=1000000 -f benches/large_ledger.sql
--
-- Copies one succeeded run of the database, with its events, so many times: one a second, back from now; 7 of 10 succeeded, the
-- others failed, refused, planned; process runs of 49, and one with every fiftieth. Switch the worker off first: what it
-- finds it seals.
\set ON_ERROR_STOP 1
\timing on
SET synchronous_commit = off;
CREATE TEMP TABLE one AS SELECT * FROM dot_wrapper.dot_run WHERE run_status = 'succeeded' LIMIT 1;
CREATE TEMP TABLE ev AS SELECT e.* FROM dot_wrapper.dot_run_event e JOIN one USING (run_id) ORDER BY event_id;
CREATE FUNCTION pg_temp.v7(at timestamptz, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12))::uuid
  FROM (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS h, md5(n::text) AS m) x $$;
CREATE TEMP TABLE ids AS
  SELECT g AS n, at, pg_temp.v7(at, g) AS run_id,
         CASE WHEN g % 50 = 0 THEN pg_temp.v7(now() - interval '1 s' * (:runs + 1), 0) ELSE pg_temp.v7(now() - (:runs - g / 50 * 50) * interval '1 s', -(g / 50) - 1) END AS process_run_id,
         'DOT-KG-' || lpad((1 + g % 103)::text, 3, '0') AS code,
         (ARRAY['succeeded','succeeded','succeeded','succeeded','succeeded','succeeded','succeeded','failed','refused','planned'])[1 + g % 10] AS st
  FROM (SELECT g::bigint, now() - (:runs - g) * interval '1 s' AS at FROM generate_series(1, :runs) g) x;
INSERT INTO dot_wrapper.dot_run (run_id, process_run_id, code, mode, run_status, reason, message, attempts, requested_by, requested_at, started_at, finished_at, idempotency_key, args, engine, fingerprint, request, gates, lease_key, fencing_token, start_by, finish_by, result, observations, admitted, requested_by_oid, source)
  SELECT i.run_id, i.process_run_id, i.code, CASE st WHEN 'planned' THEN 'plan' ELSE 'apply' END, st,
         CASE st WHEN 'failed' THEN 'agent_failed' WHEN 'refused' THEN 'guard_block' END, CASE WHEN st IN ('failed','refused') THEN 'said no' END,
         CASE WHEN st IN ('failed','succeeded') THEN 1 ELSE 0 END, o.requested_by, i.at, CASE WHEN st IN ('failed','succeeded') THEN i.at + interval '10 ms' END, i.at + interval '60 ms',
         i.n::text, o.args, o.engine, o.fingerprint, o.request,
         CASE st WHEN 'refused' THEN o.gates || '[{"gate":"guard","verdict":"BLOCK","reason":"guard_block","message":"no","inputs":{}}]' ELSE o.gates END,
         CASE WHEN st IN ('failed','succeeded') THEN 'tool:' || i.code END, CASE WHEN st IN ('failed','succeeded') THEN i.n END,
         CASE WHEN st IN ('failed','succeeded') THEN i.at + interval '1 h' END, CASE WHEN st IN ('failed','succeeded') THEN i.at + interval '1 d' END,
         CASE WHEN st IN ('failed','succeeded') THEN o.result END, CASE WHEN st IN ('failed','succeeded') THEN o.observations END, st IN ('failed','succeeded'), o.requested_by_oid, o.source
  FROM ids i, one o ORDER BY i.n;
INSERT INTO dot_wrapper.dot_run_attempt
  SELECT i.run_id, 1, i.at + interval '10 ms', i.at + interval '60 s', gen_random_uuid(), i.n FROM ids i WHERE st IN ('failed','succeeded') ORDER BY i.n;
INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, at, detail, mark)
  SELECT i.run_id, CASE WHEN e.to_status = 'succeeded' THEN i.st WHEN e.from_status IS NULL AND i.st IN ('planned','refused') THEN i.st ELSE e.event END, e.attempt, e.from_status,
         CASE WHEN e.to_status = 'succeeded' THEN i.st WHEN e.from_status IS NULL AND i.st IN ('planned','refused') THEN i.st ELSE e.to_status END, i.at + (e.event_id - (SELECT min(event_id) FROM ev)) * interval '20 ms', e.detail, e.mark
  FROM ids i, ev e WHERE e.from_status IS NULL OR i.st IN ('failed','succeeded') ORDER BY i.n, e.event_id;
VACUUM ANALYZE dot_wrapper.dot_run; VACUUM ANALYZE dot_wrapper.dot_run_event; VACUUM ANALYZE dot_wrapper.dot_run_attempt;
CHECKPOINT;
SELECT relname, pg_size_pretty(pg_relation_size(oid)) AS heap, pg_size_pretty(pg_indexes_size(oid)) AS indexes, reltuples FROM pg_class WHERE relname IN ('dot_run','dot_run_event','dot_run_attempt') AND relkind = 'r';
