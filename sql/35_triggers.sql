-- Row triggers: which changes of which tables ask for a run of a tool with trigger_type event or dual.

CREATE TABLE dot_wrapper.trigger_binding (
    code text NOT NULL CONSTRAINT binding_code_has_1_to_200_characters CHECK (length(code) BETWEEN 1 AND 200),
    relation text NOT NULL,
    events text[] NOT NULL DEFAULT '{insert,update,delete}' CONSTRAINT binding_events_are_insert_update_delete CHECK (
        cardinality(events) > 0 AND events <@ ARRAY['insert', 'update', 'delete'] AND array_position(events, NULL) IS NULL),
    columns text[] CONSTRAINT binding_columns_go_with_update CHECK (
        columns IS NULL OR (cardinality(columns) > 0 AND array_position(columns, NULL) IS NULL AND 'update' = ANY (events))),
    per text NOT NULL DEFAULT 'statement' CONSTRAINT binding_per_is_row_or_statement CHECK (per IN ('row', 'statement')),
    "coalesce" boolean NOT NULL DEFAULT true,
    mode text NOT NULL DEFAULT 'apply' CONSTRAINT binding_mode_is_verify_or_apply CHECK (mode IN ('verify', 'apply')),
    args jsonb NOT NULL DEFAULT '{}' CONSTRAINT binding_args_are_an_object CHECK (jsonb_typeof(args) = 'object'),
    run_as name NOT NULL DEFAULT current_user,
    note text,
    PRIMARY KEY (code, relation)
);
COMMENT ON TABLE dot_wrapper.trigger_binding IS
    'Which changes of which tables run a tool whose trigger_type is event or dual. Takes effect with fn_dot_trigger_sync().';
COMMENT ON COLUMN dot_wrapper.trigger_binding.code IS 'The tool';
COMMENT ON COLUMN dot_wrapper.trigger_binding.relation IS 'The table, with its schema';
COMMENT ON COLUMN dot_wrapper.trigger_binding.events IS 'Any of insert, update, delete';
COMMENT ON COLUMN dot_wrapper.trigger_binding.columns IS 'Only updates that set one of these columns; NULL: any';
COMMENT ON COLUMN dot_wrapper.trigger_binding.per IS
    'statement: one event per statement, with table and op in the arguments; row: one per changed row, with its key as well';
COMMENT ON COLUMN dot_wrapper.trigger_binding."coalesce" IS
    'An event is covered by a run of the same tool, role, mode and arguments that is queued and was not started yet';
COMMENT ON COLUMN dot_wrapper.trigger_binding.mode IS 'What an event asks for: verify or apply';
COMMENT ON COLUMN dot_wrapper.trigger_binding.args IS 'Arguments besides table, op and key';
COMMENT ON COLUMN dot_wrapper.trigger_binding.run_as IS
    'The role that asks, whoever writes to the table; it needs EXECUTE on fn_dot_run. Default: who inserts the row here';
COMMENT ON COLUMN dot_wrapper.trigger_binding.note IS 'For people';

-- Nobody binds as somebody else, and a name is kept in one spelling.
CREATE FUNCTION dot_wrapper.check_binding() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[] := pg_catalog.parse_ident(new.relation);
BEGIN
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('"%s" does not name a table with its schema', new.relation),
            HINT = 'For example: public.orders, or "Sales"."Orders".';
    END IF;
    new.relation := format('%I.%I', parts[1], parts[2]);
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = new.run_as) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('role "%s" does not exist', new.run_as);
    END IF;
    IF NOT pg_catalog.pg_has_role(new.run_as, 'USAGE') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('role "%s" may not bind a tool as role "%s"', current_user, new.run_as),
            HINT = 'run_as is yourself, or a role that you are a member of.';
    END IF;
    RETURN new;
END
$$;
REVOKE ALL ON FUNCTION dot_wrapper.check_binding() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.check_binding() IS 'Lets nobody bind as a role that he is not, and writes the table''s name in one way';
CREATE TRIGGER binding_is_checked BEFORE INSERT OR UPDATE ON dot_wrapper.trigger_binding
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.check_binding();

-- A tick of a dual tool looks for what events have asked for since its moment.
CREATE INDEX dot_run_event_asked ON dot_wrapper.dot_run (code, run_id) WHERE source = 'trigger';

SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.trigger_binding', '');
