-- The ledger's tables once more, partitioned in two ways; for scaling/partitioned.rs and for docs/scaling.md.
-- LIKE takes columns, defaults and CHECKs from the tables as they are.

-- By time: run_id is a UUIDv7, so a range of it is a span of time. FROM and TO are made of the time's milliseconds.
CREATE SCHEMA by_time;
CREATE FUNCTION by_time.bound(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid $$;
CREATE TABLE by_time.dot_run (LIKE dot_wrapper.dot_run INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (run_id))
    PARTITION BY RANGE (run_id);
CREATE TABLE by_time.dot_run_attempt (LIKE dot_wrapper.dot_run_attempt INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (run_id, attempt)) PARTITION BY RANGE (run_id);
-- An identity column of a partitioned table is not for servers before 17.
CREATE SEQUENCE by_time.event_id_seq;
CREATE TABLE by_time.dot_run_event (LIKE dot_wrapper.dot_run_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (run_id, event_id)) PARTITION BY RANGE (run_id);
ALTER TABLE by_time.dot_run_event ALTER event_id SET DEFAULT nextval('by_time.event_id_seq');
-- Invariant 5 needs a key of its own here: no unique index of dot_run can leave run_id out.
CREATE TABLE by_time.dot_run_key (process_run_id uuid, code text, mode text, idempotency_key text, run_id uuid NOT NULL,
    PRIMARY KEY (process_run_id, code, mode, idempotency_key));

-- By process run: the key of invariant 5 has the partition key in it.
CREATE SCHEMA by_process;
CREATE TABLE by_process.dot_run (LIKE dot_wrapper.dot_run INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (process_run_id, run_id)) PARTITION BY HASH (process_run_id);
CREATE UNIQUE INDEX dot_run_key ON by_process.dot_run (process_run_id, code, mode, idempotency_key) WHERE admitted;
CREATE INDEX dot_run_id ON by_process.dot_run (run_id);

DO $$
DECLARE
    spans timestamptz[] := ARRAY['2026-01-01', '2026-02-01', '2026-03-01', '2026-04-01', '2026-05-01'];
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dot_run', 'dot_run_attempt', 'dot_run_event'] LOOP
        FOR i IN 1..4 LOOP
            EXECUTE format('CREATE TABLE by_time.%1$I PARTITION OF by_time.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
                           name || '_' || i, name, by_time.bound(spans[i]), by_time.bound(spans[i + 1]));
        END LOOP;
    END LOOP;
    FOR i IN 0..3 LOOP
        EXECUTE format('CREATE TABLE by_process.dot_run_%1$s PARTITION OF by_process.dot_run
                        FOR VALUES WITH (MODULUS 4, REMAINDER %1$s)', i);
    END LOOP;
END
$$;

-- The ledger's own trigger functions. Row triggers are handed down to the partitions; statement triggers are not.
CREATE TRIGGER dot_run_final BEFORE UPDATE ON by_time.dot_run
    FOR EACH ROW WHEN (old.finished_at IS NOT NULL) EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER dot_run_kept BEFORE DELETE OR TRUNCATE ON by_time.dot_run
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();
CREATE TRIGGER dot_run_kept BEFORE DELETE OR TRUNCATE ON by_time.dot_run_1
    FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.refuse_change();
