-- CREATE EXTENSION on a database that has a substrate: it binds to what is there, and the owner keeps it.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\set home :DBNAME
DROP DATABASE IF EXISTS regress_dot_adopt;
CREATE DATABASE regress_dot_adopt;
\c regress_dot_adopt
SET client_min_messages = warning;
CREATE ROLE regress_dot_stranger;
-- Their bodies are read with the path that they are called with, which is not ours here.
SET check_function_bodies = off;

-- A catalogue with other columns and types than ours, a lease function in seconds, a guard that returns rows.
CREATE SCHEMA ops;
CREATE TYPE ops.state AS ENUM ('active', 'retired');
CREATE TABLE ops.dot_tools (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code varchar(40) UNIQUE, name varchar(80), status ops.state,
    execution_engine text, script_path text, usage_count integer, last_executed timestamp, supported_modes text, meta jsonb, "Date Updated" date
);
INSERT INTO ops.dot_tools (code, name, status, execution_engine, supported_modes, meta) VALUES
    ('DOT-1', 'One', 'active', 'agent_api', 'verify, apply', '{"owner": "kg"}'),
    ('DOT-2', NULL, 'retired', NULL, NULL, NULL);
CREATE TABLE ops.dot_config (key text PRIMARY KEY, value jsonb);
INSERT INTO ops.dot_config VALUES ('iu_core.operator_runtime_enabled', 'true');
CREATE TABLE ops.dot_iu_runtime_lease (lease_key text PRIMARY KEY, holder text, expires_at timestamptz, extra integer);
CREATE TABLE ops.dot_iu_command_run (run_id uuid);
CREATE TABLE ops.job_queue (id integer);
CREATE FUNCTION ops.fn_dot_iu_operator_runtime_enabled() RETURNS boolean LANGUAGE sql AS
    $$ SELECT (value #>> '{}')::boolean FROM dot_config WHERE key = 'iu_core.operator_runtime_enabled' $$;
CREATE FUNCTION ops.fn_preflight_guard() RETURNS TABLE (check_name text, verdict text) LANGUAGE sql AS $$ VALUES ('disk', 'OK') $$;
CREATE FUNCTION ops.fn_assert_safe_for_dot_action(OUT check_name text, OUT verdict text) RETURNS SETOF record LANGUAGE sql AS
    $$ SELECT * FROM fn_preflight_guard() $$;
CREATE FUNCTION ops.fn_dot_iu_runtime_lease_acquire(key text, holder text, ttl integer DEFAULT 60) RETURNS text LANGUAGE sql AS $$
    INSERT INTO dot_iu_runtime_lease AS l VALUES ($1, $2, now() + $3 * interval '1 s')
    ON CONFLICT (lease_key) DO UPDATE SET expires_at = excluded.expires_at WHERE l.holder = $2 OR l.expires_at < now()
    RETURNING l.lease_key $$;
CREATE FUNCTION ops.fn_dot_iu_runtime_lease_release(text, text) RETURNS void LANGUAGE sql AS
    $$ DELETE FROM dot_iu_runtime_lease WHERE lease_key = $1 AND holder = $2 $$;
CREATE FUNCTION ops.fn_dot_iu_command_log(name text, state ops.state) RETURNS uuid LANGUAGE sql AS $$ SELECT gen_random_uuid() $$;

CREATE EXTENSION dot_wrapper SCHEMA ops;
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";
-- What was there is no part of the extension.
SELECT pg_describe_object(classid, objid, 0) AS object FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND pg_describe_object(classid, objid, 0) ~ 'dot_tools|dot_config|dot_iu_runtime|dot_iu_operator|dot_iu_command_|job_queue|preflight|assert_safe'
ORDER BY 1;

-- It works with it.
INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'https://agent.invalid');
INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('engine', 'agent_api', 'agent');
INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
SELECT g.* FROM ops.fn_dot_run('DOT-1') r, jsonb_to_recordset(r.gates) AS g (gate text, verdict text, reason text, message text);
SELECT run_status, reason, lease_key FROM ops.fn_dot_run('DOT-1', 'verify');
SELECT lease_key, holder ~ '^dot_run:' AS of_a_run, round(extract(epoch FROM expires_at - now()) / 60) AS minutes FROM ops.dot_iu_runtime_lease;
SELECT run_status, reason FROM ops.fn_dot_run('DOT-1', 'apply');
SELECT code, run_status, reason, message FROM ops.fn_dot_run_all('{"id": [1, 2]}', 'apply') ORDER BY code;
SELECT code, run_status FROM ops.fn_dot_run_all('{"meta": {"owner": "kg"}}') ORDER BY code;
UPDATE ops.dot_config SET value = 'false';
SELECT run_status, reason FROM ops.fn_dot_run('DOT-1', 'apply');
-- And leaves it behind when it goes.
DROP EXTENSION dot_wrapper;
SELECT count(*) AS tools FROM ops.dot_tools;
SELECT count(*) AS functions FROM pg_proc WHERE pronamespace = 'ops'::regnamespace;

-- A catalogue may be a view.
BEGIN;
ALTER TABLE ops.dot_tools RENAME TO tools;
CREATE VIEW ops.dot_tools AS SELECT code, name, status, execution_engine FROM ops.tools;
CREATE EXTENSION dot_wrapper SCHEMA ops;
SELECT run_status, reason FROM ops.fn_dot_run('DOT-1');
SELECT run_status, reason FROM ops.fn_dot_run('DOT-2');
ROLLBACK;

-- Signatures that do not fit leave the port unbound, with the reason; an adapter is bound by hand.
BEGIN;
DROP FUNCTION ops.fn_dot_iu_operator_runtime_enabled, ops.fn_dot_iu_runtime_lease_acquire, ops.fn_dot_iu_runtime_lease_release;
CREATE FUNCTION ops.fn_dot_iu_operator_runtime_enabled() RETURNS text LANGUAGE sql AS $$ SELECT 'on' $$;
CREATE FUNCTION ops.fn_dot_iu_runtime_lease_acquire(key text, holder text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
CREATE EXTENSION dot_wrapper SCHEMA ops;
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";
INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'https://agent.invalid');
INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('engine', 'agent_api', 'agent');
INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
SELECT run_status, reason, message FROM ops.fn_dot_run('DOT-1', 'apply');
CREATE FUNCTION ops.adapter() RETURNS boolean LANGUAGE sql AS $$ SELECT fn_dot_iu_operator_runtime_enabled() = 'on' $$;
SELECT * FROM ops.fn_dot_bind('toggle', 'ops.adapter()');
SELECT run_status, reason, message FROM ops.fn_dot_run('DOT-1', 'apply');
ROLLBACK;

-- A part of it: the functions of missing ones are shipped only over tables that are shipped too.
BEGIN;
DROP TABLE ops.dot_iu_runtime_lease, ops.job_queue;
DROP FUNCTION ops.fn_dot_iu_runtime_lease_acquire, ops.fn_dot_iu_runtime_lease_release, ops.fn_assert_safe_for_dot_action;
CREATE EXTENSION dot_wrapper SCHEMA ops;
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";
SELECT to_regclass('ops.dot_iu_runtime_lease') AS lease, to_regclass('ops.job_queue') AS queue;
ROLLBACK;

-- Nothing is shipped where a dump of a database with its own substrate is restored.
CREATE SCHEMA bare;
BEGIN;
SET LOCAL dot_wrapper.ship_substrate = off;
CREATE EXTENSION dot_wrapper SCHEMA bare;
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bare'::regnamespace AND relkind IN ('r', 'v') ORDER BY c.oid::regclass::text COLLATE "C";
SELECT run_status, reason, message FROM bare.fn_dot_run('DOT-1', 'apply');
ROLLBACK;

-- Tables and functions of a role that is neither superuser, nor installer, nor owner of the database: refused.
BEGIN;
ALTER TABLE ops.dot_config OWNER TO regress_dot_stranger;
CREATE EXTENSION dot_wrapper SCHEMA ops;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER FUNCTION ops.fn_assert_safe_for_dot_action() OWNER TO regress_dot_stranger;
CREATE EXTENSION dot_wrapper SCHEMA ops;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
CREATE FUNCTION ops.fn_dot_iu_runtime_lease_release(integer) RETURNS void LANGUAGE sql AS '';
ALTER FUNCTION ops.fn_dot_iu_runtime_lease_release(integer) OWNER TO regress_dot_stranger;
CREATE EXTENSION dot_wrapper SCHEMA ops;
ROLLBACK;
-- What is not a table, and a catalogue without codes.
BEGIN;
DROP TABLE ops.job_queue;
CREATE SEQUENCE ops.job_queue;
CREATE EXTENSION dot_wrapper SCHEMA ops;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE ops.dot_tools RENAME COLUMN code TO "Code";
CREATE EXTENSION dot_wrapper SCHEMA ops;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ROLLBACK;
-- The database's owner is trusted.
BEGIN;
ALTER DATABASE regress_dot_adopt OWNER TO regress_dot_stranger;
ALTER TABLE ops.dot_config OWNER TO regress_dot_stranger;
CREATE EXTENSION dot_wrapper SCHEMA ops;
SELECT dot_wrapper.is_trusted_owner('regress_dot_stranger'::regrole) AS owner, dot_wrapper.is_trusted_owner('pg_monitor'::regrole) AS other;
ROLLBACK;

\c :home
DROP DATABASE regress_dot_adopt;
DROP ROLE regress_dot_stranger;
