-- What sessions keep of the configuration from call to call: every change of these tables tells them, whoever makes it.
CREATE FUNCTION dot_wrapper.tell_of_change() RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dot_wrapper_tell_of_change';
REVOKE ALL ON FUNCTION dot_wrapper.tell_of_change() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.tell_of_change() IS
    'For triggers on the configuration''s tables: makes every session read them anew, from the commit on. It reads and changes nothing.';

-- Before the statement: what it calls meanwhile may see rows that are never committed, and must not keep them. For each row:
-- logical replication fires no other. ALWAYS: in sessions with session_replication_role = replica, too. While one
-- of these is disabled, nothing is kept.
DO $told$
DECLARE
    told text;
BEGIN
    FOREACH told IN ARRAY ARRAY['port', 'instance', 'ancestry', 'policy', 'endpoint', 'egress_rule', 'breaker', 'breaker_order'] LOOP
        EXECUTE format('CREATE TRIGGER change_told AFTER INSERT OR UPDATE OR DELETE ON dot_wrapper.%I
                        FOR EACH ROW EXECUTE FUNCTION dot_wrapper.tell_of_change()', told);
        EXECUTE format('CREATE TRIGGER change_begun BEFORE INSERT OR UPDATE OR DELETE ON dot_wrapper.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.tell_of_change()', told);
        EXECUTE format('CREATE TRIGGER truncation_told AFTER TRUNCATE ON dot_wrapper.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.tell_of_change()', told);
        EXECUTE format('ALTER TABLE dot_wrapper.%I ENABLE ALWAYS TRIGGER change_begun', told);
        EXECUTE format('ALTER TABLE dot_wrapper.%I ENABLE ALWAYS TRIGGER change_told', told);
        EXECUTE format('ALTER TABLE dot_wrapper.%I ENABLE ALWAYS TRIGGER truncation_told', told);
    END LOOP;
END
$told$;
