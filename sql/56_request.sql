-- The request table: an INSERT asks for a run, and the row shows what becomes of it. For Directus, PostgREST and whatever
-- else serves a table as it is. INSERT and SELECT on it are all that a role needs.

CREATE TABLE @extschema@.dot_run_request (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code text NOT NULL,
    mode text DEFAULT 'plan',
    process_run_id uuid,
    args jsonb DEFAULT '{}',
    idempotency_key text,
    actor text,
    run_id uuid,
    run_status text CONSTRAINT request_status_known CHECK (run_status IN
        ('refused', 'planned', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired', 'in_doubt')),
    reason text,
    message text,
    result jsonb,
    requested_by text COLLATE "C",
    requested_by_oid oid,
    requested_at timestamptz,
    finished_at timestamptz
) WITH (fillfactor = 70);
COMMENT ON TABLE @extschema@.dot_run_request IS 'Insert a row to request a run; the row shows what becomes of it. A role sees the rows of its own. The ledger, dot_run, is the truth.';
COMMENT ON COLUMN @extschema@.dot_run_request.code IS 'The tool''s code; the only column that must be given';
COMMENT ON COLUMN @extschema@.dot_run_request.mode IS 'plan (which NULL stands for), verify or apply';
COMMENT ON COLUMN @extschema@.dot_run_request.process_run_id IS 'The larger undertaking; minted when none is given';
COMMENT ON COLUMN @extschema@.dot_run_request.args IS 'Arguments of the tool, an object';
COMMENT ON COLUMN @extschema@.dot_run_request.idempotency_key IS 'With a process_run_id: the same call with the same key is one run, which all its rows show';
COMMENT ON COLUMN @extschema@.dot_run_request.actor IS 'On whose behalf, up to 200 characters; nothing is decided by it';
COMMENT ON COLUMN @extschema@.dot_run_request.run_id IS 'Filled in, as all columns that follow: the run in the ledger; NULL when the row asked for nothing that could be one';
COMMENT ON COLUMN @extschema@.dot_run_request.run_status IS 'Where the run stands';
COMMENT ON COLUMN @extschema@.dot_run_request.reason IS 'Why, for machines; invalid_request: see message';
COMMENT ON COLUMN @extschema@.dot_run_request.message IS 'Why, for people';
COMMENT ON COLUMN @extschema@.dot_run_request.result IS 'What the tool''s engine gave back';
COMMENT ON COLUMN @extschema@.dot_run_request.requested_by IS 'The role that inserted the row';
COMMENT ON COLUMN @extschema@.dot_run_request.requested_by_oid IS 'The same, by its OID: another role that gets its name later does not see the row';
COMMENT ON COLUMN @extschema@.dot_run_request.finished_at IS 'NULL while the run is queued, running or in doubt';
-- Whose outcome is still to come.
CREATE INDEX dot_run_request_open ON @extschema@.dot_run_request (run_id) WHERE finished_at IS NULL;

-- Requests the run with the rights of who inserts, and fills in what became of it.
CREATE FUNCTION dot_wrapper.take_request() RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'take_request_wrapper';
REVOKE ALL ON FUNCTION dot_wrapper.take_request() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.take_request() IS 'Makes a run of a row of dot_run_request, and the row show it';

-- A row that then was not inserted (another had its id) leaves no run.
CREATE FUNCTION dot_wrapper.check_requests() RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'check_requests_wrapper';
REVOKE ALL ON FUNCTION dot_wrapper.check_requests() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.check_requests() IS 'Sees to it that every run that a statement requested has its row';

CREATE FUNCTION dot_wrapper.keep_request() RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'keep_request_wrapper';
REVOKE ALL ON FUNCTION dot_wrapper.keep_request() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.keep_request() IS 'Refuses every change of a request but those of dot_wrapper itself';

CREATE TRIGGER dot_run_request_taken BEFORE INSERT ON @extschema@.dot_run_request
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.take_request();
CREATE TRIGGER dot_run_request_checked AFTER INSERT ON @extschema@.dot_run_request
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.check_requests();
CREATE TRIGGER dot_run_request_kept BEFORE UPDATE ON @extschema@.dot_run_request
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.keep_request();

-- As for the views of the ledger: a role sees what it, or a role it is a member of, requested; pg_read_all_data sees all.
-- The trigger names the current user, so that the check of an insert holds by itself. Rows can be found for an UPDATE, so
-- that the trigger above says why there is none.
ALTER TABLE @extschema@.dot_run_request ENABLE ROW LEVEL SECURITY;
CREATE POLICY request_read ON @extschema@.dot_run_request FOR SELECT
    USING ((SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'))
        OR (requested_by_oid, requested_by) IN
           (SELECT o.oid, o.rolname::text FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')));
CREATE POLICY request_insert ON @extschema@.dot_run_request FOR INSERT
    WITH CHECK (requested_by = current_user::text);
CREATE POLICY request_update ON @extschema@.dot_run_request FOR UPDATE
    USING ((requested_by_oid, requested_by) IN
           (SELECT o.oid, o.rolname::text FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')));
CREATE POLICY request_delete ON @extschema@.dot_run_request FOR DELETE
    USING ((requested_by_oid, requested_by) IN
           (SELECT o.oid, o.rolname::text FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')));

-- To insert here is to run tools: whoever was given all tables of a schema beforehand was not given that.
DO $default_privileges$
DECLARE
    entry record;
BEGIN
    FOR entry IN
        SELECT DISTINCT a.grantee FROM pg_catalog.pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = '@extschema@.dot_run_request'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON @extschema@.dot_run_request FROM %s',
                       CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE entry.grantee::regrole::text END);
    END LOOP;
END
$default_privileges$;

-- What dot_wrapper itself writes, it writes through this view: the table is reached with the rights of the view's owner, but
-- triggers on it run with those of a role that has nothing else.
CREATE VIEW dot_wrapper.request_outcome AS
    SELECT w.id, w.run_status, w.reason, w.message, w.result, w.finished_at, w.requested_by_oid
    FROM @extschema@.dot_run_request w;
COMMENT ON VIEW dot_wrapper.request_outcome IS 'What dot_wrapper writes of dot_run_request, as the role dot_wrapper_mirror';
GRANT USAGE ON SCHEMA dot_wrapper TO dot_wrapper_mirror;
GRANT SELECT (id, finished_at), UPDATE (run_status, reason, message, result, finished_at, requested_by_oid)
    ON dot_wrapper.request_outcome TO dot_wrapper_mirror;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.dot_run_request', '');
