-- fn_dot_cancel and fn_dot_resolve: what they refuse, and what they leave behind. Nothing is sent: there is no worker.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql

SELECT run_id AS queued FROM fn_dot_run('A', 'apply') \gset
SELECT run_id AS planned FROM fn_dot_run('A') \gset

-- Misuse.
SELECT fn_dot_cancel(NULL, 'x');
\echo :LAST_ERROR_SQLSTATE
SELECT fn_dot_cancel(:'queued', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT fn_dot_cancel(:'queued', E' \n ');
\echo :LAST_ERROR_SQLSTATE
SELECT fn_dot_cancel('00000000-0000-7000-8000-00000000dead', 'x');
\echo :LAST_ERROR_SQLSTATE
SELECT fn_dot_resolve('00000000-0000-7000-8000-00000000dead', 'perhaps', 'x');
\echo :LAST_ERROR_SQLSTATE
SELECT fn_dot_resolve('00000000-0000-7000-8000-00000000dead', 'failed', NULL);
\echo :LAST_ERROR_SQLSTATE

-- Somebody else's run is not there.
CREATE ROLE regress_dot_app;
GRANT EXECUTE ON FUNCTION fn_dot_cancel, fn_dot_resolve TO regress_dot_app;
SELECT set_config('regress.queued', :'queued', false) IS NOT NULL AS known;
SET ROLE regress_dot_app;
DO $$
BEGIN
    PERFORM fn_dot_cancel(current_setting('regress.queued')::uuid, 'x');
EXCEPTION WHEN undefined_object THEN
    RAISE NOTICE '%', replace(SQLERRM, current_setting('regress.queued'), 'RUN');
END $$;
RESET ROLE;
DROP OWNED BY regress_dot_app;
DROP ROLE regress_dot_app;

-- A queued run ends at once, gives its lease back, and stays as it is. What is over is returned as it is.
SELECT run_status, reason, message, attempts, finished_at IS NOT NULL AS finished FROM fn_dot_cancel(:'queued', E'not\nneeded');
SELECT run_status, message FROM fn_dot_cancel(:'queued', 'again');
SELECT run_status FROM fn_dot_cancel(:'planned', 'never mind');
SELECT count(*) AS queue FROM dot_wrapper.dot_queue;
SELECT count(*) AS leases FROM dot_iu_runtime_lease WHERE expires_at > clock_timestamp();
SELECT event, from_status, to_status, detail - 'requested_by' AS detail FROM dot_run_event WHERE run_id = :'queued' ORDER BY event_id;
-- In the transaction that asked for it, too; and after a rollback it was never asked for.
BEGIN;
SELECT run_id AS fresh FROM fn_dot_run('B', 'apply') \gset
SELECT run_status FROM fn_dot_cancel(:'fresh', 'changed my mind');
ROLLBACK;
SELECT run_id AS kept FROM fn_dot_run('B', 'apply') \gset
BEGIN;
SELECT run_status FROM fn_dot_cancel(:'kept', 'changed my mind');
ROLLBACK;
SELECT run_status FROM dot_run WHERE run_id = :'kept';

SET dot_wrapper.allow_drop = on;
DROP EXTENSION dot_wrapper;
