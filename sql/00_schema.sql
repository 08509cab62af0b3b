-- The internal schema and the roles of the worker and of the request table. First of the install script.

-- Whatever stands in the target schema is out of reach for unqualified names and operators of this script.
SET LOCAL search_path TO pg_catalog, pg_temp;

DO $bootstrap$
BEGIN
    IF '@extschema@' ~ '^"?pg_' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_schema_name',
            MESSAGE = 'dot_wrapper cannot be installed into a temporary or system schema',
            HINT = 'Choose an ordinary schema, for example: CREATE EXTENSION dot_wrapper SCHEMA public;';
    END IF;
END
$bootstrap$;

-- No IF NOT EXISTS: a schema that somebody made beforehand belongs to somebody.
CREATE SCHEMA dot_wrapper;
REVOKE ALL ON SCHEMA dot_wrapper FROM PUBLIC;
COMMENT ON SCHEMA dot_wrapper IS
    'dot_wrapper: ledger, queue and configuration. Read the ledger through the views in the schema of the functions.';

-- Roles belong to the cluster, not to an extension: the roles stay after DROP EXTENSION.
DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'dot_wrapper_worker') THEN
        BEGIN
            CREATE ROLE dot_wrapper_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
            COMMENT ON ROLE dot_wrapper_worker IS
                'The background worker of dot_wrapper authenticates as this role. It needs no password; reject it in pg_hba.conf.';
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;   -- made at this very moment for another database
        END;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'dot_wrapper_mirror') THEN
        BEGIN
            CREATE ROLE dot_wrapper_mirror NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
            COMMENT ON ROLE dot_wrapper_mirror IS
                'dot_wrapper keeps dot_run_request up as this role, with whose rights triggers on that table then run. Grant it nothing, and nobody it.';
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
END
$role$;
