-- Every reason that a gate can give for a refusal, in the order of the gates. A refusal is a row, not an error.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set apply 'SELECT run_status, reason, message FROM fn_dot_run(\'A\', \'apply\');'

-- tool
SELECT run_status, reason, message FROM fn_dot_run('C', 'apply');
UPDATE dot_tools SET status = 'retired' WHERE code = 'A';
:apply
UPDATE dot_tools SET status = ' ACTIVE ' WHERE code = 'A';
BEGIN; :apply ROLLBACK;
UPDATE dot_tools SET status = 'active' WHERE code = 'A';
BEGIN;
ALTER TABLE dot_tools DROP CONSTRAINT dot_tools_pkey;
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('A', 'Tool A again', 'agent_api');
:apply
ROLLBACK;
CREATE ROLE regress_dot_stranger;
GRANT CREATE ON SCHEMA public TO regress_dot_stranger;
BEGIN;
ALTER TABLE dot_tools OWNER TO regress_dot_stranger;
:apply
ROLLBACK;
BEGIN;
ALTER TABLE dot_tools RENAME TO old_tools;
:apply
CREATE VIEW dot_tools AS SELECT *, 1 / (length(code) - 1) AS oops FROM old_tools;
:apply
ROLLBACK;

-- mode: the tool's policy, what the catalogue declares, the engine's policy, in this order
INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'A', '{verify}');
:apply
UPDATE dot_wrapper.policy SET modes = '{}' WHERE scope = 'tool' AND name = 'A';
SELECT run_status, reason, message FROM fn_dot_run('A', 'verify');
DELETE FROM dot_wrapper.policy WHERE scope = 'tool' AND name = 'A';
BEGIN;
ALTER TABLE dot_tools ADD COLUMN modes text[];
UPDATE dot_tools SET modes = '{verify,dance}';
:apply
ROLLBACK;
UPDATE dot_wrapper.policy SET modes = NULL WHERE scope = 'engine';
SELECT run_status, reason, message FROM fn_dot_run('A', 'verify');
UPDATE dot_wrapper.policy SET modes = '{verify,apply}' WHERE scope = 'engine';

-- engine
UPDATE dot_tools SET execution_engine = 'mail' WHERE code = 'A';
:apply
UPDATE dot_tools SET execution_engine = 'agent_api' WHERE code = 'A';
UPDATE dot_wrapper.policy SET endpoint = NULL WHERE scope = 'engine';
:apply
UPDATE dot_wrapper.policy SET endpoint = 'agent' WHERE scope = 'engine';
UPDATE dot_wrapper.endpoint SET base_url = 'https://agent.invalid:99999';
:apply
UPDATE dot_wrapper.endpoint SET base_url = 'https://agent.invalid', auth_header = 'Content-Length';
:apply
UPDATE dot_wrapper.endpoint SET auth_header = DEFAULT;
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('..', 'Upwards', 'agent_api');
SELECT run_status, reason, message FROM fn_dot_run('..', 'apply');

-- egress
DELETE FROM dot_wrapper.egress_rule;
:apply
INSERT INTO dot_wrapper.egress_rule (id, scheme, host, port, path_prefix) OVERRIDING SYSTEM VALUE VALUES
    (1, 'http', 'agent.invalid', 443, '/'),
    (2, 'https', 'agent.invalid', 8443, '/'),
    (3, 'https', 'agent.invalid', 443, '/v1/dot'),
    (4, 'https', 'other.invalid', 443, '/');
:apply
UPDATE dot_wrapper.egress_rule SET host = '169.254.169.254' WHERE id = 4;
UPDATE dot_wrapper.endpoint SET base_url = 'https://169.254.169.254';
:apply
UPDATE dot_wrapper.egress_rule SET cidrs = '{10.0.0.0/8,192.168.0.0/16}' WHERE id = 4;
:apply
-- Another spelling of an address is the address.
UPDATE dot_wrapper.egress_rule SET host = '127.0.0.1', cidrs = '{}' WHERE id = 4;
UPDATE dot_wrapper.endpoint SET base_url = 'https://0x7f.1';
:apply
UPDATE dot_wrapper.endpoint SET base_url = 'https://agent.invalid';
UPDATE dot_wrapper.egress_rule SET host = 'agent.invalid' WHERE id = 4;

-- toggle
UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled';
:apply
UPDATE dot_config SET value = 'treu' WHERE key = 'iu_core.operator_runtime_enabled';
:apply
DELETE FROM dot_config WHERE key = 'iu_core.operator_runtime_enabled';
:apply
SELECT origin FROM fn_dot_bind('toggle', NULL);
:apply
CREATE FUNCTION my_toggle() RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
SELECT origin FROM fn_dot_bind('toggle', 'my_toggle()');
:apply
CREATE OR REPLACE FUNCTION my_toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION E'no\nidea' USING ERRCODE = 'P0042'; END $$;
:apply
ALTER FUNCTION my_toggle() OWNER TO regress_dot_stranger;
:apply
DROP FUNCTION my_toggle();
:apply
SELECT origin FROM fn_dot_bind('toggle', 'fn_dot_iu_operator_runtime_enabled()');
INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', 'true');

-- guard
UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present';
:apply
DELETE FROM dot_config WHERE key = 'fs_snapshot_present';
:apply
SELECT origin FROM fn_dot_bind('guard', NULL);
:apply
CREATE FUNCTION my_guard() RETURNS jsonb LANGUAGE sql AS $$ SELECT current_setting('regress.guard')::jsonb $$;
SELECT origin FROM fn_dot_bind('guard', 'my_guard()');
SET regress.guard = 'false';
:apply
SET regress.guard = '"blocked: backup runs"';
:apply
SET regress.guard = '[{"verdict": "OK"}, {"verdict": "BLOCK", "check": "disk"}]';
:apply
SET regress.guard = '[{"verdict": "OK"}, {"verdict": "WARN", "check": "disk"}]';
BEGIN; :apply ROLLBACK;
CREATE OR REPLACE FUNCTION my_guard() RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
:apply
DROP FUNCTION my_guard();
-- A guard may be a set of rows, one of which blocks, or none at all, which vouches for nothing.
CREATE FUNCTION my_guard() RETURNS TABLE (check_name text, verdict text) LANGUAGE sql AS
    $$ VALUES ('disk', 'OK'), ('backup', 'BLOCK') $$;
:apply
CREATE OR REPLACE FUNCTION my_guard() RETURNS TABLE (check_name text, verdict text) LANGUAGE sql AS
    $$ SELECT 'disk', 'OK' WHERE false $$;
:apply
DROP FUNCTION my_guard();
SELECT origin FROM fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()');
INSERT INTO dot_config VALUES ('fs_snapshot_present', '1');

-- lease
INSERT INTO dot_iu_runtime_lease VALUES ('tool:A', 'somebody', now(), now() + interval '1 hour');
:apply
DELETE FROM dot_iu_runtime_lease;
SELECT origin FROM fn_dot_bind('lease_acquire', NULL);
:apply
CREATE FUNCTION my_acquire(text, text, integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN RETURN 1 / ($3 - 300) > 0; END $$;
SELECT origin FROM fn_dot_bind('lease_acquire', 'my_acquire(text, text, integer)');
:apply
CREATE OR REPLACE FUNCTION my_acquire(text, text, integer) RETURNS boolean LANGUAGE sql AS 'SELECT false';
:apply
SELECT origin FROM fn_dot_bind('lease_acquire', 'fn_dot_iu_runtime_lease_acquire(text, text, interval)');
DROP FUNCTION my_acquire(text, text, integer);

-- With every gate open again it is admitted; and no refusal has left anything but its row, its event and a line in the log.
BEGIN; :apply ROLLBACK;
SELECT reason, count(*), count(lease_key) AS with_lease_key, count(fencing_token) AS with_token,
       count(*) FILTER (WHERE finished_at IS NULL) AS open, count(*) FILTER (WHERE gates = '[]') AS unexplained
FROM dot_run WHERE run_status = 'refused' GROUP BY reason ORDER BY reason COLLATE "C";
SELECT (SELECT count(*) FROM dot_wrapper.dot_queue) AS queued, (SELECT count(*) FROM dot_iu_runtime_lease) AS leases,
       (SELECT count(*) FROM dot_wrapper.lease_grant) AS grants,
       (SELECT count(*) FROM dot_run) = (SELECT count(*) FROM dot_run_event) AS one_event_each;

REVOKE CREATE ON SCHEMA public FROM regress_dot_stranger;
DROP ROLE regress_dot_stranger;
DROP EXTENSION dot_wrapper;
