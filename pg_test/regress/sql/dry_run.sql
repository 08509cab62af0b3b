-- The dry run's report: a verdict for each tool, and how it stands against an earlier one. Nothing is sent here.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set first 00000000-0000-7000-8000-0000000000c1
\set second 00000000-0000-7000-8000-0000000000c2
INSERT INTO dot_tools (code, name, status, execution_engine) VALUES
    ('C', 'Retired', 'retired', 'agent_api'), ('D', 'Another engine', 'active', 'nothing');
SELECT count(*) FROM fn_dot_run_all('{}', 'plan', :'first');
\set report 'SELECT code, name, verdict, why, change, plan_status, plan_reason, verify_status, verify_reason, fingerprint IS NOT NULL AS fp, baseline_verdict AS was FROM fn_dot_dry_run_report'
:report(:'first');
SELECT count(*) FROM fn_dot_run_all('{}', 'verify', :'first');
-- There is no worker here, so the verifies wait.
:report(:'first');
-- An apply is nobody's dry run.
SELECT run_status FROM fn_dot_run('D', 'apply', '00000000-0000-7000-8000-0000000000c9');
:report('00000000-0000-7000-8000-0000000000c9');

-- The newest plan and verify of a tool count.
UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT count(*) FROM fn_dot_run_all('{"code": ["A", "B", "C"]}', 'plan', :'second');
SELECT count(*) FROM fn_dot_run_all('{"code": ["A", "B", "C"]}', 'verify', :'second');
:report(:'second');
UPDATE dot_tools SET status = 'retired' WHERE code = 'A';
SELECT run_status, reason FROM fn_dot_run('A', 'verify', :'second');
:report(:'second');

-- Against an earlier process run, and against a report that was kept.
:report(:'second', :'first');
SELECT jsonb_agg(to_jsonb(r)) AS kept FROM fn_dot_dry_run_report(:'first') r \gset
:report(:'first', NULL, :'kept');
SELECT DISTINCT change FROM fn_dot_dry_run_report(:'first', baseline_report => jsonb_build_object('tools', :'kept'::jsonb));
SELECT code, name, change FROM fn_dot_dry_run_report(:'first', NULL, '[{"code": "SECRET", "verdict": "PASS"}, {"code": "A", "verdict": "PASS"}]') WHERE change <> 'new';
-- One that was kept with a tool that was gone.
SELECT jsonb_agg(to_jsonb(r)) AS kept FROM fn_dot_dry_run_report(:'second', :'first') r \gset
SELECT code, change FROM fn_dot_dry_run_report(:'second', NULL, :'kept');

-- The lines that docs/dry_run.md begins with.
SELECT DISTINCT process_run_id AS p FROM fn_dot_run_all('{"execution_engine": "nothing"}', 'plan') \gset
SELECT count(*) FROM fn_dot_run_all('{"execution_engine": "nothing"}', 'verify', :'p');
SELECT open, succeeded FROM fn_dot_wait_all(:'p');    SELECT code, verdict, why FROM fn_dot_dry_run_report(:'p');

-- Misuse.
SELECT fn_dot_dry_run_report(NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_dry_run_report('00000000-0000-7000-8000-0000000000ff');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_dry_run_report(:'first', '00000000-0000-7000-8000-0000000000ff');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_dry_run_report(:'first', :'second', '[]');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_dry_run_report(:'first', NULL, '{"tools": 1}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT fn_dot_dry_run_report(:'first', NULL, '[{"verdict": "PASS"}]');
\echo SQLSTATE :LAST_ERROR_SQLSTATE

-- Another role's runs are not in it.
CREATE ROLE regress_dot_ann;
GRANT EXECUTE ON FUNCTION fn_dot_run, fn_dot_dry_run_report TO regress_dot_ann;
SET ROLE regress_dot_ann;
SELECT fn_dot_dry_run_report(:'first');
SELECT run_status FROM fn_dot_run('B', 'plan', :'first');
:report(:'first');
RESET ROLE;
DROP OWNED BY regress_dot_ann;
DROP ROLE regress_dot_ann;
SET dot_wrapper.allow_drop = on;
DROP EXTENSION dot_wrapper;
