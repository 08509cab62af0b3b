-- Misuse is an error with a SQLSTATE, a message, and a way out; nothing of it is recorded.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'

-- fn_dot_run: code, mode, args, key.
SELECT fn_dot_run(NULL);
:state
SELECT fn_dot_run('');
:state
SELECT fn_dot_run(repeat('x', 201));
:state
SELECT fn_dot_run(E'A\nB');
:state
SELECT fn_dot_run('A', NULL);
:state
SELECT fn_dot_run('A', 'Apply');
:state
SELECT fn_dot_run('A', E'dry\trun' || repeat('!', 60));
:state
SELECT fn_dot_run('A', 'plan', NULL, NULL);
:state
SELECT fn_dot_run('A', 'plan', NULL, '[1]');
:state
SELECT fn_dot_run('A', 'plan', NULL, '"text"');
:state
SELECT fn_dot_run('A', 'plan', NULL, '17');
:state
SELECT fn_dot_run('A', 'plan', NULL, 'true');
:state
SELECT fn_dot_run('A', 'plan', NULL, 'null');
:state
SELECT fn_dot_run('A', 'plan', NULL, jsonb_build_object('blob', repeat('x', 256 * 1024)));
:state
SET dot_wrapper.max_args_size = '1kB';
SELECT fn_dot_run('A', 'plan', NULL, jsonb_build_object('blob', repeat('x', 1024)));
:state
SELECT run_status FROM fn_dot_run('A', 'plan', NULL, jsonb_build_object('blob', repeat('x', 1024 - length('{"blob":""}'))));
RESET dot_wrapper.max_args_size;
SELECT fn_dot_run('A', 'plan', NULL, '{}', E'key\u0007');
:state
SELECT fn_dot_run('A', 'plan', NULL, '{}', repeat('k', 256));
:state
-- The limits themselves are fine.
SELECT length(code) AS code, length(idempotency_key) AS key, reason
FROM fn_dot_run(repeat('ü', 200), 'plan', NULL, '{}', repeat('🔑', 255));
-- A key that our JSON library keeps for itself would not arrive as it is; it is refused before it can change anything.
SELECT args FROM fn_dot_run('A', 'plan', NULL, '{"x": {"$serde_json::private::Number": "1"}}');
:state
SELECT args FROM fn_dot_run('A', 'plan', NULL, '{"$serde_json::private::Number": "no number"}');
:state
SELECT code FROM fn_dot_run_all('{"code": {"$serde_json::private::Number": "1"}}');
:state
SELECT args FROM fn_dot_run('A', 'plan', NULL, '{"x": "$serde_json::private::Number"}');
-- Nesting has its limit too.
SELECT fn_dot_run('A', 'plan', NULL, ('{"n": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb);
:state

-- A read-only transaction cannot record a decision.
BEGIN READ ONLY;
SELECT fn_dot_run('A');
:state
ROLLBACK;

-- fn_dot_run_all.
SELECT fn_dot_run_all(NULL);
:state
SELECT fn_dot_run_all('[]');
:state
SELECT fn_dot_run_all('{"no such column": 1}');
:state
SELECT fn_dot_run_all('{}', NULL);
:state
SELECT fn_dot_run_all('{}', 'dry');
:state
SELECT fn_dot_run_all('{}', 'plan', NULL, NULL);
:state
SELECT fn_dot_run_all('{}', 'plan', NULL, '[]');
:state

-- fn_dot_wait.
SELECT fn_dot_wait(NULL);
:state
SELECT fn_dot_wait('00000000-0000-7000-8000-000000000001', NULL);
:state
SELECT fn_dot_wait('00000000-0000-7000-8000-000000000001', '-1 ms');
:state
SELECT fn_dot_wait('00000000-0000-7000-8000-000000000001', '1 hour 1 us');
:state
SELECT fn_dot_wait('00000000-0000-7000-8000-000000000001');
:state
-- A run of this very transaction is not sent before its end, also when a savepoint stands between.
BEGIN;
SELECT run_id AS own FROM fn_dot_run('A', 'apply') \gset
SAVEPOINT waiting;
SELECT run_status FROM fn_dot_wait(:'own', '1 s');
:state
ROLLBACK TO waiting;
SELECT run_status FROM fn_dot_wait(:'own', '0');
ROLLBACK;
BEGIN;
SAVEPOINT requesting;
SELECT run_id AS own FROM fn_dot_run('A', 'apply') \gset
SAVEPOINT waiting;
SELECT run_status FROM fn_dot_wait(:'own', '1 s');
:state
ROLLBACK TO waiting;
RELEASE requesting;
SELECT run_status FROM fn_dot_wait(:'own', '1 s');
:state
ROLLBACK;
-- Where nothing that others commit becomes visible, waiting is in vain; a run that is over is returned at once.
SELECT run_id AS queued FROM fn_dot_run('A', 'apply') \gset
SELECT run_id AS planned FROM fn_dot_run('A') \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT run_status FROM fn_dot_wait(:'planned');
SELECT run_status FROM fn_dot_wait(:'queued', '1 s');
:state
ROLLBACK;
SELECT run_status FROM fn_dot_wait(:'planned');
SELECT run_status FROM fn_dot_wait(:'queued', '10 ms');

-- Settings that nobody defined, or out of their range.
SET dot_wrapper.worker_enable = on;
:state
-- Versions word this one differently.
\set VERBOSITY sqlstate
SET dot_wrapper.max_args_size = 0;
\set VERBOSITY default

-- Privileges: a role without any, then with EXECUTE, which is not ownership.
CREATE ROLE regress_dot_nobody;
SET ROLE regress_dot_nobody;
SELECT fn_dot_run('A');
:state
SELECT fn_dot_run_all();
:state
SELECT fn_dot_wait(:'planned');
:state
SELECT * FROM fn_dot_doctor();
:state
SELECT fn_dot_bind('toggle', NULL);
:state
SELECT fn_dot_resume();
:state
SELECT count(*) FROM dot_run;
:state
SELECT count(*) FROM dot_wrapper.dot_run;
:state
RESET ROLE;
GRANT EXECUTE ON FUNCTION fn_dot_run, fn_dot_run_all, fn_dot_wait, fn_dot_doctor, fn_dot_bind, fn_dot_resume TO regress_dot_nobody;
SET ROLE regress_dot_nobody;
SELECT * FROM fn_dot_doctor();
:state
SELECT fn_dot_bind('toggle', NULL);
:state
SELECT fn_dot_resume();
:state
-- EXECUTE on fn_dot_run is all that a caller needs, and his own runs are all that he may wait for.
SELECT run_id AS own, requested_by, run_status FROM fn_dot_run('A') \gset
SELECT run_status, requested_by FROM fn_dot_wait(:'own');
SELECT set_config('regress.planned', :'planned', false) = :'planned' AS kept;
DO $$
BEGIN
    PERFORM public.fn_dot_wait(current_setting('regress.planned')::uuid);
EXCEPTION WHEN undefined_object THEN
    RAISE WARNING '%', replace(SQLERRM, current_setting('regress.planned'), '<run_id>');
END $$;
RESET ROLE;
REVOKE ALL ON FUNCTION fn_dot_run, fn_dot_run_all, fn_dot_wait, fn_dot_doctor, fn_dot_bind, fn_dot_resume FROM regress_dot_nobody;
DROP ROLE regress_dot_nobody;

-- Only what was no misuse is in the ledger.
SELECT code = 'A' AS is_a, mode, run_status, count(*) FROM dot_run GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DROP EXTENSION dot_wrapper;
-- Without the extension there is nothing to call.
SELECT fn_dot_run('A');
:state
