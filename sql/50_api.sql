-- The functions that people and tools call. None is granted to PUBLIC; README says what to grant to whom.

CREATE FUNCTION @extschema@.fn_dot_run(
    code text,
    mode text DEFAULT 'plan',
    process_run_id uuid DEFAULT NULL,
    args jsonb DEFAULT '{}',
    idempotency_key text DEFAULT NULL)
RETURNS dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_run_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_run(text, text, uuid, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_run(text, text, uuid, jsonb, text) IS
    'Plans, verifies or applies a catalogued tool: asks the gates, records the decision, and hands the call to the worker at commit. Returns the ledger row; a refusal is a row with run_status refused.';

CREATE FUNCTION @extschema@.fn_dot_run_all(
    filter jsonb DEFAULT '{}',
    mode text DEFAULT 'plan',
    process_run_id uuid DEFAULT NULL,
    args jsonb DEFAULT '{}')
RETURNS SETOF dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 300
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_run_all_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_run_all(jsonb, text, uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_run_all(jsonb, text, uuid, jsonb) IS
    'fn_dot_run for every tool whose catalogue columns have the values of the filter, in one process run, in the order of their codes';

CREATE FUNCTION @extschema@.fn_dot_wait(run_id uuid, timeout interval DEFAULT '60 s')
RETURNS dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_wait_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_wait(uuid, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_wait(uuid, interval) IS
    'Waits until a committed run is over or in doubt, or the time is up, and returns its row as it then stands';

CREATE FUNCTION @extschema@.fn_dot_doctor()
RETURNS TABLE (check_name text, verdict text, detail text, advice text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_doctor_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_doctor() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_doctor() IS
    'What stands between a tool and its execution: one row per check, verdict OK, WARN or BLOCK, and what to do about it';

CREATE FUNCTION @extschema@.fn_dot_bind(port text, function regprocedure)
RETURNS dot_wrapper.port
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_bind_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_bind(text, regprocedure) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_bind(text, regprocedure) IS
    'Binds a port to a function whose signature fits, or with NULL unbinds it. For the extension''s owner and superusers.';

CREATE FUNCTION @extschema@.fn_dot_resume(run_ids uuid[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_resume_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_resume(uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_resume(uuid[]) IS
    'Lets a restored or copied database execute, and gives the named queued runs (NULL: all) a permit. For the extension''s owner and superusers. Returns how many runs were given one.';

CREATE FUNCTION @extschema@.fn_dot_cancel(run_id uuid, reason text)
RETURNS dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_cancel_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_cancel(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_cancel(uuid, text) IS
    'Stops a run of the caller''s role or, for operators (who may call fn_dot_resolve and read all data), any run. Queued: it is cancelled at once. Running: its call is closed, and it is in doubt unless nothing had been sent. Over: it stays as it is. Returns its row.';

CREATE FUNCTION @extschema@.fn_dot_resolve(run_id uuid, outcome text, note text)
RETURNS dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_resolve_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_resolve(uuid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_resolve(uuid, text, text) IS
    'Says how a run in doubt ended, of the caller''s role or, for members of pg_read_all_data, any: succeeded, failed, or retry, which sends it again. For operators: grant it to nobody else. Returns its row.';
-- Before a command that could reach the ledger: loads the library, whose hook then asks (see dot_wrapper.allow_drop).
CREATE FUNCTION dot_wrapper.before_drop() RETURNS event_trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dot_wrapper_before_drop';
REVOKE ALL ON FUNCTION dot_wrapper.before_drop() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.before_drop() IS 'Makes sure, in every session, that a ledger with runs in it is not dropped by mistake';
CREATE EVENT TRIGGER dot_wrapper_before_drop ON ddl_command_start
    WHEN TAG IN ('ALTER EXTENSION', 'DROP EXTENSION', 'DROP LANGUAGE', 'DROP OWNED', 'DROP SCHEMA')
    EXECUTE FUNCTION dot_wrapper.before_drop();
ALTER EVENT TRIGGER dot_wrapper_before_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER dot_wrapper_before_drop IS 'Lets dot_wrapper see commands that could drop its ledger, also where it is not preloaded';
-- An event trigger must be a superuser's. As the first superuser's, it does not keep the extension from being reassigned.
DO $owner$
BEGIN
    EXECUTE format('ALTER EVENT TRIGGER dot_wrapper_before_drop OWNER TO %I', pg_catalog.pg_get_userbyid(10));
END
$owner$;

CREATE FUNCTION @extschema@.fn_dot_breaker(endpoint text, state text, note text)
RETURNS @extschema@.dot_breaker
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_breaker_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_breaker(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_breaker(text, text, text) IS
    'Orders an endpoint''s circuit breaker open (no run is sent to it until ordered otherwise), closed (what was is forgotten), or auto (an open is taken back, and one run tries). For operators. Returns its row.';

CREATE FUNCTION @extschema@.fn_dot_verify(
    process_run_id uuid DEFAULT NULL,
    anchor_seal bigint DEFAULT NULL,
    anchor_hash bytea DEFAULT NULL)
RETURNS TABLE (kind text, run_id uuid, item bigint, verdict text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_verify_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_verify(uuid, bigint, bytea) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_verify(uuid, bigint, bytea) IS
    'Whether the ledger is what it was: a summary (OK, WARN, BROKEN), then one row per finding. Of a process run, for who may see its runs; of the whole ledger, with an anchor kept elsewhere if there is one, for the extension''s owner and pg_read_all_data.';

CREATE FUNCTION @extschema@.fn_dot_seal_head()
RETURNS TABLE (seal_id bigint, hash bytea, sealed_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_seal_head_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_seal_head() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_seal_head() IS
    'The newest seal, to be kept where the database''s superusers cannot change it: an anchor for fn_dot_verify. For the extension''s owner and pg_read_all_data.';

-- Called once at the end of the install script: tells the launcher at commit that there is an extension here.
CREATE FUNCTION dot_wrapper.announce() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'announce_wrapper';
REVOKE ALL ON FUNCTION dot_wrapper.announce() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.announce() IS 'Wakes the worker of this database, or the launcher, at commit';
SELECT dot_wrapper.announce();
