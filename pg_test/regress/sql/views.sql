-- Who sees which runs: those that he, or a role whose rights he has, requested; pg_read_all_data sees all.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
CREATE ROLE regress_dot_team;
CREATE ROLE regress_dot_ann IN ROLE regress_dot_team;
CREATE ROLE regress_dot_bob;
CREATE ROLE regress_dot_out NOINHERIT IN ROLE regress_dot_team;
CREATE ROLE regress_dot_audit IN ROLE pg_read_all_data;
GRANT EXECUTE ON FUNCTION fn_dot_run TO PUBLIC;
GRANT SELECT ON dot_run, dot_run_event, dot_run_attempt, dot_run_gate TO PUBLIC;

SET ROLE regress_dot_team;
SELECT run_status FROM fn_dot_run('A', 'plan', NULL, '{"of": "team"}');
SET ROLE regress_dot_ann;
SELECT run_status FROM fn_dot_run('B', 'apply', NULL, '{"of": "ann"}');
SET ROLE regress_dot_bob;
SELECT run_status FROM fn_dot_run('C', 'apply', NULL, '{"of": "bob"}');
RESET ROLE;
-- As if every run had been sent and answered.
SELECT run_id AS sent FROM fn_dot_run('B', 'apply', NULL, '{"of": "postgres"}') \gset
INSERT INTO dot_wrapper.dot_run_attempt (run_id, attempt, deadline, worker) SELECT run_id, 1, now(), gen_random_uuid() FROM dot_run;
INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, detail)
SELECT run_id, 'running', 1, 'queued', 'running', '{"gates": [{"gate": "permit", "verdict": "OK", "reason": "ok", "message": "m", "inputs": {}}, "tool", "nobody"]}'::jsonb FROM dot_run
UNION ALL
SELECT run_id, 'failed', 1, 'running', 'failed', '{"reason": "http_500", "message": "no", "reach": "answered", "http_status": 500, "elapsed_ms": 12, "bytes": 34}' FROM dot_run
UNION ALL
SELECT run_id, 'late_answer', 1, NULL, NULL, '{}' FROM dot_run;

\set look 'SELECT current_user AS reader, (SELECT string_agg(args ->> \'of\', \' \' ORDER BY run_id) FROM dot_run) AS runs, (SELECT count(*) FROM dot_run_event) AS events, (SELECT count(*) FROM dot_run_attempt) AS attempts, (SELECT count(*) FROM dot_run_gate WHERE stage = \'request\') AS first, (SELECT count(*) FROM dot_run_gate WHERE stage = \'send\') AS second;'
:look
SET ROLE regress_dot_team;
:look
SET ROLE regress_dot_ann;
:look
SET ROLE regress_dot_bob;
:look
SET ROLE regress_dot_out;
:look
SET ROLE regress_dot_audit;
:look
-- The tables behind are for none but him.
SET ROLE regress_dot_ann;
SELECT count(*) FROM dot_wrapper.dot_run;
RESET ROLE;

-- The columns of the views.
SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE table_schema = 'public' AND table_name LIKE 'dot\_run%' GROUP BY table_name ORDER BY table_name COLLATE "C";
-- How a delivery ended is told with it, once.
SELECT attempt, ended_in, reason, message, reach, http_status, elapsed_ms, bytes, ended_at IS NOT NULL AS ended
FROM dot_run_attempt WHERE run_id = :'sent';
SELECT stage, position, gate, verdict FROM dot_run_gate WHERE run_id = :'sent' ORDER BY stage, position;
-- A gate's name stands for what it said at the request, and for nothing where it said nothing.
SELECT gate, verdict, reason, message, inputs ->> 'code' AS code FROM dot_run_gate WHERE run_id = :'sent' AND gate IN ('tool', 'nobody') ORDER BY stage, position;
SELECT event, attempt, from_status, to_status FROM dot_run_event WHERE run_id = :'sent' ORDER BY event_id;

-- security_barrier: a cheap function in the reader's query is not shown what he may not see.
SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'dot\_run%' AND relkind = 'v'
ORDER BY relname COLLATE "C";
GRANT CREATE ON SCHEMA public TO regress_dot_bob;
SET ROLE regress_dot_bob;
CREATE FUNCTION leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN RAISE WARNING 'seen: %', value; RETURN true; END $$;
SELECT args FROM dot_run WHERE leak(args ->> 'of');
SELECT count(*) FROM dot_run_event WHERE leak(event);
SELECT count(*) FROM dot_run_gate WHERE leak(gate || ' ' || reason);
SELECT count(*) FROM dot_run_attempt WHERE leak(reason);
DROP FUNCTION leak;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM regress_dot_bob;

-- A role that is gone takes its runs out of sight, but not out of the ledger.
DROP ROLE regress_dot_bob;
:look
SET ROLE regress_dot_ann;
:look
RESET ROLE;
SELECT requested_by, run_status FROM dot_run WHERE args ->> 'of' = 'bob';

DROP EXTENSION dot_wrapper;
DROP ROLE regress_dot_ann, regress_dot_out, regress_dot_audit, regress_dot_team;
