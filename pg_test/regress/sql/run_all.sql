-- fn_dot_run_all: one run for every tool that the filter selects.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set process 00000000-0000-7000-8000-0000000000cc
INSERT INTO dot_tools (code, name, status, execution_engine, tier, domain) VALUES
    ('KG-10', 'Ten', 'active', 'agent_api', '1', 'kg'),
    ('KG-9', 'Nine', 'active', 'agent_api', '2', 'kg'),
    ('KG-old', 'Old', 'retired', 'agent_api', '2', 'kg'),
    ('SH-1', 'Shell', 'active', 'script', NULL, 'ops');

-- All of them, in the order of their codes, in one process run; what cannot be run is refused, and does not stop the others.
SELECT ordinality, code, mode, run_status, reason FROM fn_dot_run_all() WITH ORDINALITY ORDER BY ordinality;
SELECT count(DISTINCT process_run_id) AS processes, count(DISTINCT run_id) AS runs FROM fn_dot_run_all('{}', 'plan');
SELECT code, run_status, reason FROM fn_dot_run_all('{}', 'apply', :'process') ORDER BY code COLLATE "C";

-- A process run that is named is kept; asked again, its admitted runs are the same ones.
SELECT count(*) AS before FROM dot_run WHERE process_run_id = :'process' AND finished_at IS NULL \gset
SELECT code, run_status, process_run_id FROM fn_dot_run_all('{"domain": "kg", "status": "active"}', 'apply', :'process') ORDER BY code COLLATE "C";
SELECT count(*) = :before AS none_new FROM dot_run WHERE process_run_id = :'process' AND finished_at IS NULL;
DELETE FROM dot_iu_runtime_lease;

-- Filters: a value, one of several, NULL, a number as text and text as a number, and none that fits.
SELECT code FROM fn_dot_run_all('{"execution_engine": "script"}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"code": ["A", "KG-9", "nonsense"]}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"tier": null}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"tier": [1, null]}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"tier": 2}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"usage_count": "0", "domain": "ops"}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"tier": []}') ORDER BY code COLLATE "C";
SELECT code FROM fn_dot_run_all('{"domain": "KG"}') ORDER BY code COLLATE "C";
-- A column that nobody has is an error, also where another condition would have left nothing over.
SELECT code FROM fn_dot_run_all('{"domain": "none", "Tier": 1}');

-- Arguments go to all.
SELECT code, args FROM fn_dot_run_all('{"domain": "kg"}', 'verify', NULL, '{"since": "2026-01-01"}') ORDER BY code COLLATE "C";

-- Nothing of it stays when the transaction rolls back.
SELECT count(*) AS before FROM dot_run \gset
BEGIN;
SELECT count(*) FROM fn_dot_run_all('{}', 'apply');
ROLLBACK;
SELECT count(*) = :before AS unchanged FROM dot_run;

-- A code that is catalogued twice is one run, refused.
BEGIN;
ALTER TABLE dot_tools DROP CONSTRAINT dot_tools_pkey;
INSERT INTO dot_tools (code, name, execution_engine, domain) VALUES ('SH-1', 'Again', 'script', 'ops');
SELECT code, run_status, reason FROM fn_dot_run_all('{"domain": "ops"}');
ROLLBACK;

-- An unreadable catalogue is an error here: there is no telling which tools were meant.
BEGIN;
ALTER TABLE dot_tools RENAME TO old_tools;
SELECT fn_dot_run_all();
ROLLBACK;

-- The same by a role that owns nothing. It needs the right to each single run as well.
CREATE ROLE regress_dot_caller;
GRANT EXECUTE ON FUNCTION fn_dot_run_all TO regress_dot_caller;
SET ROLE regress_dot_caller;
SELECT fn_dot_run_all();
\echo SQLSTATE :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION fn_dot_run TO regress_dot_caller;
SET ROLE regress_dot_caller;
SELECT code, run_status, requested_by FROM fn_dot_run_all('{"code": ["A", "B"]}', 'apply') ORDER BY code COLLATE "C";
RESET ROLE;
REVOKE ALL ON FUNCTION fn_dot_run, fn_dot_run_all FROM regress_dot_caller;
DROP ROLE regress_dot_caller;

DROP EXTENSION dot_wrapper;
