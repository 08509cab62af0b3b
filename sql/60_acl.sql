-- Last: default privileges of a database or schema have reached what this script made. In our own schema nobody but the
-- owner and the worker has anything, and nothing of ours anywhere is PUBLIC's.

DO $acl$
DECLARE
    entry record;
BEGIN
    FOR entry IN
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS object, a.grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = 'dot_wrapper'
        JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'S')
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
          AND d.deptype = 'e' AND a.grantee <> c.relowner
          AND (a.grantee = 0 OR (c.relnamespace = 'dot_wrapper'::regnamespace
                                 AND a.grantee NOT IN ('dot_wrapper_worker'::regrole, 'dot_wrapper_mirror'::regrole)))
        UNION
        SELECT 'FUNCTION', f.oid::regprocedure::text, a.grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = 'dot_wrapper'
        JOIN pg_catalog.pg_proc f ON f.oid = d.objid
        CROSS JOIN LATERAL aclexplode(f.proacl) a
        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.classid = 'pg_catalog.pg_proc'::regclass
          AND d.deptype = 'e' AND a.grantee <> f.proowner
          AND (a.grantee = 0 OR (f.pronamespace = 'dot_wrapper'::regnamespace AND a.grantee <> 'dot_wrapper_worker'::regrole))
        UNION
        SELECT 'SCHEMA', n.oid::regnamespace::text, a.grantee
        FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
        WHERE n.nspname = 'dot_wrapper' AND a.grantee <> n.nspowner AND a.grantee NOT IN ('dot_wrapper_worker'::regrole, 'dot_wrapper_mirror'::regrole)
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', entry.kind, entry.object,
                       CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE entry.grantee::regrole::text END);
    END LOOP;
END
$acl$;
