-- Observation: runs and the IU-command layer's rows side by side, one row per process run, waiting for all of it.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN ('dot_observation', 'dot_process_run') GROUP BY 1 ORDER BY 1;
SELECT relname, reloptions FROM pg_class WHERE relname IN ('dot_observation', 'dot_process_run') ORDER BY 1;

\set process 00000000-0000-7000-8000-0000000000cc
-- Before there is anything.
SELECT count(*) FROM dot_observation;
SELECT count(*) FROM dot_process_run;

SELECT run_status FROM fn_dot_run('A', 'plan', :'process', '{"n": 1}');
SELECT run_status FROM fn_dot_run('A', 'verify', :'process', '{"n": 1}');
SELECT run_status, reason FROM fn_dot_run('A', 'apply', :'process', '{"n": 1}');
SELECT run_status, reason FROM fn_dot_run('nonsense', 'apply', :'process');
SELECT run_status, reason FROM fn_dot_run('nonsense', 'plan', :'process');
SELECT fn_dot_iu_command_log('iu.cut', 'apply', 'refused', true, format('{"process_run_id": "%s", "reason": "gate_closed"}', :'process')::jsonb);
SELECT fn_dot_iu_command_log('iu.look', 'verify', 'succeeded', false);

-- Side by side, the newest first; of a process run; and since a time.
\set look 'SELECT layer, name, mode, status, mutating, reason, requested_by, attempts, source FROM dot_observation;'
:look
SELECT layer, name, status, detail -> 'args' AS args, detail ->> 'command_name' AS command FROM dot_observation WHERE process_run_id = :'process';
SELECT count(*) FROM dot_observation WHERE at > now() + '1 s';
SELECT bool_and(at >= coalesce(before, at)) AS newest_first
FROM (SELECT lag(at) OVER (ORDER BY n DESC) AS before, at FROM (SELECT row_number() OVER () AS n, at FROM dot_observation) o) p;
SELECT open, runs, planned, refused, queued, running, in_doubt, succeeded, failed, cancelled, expired, tools, codes, refusals,
       refusals_at_send, iu_commands, first_at < last_at AS lasted
FROM dot_process_run WHERE process_run_id = :'process';

-- A command alone makes a process run, too.
SELECT fn_dot_iu_command_log('iu.cut', 'plan', 'planned', true, '{"process_run_id": "00000000-0000-7000-8000-0000000000dd"}');
SELECT process_run_id, open, runs, tools, codes, refusals, iu_commands FROM dot_process_run ORDER BY process_run_id;

-- Who sees what: runs as in dot_run, commands where the reader may read that table himself.
CREATE ROLE regress_dot_ann;
CREATE ROLE regress_dot_bob;
GRANT SELECT ON dot_observation, dot_process_run TO regress_dot_ann, regress_dot_bob;
SET ROLE regress_dot_ann;
SELECT count(*) FROM dot_observation;
SELECT fn_dot_wait_all(:'process');
RESET ROLE;
GRANT EXECUTE ON FUNCTION fn_dot_iu_commands, fn_dot_run TO regress_dot_ann, regress_dot_bob;
GRANT SELECT ON dot_iu_command_run TO regress_dot_bob;
SET ROLE regress_dot_ann;
SELECT run_status FROM fn_dot_run('B', 'plan', :'process');
:look
SELECT runs, iu_commands FROM dot_process_run;
SET ROLE regress_dot_bob;
:look
SELECT process_run_id, runs, iu_commands FROM dot_process_run ORDER BY 1;
RESET ROLE;
-- A column is not the table.
REVOKE SELECT ON dot_iu_command_run FROM regress_dot_bob;
GRANT SELECT (run_id) ON dot_iu_command_run TO regress_dot_bob;
SET ROLE regress_dot_bob;
SELECT count(*) FROM dot_observation;
RESET ROLE;
GRANT SELECT ON dot_iu_command_run TO regress_dot_bob;
-- Where row security would choose for the reader, nothing is shown to him.
ALTER TABLE dot_iu_command_run ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON dot_iu_command_run USING (true);
SET ROLE regress_dot_bob;
SELECT count(*) FROM dot_observation;
SET row_security = off;
SELECT count(*) FROM dot_observation;
RESET row_security;
RESET ROLE;
SELECT count(*) FROM dot_observation WHERE layer = 'iu_command';

-- Waiting for all: misuse first.
SELECT fn_dot_wait_all(NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_wait_all(:'process', NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_wait_all(:'process', '-1 s');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_wait_all(:'process', '2 h');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_wait_all('00000000-0000-7000-8000-0000000000ee');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
BEGIN;
SELECT run_status FROM fn_dot_run('B', 'verify', '00000000-0000-7000-8000-0000000000ee');
SELECT fn_dot_wait_all('00000000-0000-7000-8000-0000000000ee');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT fn_dot_wait_all(:'process');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
-- There is no worker here: the time is up, and the row says so. Other people's runs are nobody's to wait for.
SELECT open, runs, queued FROM fn_dot_wait_all(:'process', '10 ms');
GRANT EXECUTE ON FUNCTION fn_dot_wait_all TO regress_dot_ann, regress_dot_bob;
SET ROLE regress_dot_ann;
SELECT open, runs, planned FROM fn_dot_wait_all(:'process');
SET ROLE regress_dot_bob;
SELECT fn_dot_wait_all(:'process');
RESET ROLE;

-- A view in the table's place shows what its owner may see, and so is for those who have his rights.
BEGIN;
ALTER TABLE dot_iu_command_run RENAME TO kept;
CREATE VIEW dot_iu_command_run AS SELECT * FROM kept;
GRANT SELECT ON dot_iu_command_run TO PUBLIC;
SELECT count(*) FROM fn_dot_iu_commands();
SET LOCAL ROLE regress_dot_bob;
SELECT count(*) FROM fn_dot_iu_commands();
RESET ROLE;
-- What cannot be read is told, and hides no run.
CREATE OR REPLACE VIEW dot_iu_command_run AS
    SELECT run_id, command_name, run_mode, run_status, mutating, detail, run_by, run_at - (1 / (run_id - run_id))::int * '1 s'::interval AS run_at FROM kept;
SELECT count(*) FROM dot_observation;
-- What asks its own table again finds nothing.
CREATE OR REPLACE VIEW dot_iu_command_run AS
    SELECT run_id, command_name, run_mode, run_status, mutating, detail, run_by, run_at FROM kept WHERE (SELECT count(*) FROM fn_dot_iu_commands()) = 0;
SELECT count(*) FROM fn_dot_iu_commands();
ROLLBACK;

DROP OWNED BY regress_dot_ann, regress_dot_bob;
SET dot_wrapper.allow_drop = on;
DROP EXTENSION dot_wrapper;

-- An adopted table has other columns and types.
CREATE TABLE dot_iu_command_run (id uuid, command text, state varchar(20), process_run_id text, actor name, created_at timestamp, done xml, payload jsonb);
INSERT INTO dot_iu_command_run VALUES
    ('00000000-0000-7000-8000-000000000001', 'cut', 'refused', '00000000-0000-7000-8000-0000000000cc', 'ann', '2026-01-01 10:00', NULL, '{"message": "closed"}'),
    ('00000000-0000-7000-8000-000000000002', 'paste', 'ok', 'none', 'bob', 'infinity', NULL, '[]'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE EXTENSION dot_wrapper;
SET timezone = 'UTC';
SELECT id, process_run_id, name, mode, status, mutating, message, requested_by, at FROM dot_observation;
SELECT process_run_id, runs, iu_commands, first_at FROM dot_process_run;
-- It is the owner's to change and to drop.
ALTER TABLE dot_iu_command_run DROP COLUMN actor, ALTER COLUMN state TYPE text;
SELECT requested_by, status FROM dot_observation WHERE name = 'cut';
DROP TABLE dot_iu_command_run;
SELECT count(*) FROM dot_observation;
DROP EXTENSION dot_wrapper;

-- Not shipped: only runs, until there is such a table.
SET dot_wrapper.ship_substrate = off;
CREATE EXTENSION dot_wrapper;
SELECT run_status, reason FROM fn_dot_run('A');
SELECT layer, name, status FROM dot_observation;
CREATE TABLE dot_iu_command_run (run_id int, command_name text, run_at timestamptz);
INSERT INTO dot_iu_command_run VALUES (1, 'cut', '2020-01-01');
SELECT layer, id, name, at FROM dot_observation WHERE layer = 'iu_command';
-- Nor that of somebody whom nobody trusts.
ALTER TABLE dot_iu_command_run OWNER TO regress_dot_bob;
SELECT count(*) FROM dot_observation WHERE layer = 'iu_command';
DROP TABLE dot_iu_command_run;
DROP EXTENSION dot_wrapper;
DROP ROLE regress_dot_ann, regress_dot_bob;
