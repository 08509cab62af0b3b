-- fn_dot_resume: a copied or restored database executes nothing until its operator says so.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql

-- Nothing is queued, nothing to do; the key stays, since this is the database that it was made in.
SELECT permit_key AS key FROM dot_wrapper.instance \gset
SELECT fn_dot_resume();
SELECT permit_key = :'key' AS same_key FROM dot_wrapper.instance;

SELECT run_id AS one, run_status FROM fn_dot_run('B', 'apply', NULL, '{"n": 1}') \gset
SELECT run_id AS two, run_status FROM fn_dot_run('B', 'verify', NULL, '{"n": 2}') \gset
SELECT run_id AS over, run_status FROM fn_dot_run('B') \gset
-- What the queue says of the first gates is vouched for by nobody else: it is dropped, and the permits are for rows without it.
SELECT count(decided) AS decided, bool_and(length(decided) = 16) AS are_halves FROM dot_wrapper.dot_queue;
CREATE TEMP TABLE first AS SELECT run_id, permit FROM dot_wrapper.dot_queue;
SELECT fn_dot_resume() AS resumed;
SELECT count(q.decided) AS decided, count(*) FILTER (WHERE q.permit = f.permit) AS same FROM dot_wrapper.dot_queue q JOIN first f USING (run_id);
DROP TABLE first;
CREATE TEMP TABLE permits AS SELECT run_id, permit FROM dot_wrapper.dot_queue;
SELECT count(*) AS permits, bool_and(length(permit) = 32) AS are_sha256 FROM permits;
SELECT fn_dot_resume() AS resumed;
SELECT count(*) FILTER (WHERE q.permit = p.permit) AS same, count(*) FROM dot_wrapper.dot_queue q JOIN permits p USING (run_id);

-- As if this were a copy: the plan warns, runs are admitted and wait, and the doctor knows.
UPDATE dot_wrapper.instance SET database_oid = 1;
SELECT r.run_status, d ->> 'gate' AS gate, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason, d -> 'inputs' -> 'same_database' AS same_database
FROM fn_dot_run('B') r, jsonb_array_elements(r.gates) d WHERE d ->> 'verdict' <> 'OK';
SELECT r.run_status, d ->> 'reason' AS reason
FROM fn_dot_run('B', 'apply', NULL, '{"n": 3}') r, jsonb_array_elements(r.gates) d WHERE d ->> 'verdict' <> 'OK';
SELECT verdict, detail, advice FROM fn_dot_doctor() WHERE check_name = 'instance';

-- Resumed: a new key, and new permits for those that are named. What is over, unknown or NULL is passed by.
SELECT fn_dot_resume(ARRAY[:'one', :'over', '00000000-0000-7000-8000-00000000dead', NULL]::uuid[]) AS resumed;
SELECT permit_key = :'key' AS same_key FROM dot_wrapper.instance;
SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'instance';
SELECT r.mode, q.permit = p.permit AS same FROM dot_wrapper.dot_queue q JOIN permits p USING (run_id) JOIN dot_run r USING (run_id)
ORDER BY r.run_id;
SELECT fn_dot_resume('{}') AS resumed;
-- Without a list: all. What was set aside comes back.
UPDATE dot_wrapper.dot_queue SET available_at = 'infinity';
SELECT verdict, detail FROM fn_dot_doctor() WHERE check_name = 'queue';
SELECT fn_dot_resume() AS resumed;
SELECT verdict, detail FROM fn_dot_doctor() WHERE check_name = 'queue';
SELECT count(*) FILTER (WHERE q.permit = p.permit) AS same, count(*) FROM dot_wrapper.dot_queue q JOIN permits p USING (run_id);

-- A row that came in by itself is no run of the ledger, and gets no permit.
INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit)
    VALUES ('00000000-0000-7000-8000-00000000dead', 'queued', 1, 'X', 'x', '\x00');
SELECT fn_dot_resume() AS resumed;
SELECT permit FROM dot_wrapper.dot_queue WHERE run_id = '00000000-0000-7000-8000-00000000dead';

-- A lost instance: nothing goes, and resuming makes a new one.
DELETE FROM dot_wrapper.instance;
SELECT fn_dot_run('B', 'apply');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_resume() AS resumed;
SELECT count(*) AS instances, bool_and(length(permit_key) = 32) AS long_key FROM dot_wrapper.instance;
SELECT run_status FROM fn_dot_run('B', 'apply');

DROP TABLE permits;
DROP EXTENSION dot_wrapper;
