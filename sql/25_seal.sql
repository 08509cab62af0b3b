-- Tamper evidence: seals over the ledger, made by the worker after commit. docs/security.md says what they prove.

CREATE TABLE dot_wrapper.dot_seal (
    seal_id bigint PRIMARY KEY CONSTRAINT seal_counted CHECK (seal_id >= 1),
    sealed_at timestamptz NOT NULL,
    process_run_id uuid NOT NULL,
    run_id uuid NOT NULL,
    event_ids bigint[] NOT NULL CONSTRAINT seal_covers_something CHECK (cardinality(event_ids) >= 1),
    attempts integer[] NOT NULL,
    digests bytea NOT NULL,
    origins text NOT NULL,
    prev bytea NOT NULL CONSTRAINT seal_prev_long CHECK (length(prev) = 32),
    hash bytea NOT NULL CONSTRAINT seal_hash_long CHECK (length(hash) = 32),
    CONSTRAINT seal_digest_each CHECK
        (length(digests) / 32 - 1 - cardinality(event_ids) - cardinality(attempts) IN (0, 1) AND length(digests) % 32 = 0),
    CONSTRAINT seal_origin_each CHECK (length(origins) = cardinality(event_ids) AND origins ~ '^[muf]*$')
);
COMMENT ON TABLE dot_wrapper.dot_seal IS 'Seals: one row for the rows of one run that one batch of the worker covers, chained by their hashes. Append-only.';
COMMENT ON COLUMN dot_wrapper.dot_seal.seal_id IS 'Its place in the chain, from 1, without gaps';
COMMENT ON COLUMN dot_wrapper.dot_seal.digests IS 'SHA-256 digests of 32 bytes, one after the other: the run''s state, each event, each attempt, and, with the run''s first event, what was requested';
COMMENT ON COLUMN dot_wrapper.dot_seal.origins IS 'A letter for each event. m: it had the mark of this database when it was sealed; u: it had not; f: it had not, and may have come with a restore';
COMMENT ON COLUMN dot_wrapper.dot_seal.prev IS 'The hash of the seal before it; zeros for the first';
COMMENT ON COLUMN dot_wrapper.dot_seal.hash IS 'SHA-256 over prev and all other columns';
-- What was sealed of one process run.
CREATE INDEX dot_seal_process ON dot_wrapper.dot_seal (process_run_id);

CREATE TABLE dot_wrapper.seal_head (
    only_row boolean PRIMARY KEY DEFAULT true CONSTRAINT seal_head_single CHECK (only_row),
    seal_id bigint NOT NULL,
    hash bytea NOT NULL,
    low bigint NOT NULL,
    high bigint NOT NULL,
    since bigint NOT NULL,
    foreign_to bigint NOT NULL,
    key_id bytea NOT NULL,
    mark bytea NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE dot_wrapper.seal_head IS 'The newest seal once more, and how far the sealing has come';
COMMENT ON COLUMN dot_wrapper.seal_head.low IS 'Every event up to this one that ever will be is sealed';
COMMENT ON COLUMN dot_wrapper.seal_head.high IS 'The highest event that was looked at; what is missing between low and high may still be committed';
COMMENT ON COLUMN dot_wrapper.seal_head.since IS 'Seals up to this one cover no event above low';
COMMENT ON COLUMN dot_wrapper.seal_head.foreign_to IS 'Events up to this one may have come with a restore, and so without a mark of this database';
COMMENT ON COLUMN dot_wrapper.seal_head.key_id IS 'Which permit key the marks are under';
COMMENT ON COLUMN dot_wrapper.seal_head.mark IS 'HMAC over the row under that key';

CREATE TRIGGER dot_seal_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON dot_wrapper.dot_seal
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER seal_head_kept BEFORE DELETE OR TRUNCATE ON dot_wrapper.seal_head
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();

-- Members of pg_write_all_data may write any table; the ledger is not theirs.
CREATE FUNCTION dot_wrapper.refuse_strangers() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('permission denied for table %s', TG_TABLE_NAME),
        DETAIL = 'The ledger is written by its owner and by the worker of dot_wrapper, whatever else a role may write.',
        HINT = 'Request, cancel and resolve runs with the functions of dot_wrapper.';
END
$$;
REVOKE ALL ON FUNCTION dot_wrapper.refuse_strangers() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.refuse_strangers() IS 'Keeps roles that may write every table from writing the ledger';
-- The condition spares the worker and superusers the call.
CREATE TRIGGER dot_run_own BEFORE UPDATE ON dot_wrapper.dot_run
    FOR EACH STATEMENT WHEN (NOT pg_has_role('dot_wrapper_worker', 'USAGE')) EXECUTE FUNCTION dot_wrapper.refuse_strangers();
CREATE TRIGGER dot_seal_own BEFORE INSERT ON dot_wrapper.dot_seal
    FOR EACH STATEMENT WHEN (NOT pg_has_role('dot_wrapper_worker', 'USAGE')) EXECUTE FUNCTION dot_wrapper.refuse_strangers();
CREATE TRIGGER seal_head_own BEFORE INSERT OR UPDATE ON dot_wrapper.seal_head
    FOR EACH STATEMENT WHEN (NOT pg_has_role('dot_wrapper_worker', 'USAGE')) EXECUTE FUNCTION dot_wrapper.refuse_strangers();

GRANT SELECT, INSERT ON dot_wrapper.dot_seal TO dot_wrapper_worker;
GRANT SELECT, INSERT, UPDATE ON dot_wrapper.seal_head TO dot_wrapper_worker;

SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.dot_seal', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.seal_head', '');
