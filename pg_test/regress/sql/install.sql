-- CREATE EXTENSION on an empty database: what is there, who may do what, and that nothing runs yet.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION dot_wrapper;

-- The objects of the extension.
CREATE TEMP VIEW member AS
SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'dot_wrapper';
SELECT object FROM member WHERE object !~ '^type ' ORDER BY object COLLATE "C";

-- Every one of them is described. An identity column's sequence and a table's row type are parts, not objects.
SELECT m.object FROM member m
WHERE obj_description(m.objid, (SELECT c.relname FROM pg_class c WHERE c.oid = m.classid)) IS NULL
  AND m.classid <> 'pg_type'::regclass
  AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = m.classid AND i.objid = m.objid AND i.deptype = 'i')
ORDER BY m.object COLLATE "C";

-- PUBLIC may nothing.
WITH acl AS (
    SELECT m.object, a.grantee, a.privilege_type
    FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
         aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
    UNION ALL
    SELECT m.object, a.grantee, a.privilege_type
    FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid,
         aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    UNION ALL
    SELECT m.object, a.grantee, a.privilege_type
    FROM member m JOIN pg_namespace n ON m.classid = 'pg_namespace'::regclass AND n.oid = m.objid,
         aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    UNION ALL
    SELECT m.object || ' column ' || t.attname, a.grantee, a.privilege_type
    FROM member m JOIN pg_attribute t ON m.classid = 'pg_class'::regclass AND t.attrelid = m.objid, aclexplode(t.attacl) a
)
SELECT object, privilege_type FROM acl WHERE grantee = 0 ORDER BY object COLLATE "C", privilege_type;

-- What the worker's role may do, and no other role than the owner may anything.
WITH acl AS (
    SELECT c.relname AS name, NULL::name AS attname, a.grantee, a.privilege_type
    FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'dot_wrapper'::regnamespace AND a.grantee <> c.relowner
    UNION ALL
    SELECT c.relname, t.attname, a.grantee, a.privilege_type
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
    WHERE c.relnamespace = 'dot_wrapper'::regnamespace AND a.grantee <> c.relowner
)
SELECT grantee::regrole, name, string_agg(DISTINCT privilege_type, ' ' ORDER BY privilege_type) AS privileges,
       string_agg(attname, ' ' ORDER BY attname) AS columns
FROM acl GROUP BY grantee, name ORDER BY name COLLATE "C";

-- Nothing runs as somebody else by itself, and no function finds its names through the caller's search_path.
SELECT m.object, p.prosecdef, p.proconfig
FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.prosecdef OR p.proconfig IS NULL OR p.proconfig <> '{"search_path=pg_catalog, pg_temp"}'
ORDER BY m.object COLLATE "C";

-- The worker's role is not much.
SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
FROM pg_roles WHERE rolname = 'dot_wrapper_worker';

-- What a dump contains, and what not: no instance, no grants, no leases, no shipped port.
SELECT c.oid::regclass AS dumped, e.condition
FROM (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension WHERE extname = 'dot_wrapper') e
JOIN pg_class c USING (oid) ORDER BY c.oid::regclass::text COLLATE "C";

-- The substrate is ours, its switches are off, and every port is bound to what was shipped.
SELECT * FROM dot_config ORDER BY key COLLATE "C";
SELECT * FROM dot_wrapper.port ORDER BY port COLLATE "C";
SELECT * FROM fn_preflight_guard() ORDER BY check_name COLLATE "C";
SELECT fn_dot_iu_operator_runtime_enabled();
SELECT fn_assert_safe_for_dot_action();
SELECT count(*) AS instances, bool_and(length(permit_key) = 32) AS long_key FROM dot_wrapper.instance;

-- So every request is refused: nobody knows a tool, and once one is known, step by step for the next reason.
SELECT code, mode, run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('DOT-KG-017', 'Orphan sweep', 'agent_api');
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'verify');
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');
INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'https://agent.invalid');
INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('engine', 'agent_api', 'agent');
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');
INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');
UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';
SELECT run_status, reason, message FROM fn_dot_run('DOT-KG-017', 'apply');

-- Every decision is a row, with the event of its birth; one is queued, and no attempt was made.
SELECT r.mode, r.run_status, r.reason, e.event, e.from_status, e.to_status
FROM dot_run r JOIN dot_run_event e USING (run_id) ORDER BY r.run_id;
SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) FROM dot_wrapper.dot_queue;
SELECT count(*) FROM dot_run_attempt;

-- A ledger with runs in it is not dropped by mistake.
SET dot_wrapper.allow_drop = off;
DROP EXTENSION dot_wrapper;
ALTER EXTENSION dot_wrapper DROP TABLE dot_wrapper.dot_run;
SET dot_wrapper.allow_drop = on;

-- It can go and come again; the role stays.
DROP EXTENSION dot_wrapper;
SELECT to_regnamespace('dot_wrapper') AS schema, to_regclass('public.dot_tools') AS catalogue, to_regclass('public.dot_run') AS view,
       to_regrole('dot_wrapper_worker') AS role;
CREATE EXTENSION dot_wrapper;
DROP EXTENSION dot_wrapper;

-- A schema of that name that somebody made beforehand is not taken over.
CREATE SCHEMA dot_wrapper;
CREATE EXTENSION dot_wrapper;
DROP SCHEMA dot_wrapper;
-- Nor is it installed where names are not ours to make.
CREATE EXTENSION dot_wrapper SCHEMA pg_catalog;
-- Any other schema will do, also one whose name has to be quoted.
CREATE SCHEMA "Odd schema";
CREATE EXTENSION dot_wrapper SCHEMA "Odd schema";
SELECT run_status, reason FROM "Odd schema".fn_dot_run('X');
SELECT port, function FROM dot_wrapper.port ORDER BY port COLLATE "C";
ALTER EXTENSION dot_wrapper SET SCHEMA public;
DROP EXTENSION dot_wrapper;
DROP SCHEMA "Odd schema";
