-- fn_dot_bind: which function stands behind a port, and which may not.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
CREATE ROLE regress_dot_stranger;
CREATE SCHEMA adapters;
GRANT USAGE, CREATE ON SCHEMA adapters TO regress_dot_stranger;

-- Not a port; not a function.
SELECT fn_dot_bind(NULL, 'fn_dot_iu_operator_runtime_enabled()');
:state
SELECT fn_dot_bind('Toggle', 'fn_dot_iu_operator_runtime_enabled()');
:state
SELECT fn_dot_bind('toggle', 4294967295::oid::regprocedure);
:state

-- Functions that do not fit.
CREATE FUNCTION adapters.word() RETURNS text LANGUAGE sql AS $$ SELECT 'on' $$;
CREATE FUNCTION adapters.many() RETURNS SETOF boolean LANGUAGE sql AS $$ SELECT true $$;
CREATE FUNCTION adapters.with_argument(text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
CREATE FUNCTION adapters.swapped(text, interval, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
CREATE PROCEDURE adapters.act() LANGUAGE sql AS $$ SELECT true $$;
SELECT fn_dot_bind('toggle', 'adapters.word()');
:state
SELECT fn_dot_bind('toggle', 'adapters.many()');
:state
SELECT fn_dot_bind('toggle', 'adapters.with_argument(text)');
:state
SELECT fn_dot_bind('guard', 'adapters.act()');
:state
SELECT fn_dot_bind('guard', 'adapters.with_argument(text)');
:state
SELECT fn_dot_bind('lease_acquire', 'adapters.swapped(text, interval, text)');
:state
SELECT fn_dot_bind('lease_release', 'adapters.with_argument(text)');
:state

-- Functions of untrusted owners: a worker would run them.
SET ROLE regress_dot_stranger;
CREATE FUNCTION adapters.theirs() RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
RESET ROLE;
SELECT fn_dot_bind('toggle', 'adapters.theirs()');
:state
ALTER FUNCTION adapters.theirs() OWNER TO CURRENT_USER;
SELECT * FROM fn_dot_bind('toggle', 'adapters.theirs()');
-- A bound function that changes hands afterwards is not called.
ALTER FUNCTION adapters.theirs() OWNER TO regress_dot_stranger;
SELECT run_status, reason, message FROM fn_dot_run('A', 'apply');
ALTER FUNCTION adapters.theirs() OWNER TO CURRENT_USER;

-- Nothing of the failures was written.
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";

-- Adapters are called as their owner, restricted, with their own schema as the path, whoever calls and wherever he stands.
CREATE TABLE adapters.switch (on_ boolean);
INSERT INTO adapters.switch VALUES (true);
CREATE TABLE public.switch (on_ boolean);
GRANT SELECT ON public.switch TO PUBLIC;
CREATE ROLE regress_dot_owner SUPERUSER;
CREATE FUNCTION adapters.toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING 'runs as %, session of the caller %, search_path %', current_user, session_user <> current_user, current_setting('search_path');
    RETURN (SELECT on_ FROM switch);
END $$;
ALTER FUNCTION adapters.toggle() OWNER TO regress_dot_owner;
SELECT * FROM fn_dot_bind('toggle', 'adapters.toggle()');
CREATE ROLE regress_dot_caller;
GRANT EXECUTE ON FUNCTION fn_dot_run TO regress_dot_caller;
GRANT USAGE ON SCHEMA adapters TO regress_dot_caller;
BEGIN;
SET LOCAL search_path = public, adapters;
SET LOCAL ROLE regress_dot_caller;
SELECT run_status FROM fn_dot_run('A', 'apply');
SELECT current_user, current_setting('search_path') AS search_path;
ROLLBACK;
-- What an adapter must not do: become somebody else, set things for later, leave temporary tables behind.
CREATE OR REPLACE FUNCTION adapters.toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN SET ROLE regress_dot_stranger; RETURN true; END $$;
SELECT run_status, message FROM fn_dot_run('A', 'apply');
CREATE OR REPLACE FUNCTION adapters.toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN CREATE TEMP TABLE left_behind (); RETURN true; END $$;
SELECT run_status, message FROM fn_dot_run('A', 'apply');
CREATE OR REPLACE FUNCTION adapters.toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN SET search_path = adapters; SET synchronous_commit = off; PERFORM set_config('work_mem', '64kB', false); RETURN true; END $$;
SELECT run_status FROM fn_dot_run('B');
SHOW search_path;
SHOW synchronous_commit;
SHOW work_mem;
RESET ALL;
SET client_min_messages = warning;
-- What it wrote before it failed is undone, and the refusal is recorded all the same.
CREATE OR REPLACE FUNCTION adapters.toggle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN DELETE FROM switch; RAISE division_by_zero; END $$;
SELECT run_status, reason, message, gates #> '{4,inputs}' AS inputs FROM fn_dot_run('A', 'apply');
SELECT count(*) AS rows FROM adapters.switch;

-- Unbound and bound again; a schema, a name and a type that have to be quoted.
SELECT * FROM fn_dot_bind('toggle', NULL);
SELECT run_status, reason, message FROM fn_dot_run('A', 'apply');
CREATE SCHEMA "My adapters";
CREATE FUNCTION "My adapters"."Is it ""on""?"() RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
SELECT * FROM fn_dot_bind('toggle', '"My adapters"."Is it ""on""?"()');
BEGIN;
SELECT run_status FROM fn_dot_run('A', 'apply');
ROLLBACK;

-- Adapters of every port, with the other signature of the lease's.
-- Their bodies are read with the path that they are called with, which is not ours here.
SET check_function_bodies = off;
CREATE TABLE adapters.held (key text PRIMARY KEY, holder text, ttl integer);
CREATE FUNCTION adapters.acquire(text, text, integer) RETURNS boolean LANGUAGE sql AS $$
    WITH i AS (INSERT INTO held VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true) SELECT EXISTS (SELECT FROM i) $$;
CREATE FUNCTION adapters.release(text, text) RETURNS void LANGUAGE sql AS $$ DELETE FROM held WHERE key = $1 AND holder = $2 $$;
CREATE FUNCTION adapters.guard() RETURNS void LANGUAGE sql AS '';
SELECT * FROM fn_dot_bind('lease_acquire', 'adapters.acquire(text, text, integer)');
SELECT * FROM fn_dot_bind('lease_release', 'adapters.release(text, text)');
SELECT * FROM fn_dot_bind('guard', 'adapters.guard()');
CREATE TYPE adapters.state AS ENUM ('on');
CREATE FUNCTION adapters.log(adapters.state) RETURNS void LANGUAGE sql AS '';
SELECT * FROM fn_dot_bind('command_log', 'adapters.log(adapters.state)');
SELECT run_id AS run, run_status FROM fn_dot_run('A', 'apply') \gset
\echo :run_status
SELECT key, holder = 'dot_run:' || :'run' AS is_holder, ttl FROM adapters.held;
SELECT run_status, reason FROM fn_dot_run('A', 'apply');
SELECT count(*) AS leases_of_ours FROM dot_iu_runtime_lease;
-- A type that is gone takes with it the port that names it, and nothing else.
DROP TYPE adapters.state CASCADE;
SELECT run_status, reason FROM fn_dot_run('B', 'apply');
SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'port command_log';

-- Only what an operator bound is dumped with the extension.
SELECT port, origin FROM dot_wrapper.port WHERE origin = 'bound' ORDER BY port COLLATE "C";

-- Unbinding survives a lost row.
DELETE FROM dot_wrapper.port WHERE port = 'guard';
SELECT run_status, reason, message FROM fn_dot_run('B', 'apply');
SELECT * FROM fn_dot_bind('guard', 'fn_assert_safe_for_dot_action()');
SELECT run_status FROM fn_dot_run('B', 'apply');

REVOKE ALL ON FUNCTION fn_dot_run FROM regress_dot_caller;
DROP EXTENSION dot_wrapper;
DROP SCHEMA adapters, "My adapters" CASCADE;
DROP TABLE public.switch;
DROP ROLE regress_dot_owner, regress_dot_caller, regress_dot_stranger;
