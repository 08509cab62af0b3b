-- The functions of row triggers.

CREATE FUNCTION dot_wrapper.fire() RETURNS trigger
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dot_wrapper_fire';
REVOKE ALL ON FUNCTION dot_wrapper.fire() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.fire() IS
    'The trigger function that fn_dot_trigger_sync() puts on bound tables: asks for a run in the writer''s transaction, as the role of the binding';

CREATE FUNCTION @extschema@.fn_dot_trigger_sync()
RETURNS TABLE (code text, relation text, trigger_name text, action text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS 'MODULE_PATHNAME', 'fn_dot_trigger_sync_wrapper';
REVOKE ALL ON FUNCTION @extschema@.fn_dot_trigger_sync() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.fn_dot_trigger_sync() IS
    'Puts a trigger on every table that dot_wrapper.trigger_binding binds to an active tool with trigger_type event or dual, and removes those that are no longer bound, with the caller''s rights. One row per binding or trigger: created, changed, kept, removed, invalid.';
