-- The same (process run, code, mode, key) is the same run, once it was admitted. Tool B takes no lease.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set process 00000000-0000-7000-8000-0000000000bb

-- A refusal does not use the key up.
UPDATE dot_config SET value = 'off' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT run_id AS refused, run_status FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k') \gset
\echo :run_status
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT run_id AS first, run_status FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k') \gset
\echo :run_status
SELECT :'first' <> :'refused' AS is_new;

-- Asked again: the same row, nothing new in the ledger or the queue, whatever the gates say by now.
SELECT run_id = :'first' AS is_first, run_status FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k');
UPDATE dot_config SET value = 'off' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT run_id = :'first' AS is_first, run_status FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k');
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT run_status, count(*) FROM dot_run GROUP BY run_status ORDER BY run_status;
SELECT run_id = :'first' AS is_first FROM dot_wrapper.dot_queue;

-- With other args it is an error; with the same in another order it is not.
DO $$
DECLARE
    detail text;
    hint text;
BEGIN
    PERFORM fn_dot_run('B', 'apply', '00000000-0000-7000-8000-0000000000bb', '{"n": 2}', 'k');
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE WARNING '% %', SQLSTATE, SQLERRM
        USING DETAIL = regexp_replace(detail, 'run [0-9a-f-]{36}', 'run <run_id>'), HINT = hint;
END $$;
SELECT run_id AS ordered FROM fn_dot_run('B', 'apply', :'process', '{"a": [1, {"x": null}], "b": "t"}', 'order') \gset
SELECT run_id = :'ordered' AS same FROM fn_dot_run('B', 'apply', :'process', '{"b": "t", "a": [1, {"x": null}]}', 'order');

-- Another key, mode, tool or process run is another run; no key is the empty key; no process run is always a new one.
SELECT run_id <> :'first' AS is_new, run_status FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k2');
SELECT run_id <> :'first' AS is_new, run_status FROM fn_dot_run('B', 'verify', :'process', '{"n": 1}', 'k');
SELECT run_id <> :'first' AS is_new, run_status FROM fn_dot_run('A', 'apply', :'process', '{"n": 1}', 'k');
SELECT run_id <> :'first' AS is_new, run_status FROM fn_dot_run('B', 'apply', '00000000-0000-7000-8000-0000000000bc', '{"n": 1}', 'k');
SELECT run_id AS unnamed FROM fn_dot_run('B', 'apply', :'process') \gset
SELECT run_id = :'unnamed' AS same, quote_literal(idempotency_key) AS key FROM fn_dot_run('B', 'apply', :'process', '{}', '');
SELECT count(DISTINCT run_id) AS runs, count(DISTINCT process_run_id) AS processes
FROM generate_series(1, 3) n, LATERAL fn_dot_run('B', 'apply', NULL, '{}', 'k' || left(n::text, 0)) r;

-- A plan neither uses nor finds a key.
SELECT run_id <> :'first' AS is_new, run_status FROM fn_dot_run('B', 'plan', :'process', '{"n": 99}', 'k');

-- A tool that is not catalogued has no runs to find.
BEGIN;
DELETE FROM dot_tools WHERE code = 'B';
SELECT run_id <> :'first' AS is_new, run_status, reason FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k');
ROLLBACK;

-- What is rolled back was never there: a transaction, and a savepoint.
BEGIN;
SELECT run_id AS gone FROM fn_dot_run('B', 'apply', :'process', '{}', 'rolled back') \gset
SELECT run_id = :'gone' AS same FROM fn_dot_run('B', 'apply', :'process', '{}', 'rolled back');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT run_id AS gone_too FROM fn_dot_run('B', 'apply', :'process', '{}', 'rolled back') \gset
ROLLBACK TO s;
SELECT run_id NOT IN (:'gone', :'gone_too') AS is_new, run_status
FROM fn_dot_run('B', 'apply', :'process', '{"other": "args"}', 'rolled back');
COMMIT;
SELECT count(*) AS leftovers FROM dot_run WHERE run_id IN (:'gone', :'gone_too');

-- A run that is over keeps its key: succeeded or failed, it is the answer.
UPDATE dot_wrapper.dot_run SET run_status = 'succeeded', attempts = 1, started_at = clock_timestamp(), finished_at = clock_timestamp(),
       result = '{"swept": 3}' WHERE run_id = :'first';
DELETE FROM dot_wrapper.dot_queue WHERE run_id = :'first';
SELECT run_id = :'first' AS is_first, run_status, result FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k');
UPDATE dot_wrapper.dot_run SET run_status = 'failed', attempts = 1, started_at = clock_timestamp(), finished_at = clock_timestamp(),
       reason = 'http_500', message = 'the agent failed' WHERE run_id = :'unnamed';
SELECT run_id = :'unnamed' AS same, run_status, reason FROM fn_dot_run('B', 'apply', :'process');
-- Refused at the second gate, it gives the key back.
UPDATE dot_wrapper.dot_run SET run_status = 'refused', admitted = false, finished_at = clock_timestamp(),
       reason = 'toggle_off', message = 'the master toggle is off' WHERE run_id = :'ordered';
DELETE FROM dot_wrapper.dot_queue WHERE run_id = :'ordered';
SELECT run_id <> :'ordered' AS is_new, run_status FROM fn_dot_run('B', 'apply', :'process', '{"now": "other args"}', 'order');

-- Another role's run is not handed out to whoever knows its key; nor may the key be used beside it.
CREATE ROLE regress_dot_colleague;
GRANT EXECUTE ON FUNCTION fn_dot_run TO regress_dot_colleague;
SET ROLE regress_dot_colleague;
SELECT run_id FROM fn_dot_run('B', 'apply', :'process', '{"n": 1}', 'k');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT run_id FROM fn_dot_run('B', 'apply', :'process', '{"n": 2}', 'k');
RESET ROLE;
-- A superuser has the rights of every role.
SET ROLE regress_dot_colleague;
SELECT run_id AS his, run_status FROM fn_dot_run('B', 'apply', :'process', '{}', 'his') \gset
RESET ROLE;
SELECT run_id = :'his' AS same, requested_by FROM fn_dot_run('B', 'apply', :'process', '{}', 'his');
REVOKE ALL ON FUNCTION fn_dot_run FROM regress_dot_colleague;
DROP ROLE regress_dot_colleague;

DROP EXTENSION dot_wrapper;
