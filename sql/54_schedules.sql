-- The functions of schedules.

CREATE FUNCTION @extschema@.fn_dot_schedule_sync()
RETURNS TABLE (code text, jobname text, schedule text, action text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_schedule_sync_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_schedule_sync() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_schedule_sync() IS
    'Makes a pg_cron job of every active tool with trigger_type cron or dual and a schedule, run as the caller, and removes those of its jobs that are no longer declared. One row per job: created, changed, kept, removed, invalid; or one row unavailable.';

CREATE FUNCTION @extschema@.fn_dot_tick(code text)
RETURNS dot_wrapper.dot_run
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fn_dot_tick_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_tick(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_tick(text) IS
    'What a pg_cron job calls: asks for the run of the tool''s latest tick, once however often it is called. Returns the ledger row; too late, overlapping or covered ticks are rows with run_status refused.';
