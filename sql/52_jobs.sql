-- job_queue: which table's jobs become runs, and the jobs whose runs are not over. What the worker does with them is
-- src/run/jobs.rs; docs/job_queue.md says it for people.

CREATE TABLE dot_wrapper.job_source (
    only_row boolean PRIMARY KEY DEFAULT true CONSTRAINT job_source_single CHECK (only_row),
    run_as name NOT NULL,
    relation text NOT NULL DEFAULT '@extschema@.job_queue'
        CONSTRAINT job_source_relation_is_schema_dot_table CHECK (pg_catalog.cardinality(pg_catalog.parse_ident(relation)) = 2),
    families text[] NOT NULL DEFAULT '{job:dot}'
        CONSTRAINT job_source_families_are_named CHECK (pg_catalog.cardinality(families) BETWEEN 1 AND 100
                                                        AND pg_catalog.array_position(families, NULL) IS NULL),
    id_column name NOT NULL DEFAULT 'id',
    family_column name NOT NULL DEFAULT 'family',
    payload_column name NOT NULL DEFAULT 'payload',
    status_column name NOT NULL DEFAULT 'status',
    run_id_column name DEFAULT 'run_id',
    idempotency_key_column name DEFAULT 'idempotency_key',
    actor_column name DEFAULT 'actor',
    result_column name DEFAULT 'result',
    finished_at_column name DEFAULT 'finished_at',
    status_words jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT job_source_status_words_are_known CHECK (
            pg_catalog.jsonb_typeof(status_words) = 'object'
            AND status_words - '{queued,taken,succeeded,failed,refused,cancelled,expired,in_doubt}'::text[] = '{}'
            AND NOT pg_catalog.jsonb_path_exists(status_words, '$.* ? (@.type() != "string")')),
    batch integer NOT NULL DEFAULT 50 CONSTRAINT job_source_batch_between_1_and_1000 CHECK (batch BETWEEN 1 AND 1000)
);
COMMENT ON TABLE dot_wrapper.job_source IS
    'The table whose jobs become runs. At most one row; none: no job is taken. Behind dot_config[''queue.worker.enabled''], which must be the word true.';
COMMENT ON COLUMN dot_wrapper.job_source.run_as IS
    'The role by which the runs are requested: it must be allowed to call fn_dot_run. Who sets it is a member of it. Never taken from a job, so that who may insert jobs becomes nobody else.';
COMMENT ON COLUMN dot_wrapper.job_source.relation IS 'The table, with its schema. It must belong to a trusted role; it is read and written with that role''s rights. Who names it may SELECT and UPDATE it; no catalogue, and no table of dot_wrapper but job_queue.';
COMMENT ON COLUMN dot_wrapper.job_source.families IS 'Families whose jobs are taken, each spelled out; no other job is looked at, locked or changed.';
COMMENT ON COLUMN dot_wrapper.job_source.id_column IS 'Its key, of any type; jobs are taken in its order';
COMMENT ON COLUMN dot_wrapper.job_source.payload_column IS
    'json, jsonb or text: {"code": …, "mode": "apply", "process_run_id": …, "args": {}}; all but code optional';
COMMENT ON COLUMN dot_wrapper.job_source.status_column IS 'Of any type that the words of status_words can be cast to';
COMMENT ON COLUMN dot_wrapper.job_source.run_id_column IS 'Gets the run''s id; NULL: there is no such column';
COMMENT ON COLUMN dot_wrapper.job_source.idempotency_key_column IS
    'Jobs with the same key, tool and mode are one run; NULL: there is no such column';
COMMENT ON COLUMN dot_wrapper.job_source.actor_column IS
    'On whose behalf, as the job says; free text that ends in dot_run.actor and is never a role. NULL: there is no such column';
COMMENT ON COLUMN dot_wrapper.job_source.result_column IS
    'json, jsonb or text: gets the run''s state, reason, message and result; NULL: there is no such column';
COMMENT ON COLUMN dot_wrapper.job_source.finished_at_column IS 'Gets the moment when the outcome is written; NULL: there is no such column';
COMMENT ON COLUMN dot_wrapper.job_source.status_words IS
    'The table''s words for queued, taken, succeeded, failed, refused, cancelled, expired, in_doubt. What is left out has its own name, taken is running. That of queued must be like no other.';
COMMENT ON COLUMN dot_wrapper.job_source.batch IS 'Jobs taken in one transaction, 1 to 1000';

-- The worker writes to the table with its owner's rights, and requests runs as run_as: nobody gets by this table what he has not.
CREATE FUNCTION dot_wrapper.check_job_source() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A dump is restored before what it names.
    restores constant boolean := pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = tg_relid), 'USAGE');
    relation regclass;
BEGIN
    IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN
        RETURN new;
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = new.run_as) THEN
        IF NOT pg_catalog.pg_has_role(new.run_as, 'USAGE') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('role "%s" may not let jobs run as role "%s"', current_user, new.run_as),
                HINT = 'run_as is yourself, or a role that you are a member of.';
        END IF;
    ELSIF NOT restores THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('role "%s" does not exist', new.run_as);
    END IF;
    -- A name of another shape is refused by the table's own constraint.
    IF cardinality(pg_catalog.parse_ident(new.relation)) = 2 THEN
        relation := pg_catalog.to_regclass(new.relation);
        IF relation IS NULL THEN
            IF NOT restores THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'undefined_table',
                    MESSAGE = format('there is no table %s', new.relation);
            END IF;
        ELSIF NOT pg_catalog.has_table_privilege(relation, 'SELECT') OR NOT pg_catalog.has_table_privilege(relation, 'UPDATE')
              OR pg_catalog.row_security_active(relation) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('role "%s" may not name %s as a table of jobs', current_user, relation),
                DETAIL = 'Its rows are read and written with the rights of its owner.',
                HINT = 'You need SELECT and UPDATE on all of the table yourself, without a row-level policy for you.';
        END IF;
    END IF;
    RETURN new;
END
$$;
REVOKE ALL ON FUNCTION dot_wrapper.check_job_source() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.check_job_source() IS
    'Lets nobody have jobs run as a role that he is not, or have a table written that he may not write';
CREATE TRIGGER job_source_is_checked BEFORE INSERT OR UPDATE ON dot_wrapper.job_source
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.check_job_source();

CREATE TABLE dot_wrapper.job_link (
    relation text NOT NULL,
    job_id text NOT NULL,
    run_id uuid,
    changed boolean NOT NULL DEFAULT false,
    due timestamptz NOT NULL DEFAULT '-infinity',
    trouble text,
    PRIMARY KEY (relation, job_id),
    CONSTRAINT job_link_run_or_trouble CHECK (run_id IS NOT NULL OR trouble IS NOT NULL)
) WITH (fillfactor = 70);
COMMENT ON TABLE dot_wrapper.job_link IS
    'Jobs whose run is not over, or whose outcome is not written yet; and, without a run, jobs that could not be taken.';
COMMENT ON COLUMN dot_wrapper.job_link.relation IS 'The table, quoted, when the job was taken';
COMMENT ON COLUMN dot_wrapper.job_link.job_id IS 'The job''s key, as text';
COMMENT ON COLUMN dot_wrapper.job_link.changed IS 'The run has moved, and the job does not show it yet';
COMMENT ON COLUMN dot_wrapper.job_link.due IS 'Not touched before';
COMMENT ON COLUMN dot_wrapper.job_link.trouble IS 'Why the job could not be taken or told, at the last try';
CREATE INDEX job_link_run ON dot_wrapper.job_link (run_id);
CREATE INDEX job_link_changed ON dot_wrapper.job_link (relation, due) WHERE changed;
CREATE INDEX job_link_trouble ON dot_wrapper.job_link (relation, due) WHERE trouble IS NOT NULL;

GRANT SELECT ON dot_wrapper.job_source TO dot_wrapper_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON dot_wrapper.job_link TO dot_wrapper_worker;

-- Dumped: what is configured, and the jobs whose runs go on after a fn_dot_resume().
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.job_source', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.job_link', '');

CREATE FUNCTION dot_wrapper.wake_on_change() RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dot_wrapper_wake_on_change';
REVOKE ALL ON FUNCTION dot_wrapper.wake_on_change() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.wake_on_change() IS
    'For an AFTER ... FOR EACH STATEMENT trigger on a table that the worker reads: wakes it at commit. It reads and changes nothing.';

CREATE TRIGGER job_source_wakes AFTER INSERT OR UPDATE ON dot_wrapper.job_source
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.wake_on_change();

-- An adopted table gets no trigger of ours; docs/job_queue.md has the line.
DO $jobs$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_depend d
               JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = 'dot_wrapper'
               WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.classid = 'pg_catalog.pg_class'::regclass
                 AND d.deptype = 'e' AND d.objid = to_regclass('@extschema@.job_queue'))
    THEN
        CREATE TRIGGER job_queue_wakes AFTER INSERT OR UPDATE OF family, status ON @extschema@.job_queue
            FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.wake_on_change();
    END IF;
END
$jobs$;
