-- fn_dot_doctor: what is wrong, one row per check; fixed one after the other. The worker is off in these tests.
SET client_min_messages = warning;
CREATE EXTENSION dot_wrapper;
\set changed 'SELECT check_name, verdict FROM fn_dot_doctor() EXCEPT SELECT * FROM before ORDER BY 1, 2;'

SELECT check_name, verdict, advice IS NOT NULL AS advised FROM fn_dot_doctor() WITH ORDINALITY ORDER BY ordinality;
CREATE TEMP TABLE before AS SELECT check_name, verdict FROM fn_dot_doctor();
-- Advice is given exactly where something is not OK.
SELECT check_name FROM fn_dot_doctor() WHERE (advice IS NULL) <> (verdict = 'OK');
-- It writes nothing.
SELECT count(*) FROM dot_run;

INSERT INTO dot_tools (code, name, execution_engine) VALUES ('A', 'Tool A', 'agent_api');
:changed
INSERT INTO dot_wrapper.endpoint (name, base_url, auth_secret) VALUES ('agent', 'https://agent.invalid', 'regress-no-such-secret');
INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('engine', 'agent_api', 'agent');
:changed
INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
:changed
UPDATE dot_wrapper.endpoint SET auth_secret = NULL;
:changed
UPDATE dot_wrapper.endpoint SET base_url = 'https://agent.invalid:99999';
:changed
UPDATE dot_wrapper.endpoint SET base_url = 'https://agent.invalid';
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';
:changed
-- Everything but the worker.
SELECT check_name, verdict FROM fn_dot_doctor() WHERE verdict <> 'OK';

-- What the check of the endpoints is about: one per endpoint that an active tool uses.
DROP TABLE before;
CREATE TEMP TABLE before AS SELECT check_name, verdict FROM fn_dot_doctor();
INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('unused', 'https://unused.invalid');
:changed
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('U', 'Uses it', 'agent_api');
INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('tool', 'U', 'unused');
SELECT check_name, verdict FROM fn_dot_doctor() WHERE check_name IN ('endpoint', 'egress') ORDER BY 1, 2;
UPDATE dot_tools SET status = 'retired' WHERE code = 'U';
SELECT check_name, verdict FROM fn_dot_doctor() WHERE check_name IN ('endpoint', 'egress') ORDER BY 1, 2;

-- Ports: unbound, gone, of a stranger. Nothing needs the command log.
SELECT count(*) FROM (SELECT fn_dot_bind(p, NULL) FROM unnest(ARRAY['toggle', 'guard', 'lease_acquire', 'lease_release', 'command_log']) p) b;
:changed
SELECT origin FROM fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()');
SELECT origin FROM fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()');
SELECT origin FROM fn_dot_bind('lease_acquire', 'fn_dot_iu_runtime_lease_acquire(text, text, interval)');
SELECT origin FROM fn_dot_bind('lease_release', 'fn_dot_iu_runtime_lease_release(text, text)');
:changed

-- Catalogue: doubled codes, unreadable.
BEGIN;
ALTER TABLE dot_tools DROP CONSTRAINT dot_tools_pkey;
INSERT INTO dot_tools SELECT * FROM dot_tools WHERE code = 'A';
:changed
ROLLBACK;
BEGIN;
ALTER TABLE dot_tools RENAME TO old_tools;
:changed
ROLLBACK;

-- Runs that wait, are in doubt, or have no permit; counters that are owed; a database that is a copy.
SELECT run_id AS run FROM fn_dot_run('A', 'apply') \gset
:changed
BEGIN;
UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = :'run';
INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit) VALUES (gen_random_uuid(), 'in_doubt', 1, 'X', 'x', '');
INSERT INTO dot_wrapper.usage_debt VALUES ('A', 1, now());
UPDATE dot_wrapper.instance SET database_oid = 1;
:changed
ROLLBACK;
BEGIN;
DELETE FROM dot_wrapper.instance;
SELECT * FROM fn_dot_doctor() WHERE check_name NOT IN ('preload', 'worker');
ROLLBACK;

DROP TABLE before;
DROP EXTENSION dot_wrapper;
