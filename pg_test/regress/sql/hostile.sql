-- A schema in which somebody else may create things: none of his code runs, neither at CREATE EXTENSION nor later.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\set home :DBNAME
DROP DATABASE IF EXISTS regress_dot_hostile;
CREATE DATABASE regress_dot_hostile;
\c regress_dot_hostile
SET client_min_messages = warning;
CREATE ROLE regress_dot_mallory;
GRANT CREATE ON SCHEMA public TO regress_dot_mallory;
CREATE SCHEMA trap;
CREATE TABLE trap.sprung (what text, as_whom name);
GRANT USAGE ON SCHEMA trap TO PUBLIC;
GRANT INSERT ON trap.sprung TO PUBLIC;

-- Better matches than the built-in ones, for names that an install script might use without their schema.
SET ROLE regress_dot_mallory;
CREATE FUNCTION unnest(a text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('unnest', current_user); RETURN QUERY SELECT pg_catalog.unnest(a); END $$;
CREATE FUNCTION array_position(a text[], t text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('array_position', current_user); RETURN pg_catalog.array_position(a, t); END $$;
CREATE FUNCTION format(f text, a text, b text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('format', current_user); RETURN pg_catalog.format(f, a, b); END $$;
CREATE FUNCTION append(a text[], t text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('||', current_user); RETURN pg_catalog.array_append(a, t); END $$;
CREATE OPERATOR || (FUNCTION = append, LEFTARG = text[], RIGHTARG = text);
RESET ROLE;
CREATE EXTENSION dot_wrapper;
SELECT count(*) AS unbound FROM dot_wrapper.port WHERE origin <> 'shipped';
SELECT DISTINCT * FROM trap.sprung ORDER BY 1, 2;

-- Nor when it runs, also with his schema in the caller's path.
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('A', 'Tool A', 'agent_api');
SET search_path = public, pg_catalog;
SELECT run_status, reason FROM fn_dot_run('A', 'apply');
SELECT count(*) FROM fn_dot_run_all();
SELECT count(*) > 0 AS examined FROM fn_dot_doctor();
SELECT count(*) FROM dot_run_gate WHERE gate = 'tool';
RESET search_path;
SELECT DISTINCT * FROM trap.sprung ORDER BY 1, 2;
DROP EXTENSION dot_wrapper;
DROP OWNED BY regress_dot_mallory;
TRUNCATE trap.sprung;
GRANT CREATE ON SCHEMA public TO regress_dot_mallory;

-- The check behind the shipped guard, made beforehand: adopted from a trusted role only, as everything is.
SET ROLE regress_dot_mallory;
CREATE FUNCTION fn_preflight_guard() RETURNS TABLE (check_name text, verdict text, detail text) LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('fn_preflight_guard', current_user); END $$;
RESET ROLE;
CREATE EXTENSION dot_wrapper;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT extname FROM pg_extension WHERE extname = 'dot_wrapper';
ALTER FUNCTION fn_preflight_guard() OWNER TO CURRENT_USER;
CREATE EXTENSION dot_wrapper;
SELECT origin FROM dot_wrapper.port WHERE port = 'guard';
DROP EXTENSION dot_wrapper;
DROP FUNCTION fn_preflight_guard();
TRUNCATE trap.sprung;

-- A catalogue that its owner's code stands behind: that code runs as him, never as more.
CREATE EXTENSION dot_wrapper;
ALTER DATABASE regress_dot_hostile OWNER TO regress_dot_mallory;
ALTER TABLE dot_tools RENAME TO old_tools;
SET ROLE regress_dot_mallory;
CREATE FUNCTION peek() RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.sprung VALUES ('catalogue', current_user); RETURN 'agent_api'; END $$;
CREATE VIEW dot_tools AS SELECT 'A' AS code, 'Tool A' AS name, 'active' AS status, peek() AS execution_engine;
RESET ROLE;
SELECT run_status, reason FROM fn_dot_run('A', 'apply');
SELECT count(*) FROM fn_dot_run_all();
SELECT DISTINCT * FROM trap.sprung ORDER BY 1, 2;

\c :home
DROP DATABASE regress_dot_hostile;
DROP ROLE regress_dot_mallory;
