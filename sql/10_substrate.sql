-- The substrate: the tables and functions that the wrapper reuses. What the database has is adopted, if a trusted role
-- owns it, and left as it is; what it lacks is shipped. Which functions are called is written down in dot_wrapper.port.

CREATE TABLE dot_wrapper.port (
    port text PRIMARY KEY
        CONSTRAINT port_known CHECK (port IN ('toggle', 'guard', 'lease_acquire', 'lease_release', 'command_log')),
    function text,
    origin text NOT NULL
        CONSTRAINT port_origin_known CHECK (origin IN ('shipped', 'adopted', 'bound', 'unbound')),
    reason text,
    CONSTRAINT port_bound_or_explained CHECK ((function IS NULL) = (origin = 'unbound') AND (function IS NOT NULL OR reason IS NOT NULL))
);
COMMENT ON TABLE dot_wrapper.port IS
    'The substrate functions that the wrapper calls: shipped with it, adopted from the database, or bound with fn_dot_bind. An unbound port refuses every verify and apply.';
COMMENT ON COLUMN dot_wrapper.port.function IS 'Schema-qualified signature, resolved at each call';
COMMENT ON COLUMN dot_wrapper.port.reason IS 'Why the port is unbound';

-- A dump is restored over the rows that CREATE EXTENSION has just written; what was dumped wins.
CREATE FUNCTION dot_wrapper.replace_port() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM dot_wrapper.port p WHERE p.port = new.port;
    RETURN new;
END
$$;
REVOKE ALL ON FUNCTION dot_wrapper.replace_port() FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.replace_port() IS 'An inserted port takes the place of the one that is there, so that a dump can be restored';
CREATE TRIGGER port_replaces BEFORE INSERT ON dot_wrapper.port
    FOR EACH ROW EXECUTE FUNCTION dot_wrapper.replace_port();

-- Trusted to have its code run by the worker: a superuser, whoever installs, or the database's owner.
CREATE FUNCTION dot_wrapper.is_trusted_owner(owner oid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = owner), false)
        OR owner IN (SELECT e.extowner FROM pg_catalog.pg_extension e WHERE e.extname = 'dot_wrapper')
        OR owner IN (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
        OR (NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'dot_wrapper')
            AND owner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user))
$$;
REVOKE ALL ON FUNCTION dot_wrapper.is_trusted_owner(oid) FROM PUBLIC;
COMMENT ON FUNCTION dot_wrapper.is_trusted_owner(oid) IS
    'True for a role whose tables and functions the wrapper adopts: a superuser, the installing role, the database''s owner';

DO $substrate$
DECLARE
    ship constant boolean := coalesce(current_setting('dot_wrapper.ship_substrate', true), 'on')::boolean;
    base constant text := '@extschema@';
    have text[];      -- substrate tables that were there before
    own_lease boolean;
    own_config boolean;
    entry record;
    proc record;
    fits boolean;
    found_one boolean;
    why text;
BEGIN
    -- What has one of the names that are adopted, or called by what is shipped, belongs to somebody who is trusted.
    FOR entry IN
        SELECT 'TABLE' AS kind, format('%s.%s', base, t.name) AS object, c.relowner AS owner
        FROM unnest(ARRAY['dot_tools', 'dot_config', 'dot_iu_runtime_lease', 'dot_iu_command_run', 'job_queue']) AS t(name)
        JOIN pg_catalog.pg_class c ON c.oid = to_regclass(base || '.' || t.name)
        UNION ALL
        SELECT 'FUNCTION', format('function %s', f.oid::regprocedure), f.proowner
        FROM pg_catalog.pg_proc f
        WHERE f.pronamespace = base::regnamespace
          AND (f.proname IN ('fn_dot_iu_operator_runtime_enabled', 'fn_assert_safe_for_dot_action', 'fn_dot_iu_command_log',
                             'fn_dot_iu_runtime_lease_acquire', 'fn_dot_iu_runtime_lease_release')
               OR (f.proname = 'fn_preflight_guard' AND f.pronargs = 0))
    LOOP
        CONTINUE WHEN dot_wrapper.is_trusted_owner(entry.owner);
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('dot_wrapper does not adopt %s', entry.object),
            DETAIL = format('It belongs to role %I, which is neither a superuser, nor the installing role, nor the owner of this database.',
                            pg_get_userbyid(entry.owner)),
            HINT = format('Give it to a trusted role with ALTER %s ... OWNER TO, or rename it, or install into another schema.', entry.kind);
    END LOOP;

    -- Tables first: adopt or refuse.
    FOR entry IN
        SELECT t.name, c.oid, c.relkind
        FROM unnest(ARRAY['dot_tools', 'dot_config', 'dot_iu_runtime_lease', 'dot_iu_command_run', 'job_queue']) AS t(name)
        JOIN pg_catalog.pg_class c ON c.oid = to_regclass(base || '.' || t.name)
    LOOP
        IF entry.relkind NOT IN ('r', 'p', 'v') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'wrong_object_type',
                MESSAGE = format('dot_wrapper does not adopt %s.%s', base, entry.name),
                DETAIL = 'It is neither a table nor a view.';
        END IF;
        IF entry.name = 'dot_tools' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = entry.oid AND a.attname = 'code' AND a.attnum > 0 AND NOT a.attisdropped)
        THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_column',
                MESSAGE = format('dot_wrapper does not adopt %s.dot_tools', base),
                DETAIL = 'It has no column "code".',
                HINT = 'The catalogue needs at least the columns code, status and execution_engine.';
        END IF;
        have := have || entry.name;
    END LOOP;
    have := coalesce(have, '{}');

    IF ship AND NOT 'dot_tools' = ANY (have) THEN
        CREATE TABLE @extschema@.dot_tools (
            code text PRIMARY KEY,
            name text NOT NULL,
            status text NOT NULL DEFAULT 'active',
            execution_engine text NOT NULL,
            script_path text,
            file_path text,
            tier text,
            domain text,
            trigger_type text,
            schedule text,
            usage_count bigint NOT NULL DEFAULT 0,
            last_executed timestamptz
        );
        COMMENT ON TABLE @extschema@.dot_tools IS 'The catalogue of operations tools (DOTs)';
        COMMENT ON COLUMN @extschema@.dot_tools.trigger_type IS 'What runs the tool by itself: cron, event, dual (both), or nothing';
        COMMENT ON COLUMN @extschema@.dot_tools.schedule IS 'For cron and dual: when, as pg_cron has it; dot_wrapper.schedule says more';
        COMMENT ON COLUMN @extschema@.dot_tools.usage_count IS 'Executions (verify and apply), counted by the worker of dot_wrapper';
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.dot_tools', '');
    END IF;

    IF ship AND NOT 'dot_config' = ANY (have) THEN
        CREATE TABLE @extschema@.dot_config (
            key text PRIMARY KEY,
            value text
        );
        COMMENT ON TABLE @extschema@.dot_config IS 'Settings of the DOT substrate, the master toggle among them';
        INSERT INTO @extschema@.dot_config (key, value) VALUES
            ('iu_core.operator_runtime_enabled', 'false'),
            ('fs_snapshot_present', '0'),
            ('queue.worker.enabled', 'false');
        -- As for the ports: a dump is restored over the rows above, and what was dumped wins.
        CREATE FUNCTION dot_wrapper.replace_config() RETURNS trigger
        LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp
        AS $fn$
        BEGIN
            -- Who adds a key needs no right to delete.
            IF EXISTS (SELECT FROM @extschema@.dot_config c WHERE c.key = new.key) THEN
                DELETE FROM @extschema@.dot_config c WHERE c.key = new.key;
            END IF;
            RETURN new;
        END
        $fn$;
        REVOKE ALL ON FUNCTION dot_wrapper.replace_config() FROM PUBLIC;
        COMMENT ON FUNCTION dot_wrapper.replace_config() IS
            'An inserted setting takes the place of the one that is there, so that a dump can be restored';
        CREATE TRIGGER dot_config_replaces BEFORE INSERT ON @extschema@.dot_config
            FOR EACH ROW EXECUTE FUNCTION dot_wrapper.replace_config();
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.dot_config', '');
    END IF;

    IF ship AND NOT 'dot_iu_runtime_lease' = ANY (have) THEN
        CREATE TABLE @extschema@.dot_iu_runtime_lease (
            lease_key text PRIMARY KEY,
            holder text NOT NULL,
            acquired_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        ) WITH (fillfactor = 70);
        COMMENT ON TABLE @extschema@.dot_iu_runtime_lease IS
            'TTL leases: at most one live holder per key. Not dumped: a lease does not survive its database.';
    END IF;

    IF ship AND NOT 'dot_iu_command_run' = ANY (have) THEN
        CREATE TABLE @extschema@.dot_iu_command_run (
            run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            command_name text NOT NULL,
            run_mode text NOT NULL CHECK (run_mode IN ('plan', 'verify', 'apply')),
            run_status text NOT NULL,
            mutating boolean NOT NULL,
            detail jsonb NOT NULL DEFAULT '{}',
            run_by name NOT NULL DEFAULT current_user,
            run_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON TABLE @extschema@.dot_iu_command_run IS 'Ledger of the IU-command layer';
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.dot_iu_command_run', '');
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.dot_iu_command_run_run_id_seq', '');
    END IF;

    IF ship AND NOT 'job_queue' = ANY (have) THEN
        CREATE TABLE @extschema@.job_queue (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            family text NOT NULL,
            payload jsonb NOT NULL DEFAULT '{}',
            status text NOT NULL DEFAULT 'queued',
            run_id uuid,
            idempotency_key text,
            actor text,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at timestamptz,
            result jsonb
        );
        COMMENT ON TABLE @extschema@.job_queue IS
            'Jobs of the substrate. Those of the families in dot_wrapper.job_source become runs; others are never touched.';
        -- From one job that waits to the next, however many are done.
        CREATE INDEX job_queue_next ON @extschema@.job_queue (family, status, id);
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.job_queue', '');
        PERFORM pg_catalog.pg_extension_config_dump('@extschema@.job_queue_id_seq', '');
    END IF;

    own_config := ship AND NOT 'dot_config' = ANY (have);
    own_lease := ship AND NOT 'dot_iu_runtime_lease' = ANY (have);

    -- Functions: adopt one that fits, ship one where the name is free and the table under it is ours, else say why not.
    FOR entry IN
        SELECT * FROM (VALUES
            ('toggle', 'fn_dot_iu_operator_runtime_enabled', '{}'::text[], 'boolean', own_config),
            ('guard', 'fn_assert_safe_for_dot_action', '{}', NULL, own_config),
            ('lease_acquire', 'fn_dot_iu_runtime_lease_acquire', '{"text, text, interval","text, text, integer"}', NULL, own_lease),
            ('lease_release', 'fn_dot_iu_runtime_lease_release', '{"text, text"}', NULL, own_lease),
            ('command_log', 'fn_dot_iu_command_log', NULL, NULL, ship AND NOT 'dot_iu_command_run' = ANY (have))
        ) AS p(port, name, arguments, result, may_ship)
    LOOP
        found_one := false;
        fits := false;
        why := NULL;
        FOR proc IN
            SELECT f.oid, f.proowner, f.oid::regprocedure::text AS signature,
                   pg_catalog.oidvectortypes(f.proargtypes) AS arguments,
                   pg_catalog.format_type(f.prorettype, NULL) AS result, f.prokind, f.proretset
            FROM pg_catalog.pg_proc f
            JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
            WHERE f.proname = entry.name AND n.oid = base::regnamespace
            ORDER BY array_position(entry.arguments, pg_catalog.oidvectortypes(f.proargtypes)) NULLS LAST, f.oid
        LOOP
            CONTINUE WHEN found_one AND fits;
            found_one := true;
            fits := proc.prokind = 'f'
                AND (entry.arguments IS NULL OR proc.arguments = ANY (entry.arguments)
                     OR (entry.arguments = '{}' AND proc.arguments = ''))
                AND (entry.result IS NULL OR (proc.result = entry.result AND NOT proc.proretset));
            IF fits THEN
                INSERT INTO dot_wrapper.port (port, function, origin)
                SELECT entry.port,
                       format('%I.%I(%s)', n.nspname, f.proname, pg_catalog.oidvectortypes(f.proargtypes)), 'adopted'
                FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
                WHERE f.oid = proc.oid;
            ELSE
                why := format('%s returns %s; the port wants %s(%s)%s', proc.signature, proc.result, entry.name,
                              coalesce(entry.arguments[1], ''), coalesce(' returning ' || entry.result, ''));
            END IF;
        END LOOP;
        CONTINUE WHEN fits;
        IF found_one OR NOT entry.may_ship THEN
            INSERT INTO dot_wrapper.port (port, origin, reason)
            VALUES (entry.port, 'unbound',
                    coalesce(why, format('there is no function %s.%s, and the table that the shipped one needs is not ours', base, entry.name)));
        ELSE
            INSERT INTO dot_wrapper.port (port, origin, reason) VALUES (entry.port, 'unbound', 'to be shipped');
        END IF;
    END LOOP;

    IF EXISTS (SELECT FROM dot_wrapper.port WHERE port = 'toggle' AND reason = 'to be shipped') THEN
        CREATE FUNCTION @extschema@.fn_dot_iu_operator_runtime_enabled() RETURNS boolean
        LANGUAGE plpgsql STABLE   -- which keeps its plans from call to call, as SQL functions do not
        SET search_path = pg_catalog, pg_temp
        AS $fn$
        BEGIN
            -- One spelling of yes: what could be a slip is a no.
            RETURN coalesce((SELECT c.value = 'true'
                             FROM @extschema@.dot_config c WHERE c.key = 'iu_core.operator_runtime_enabled'), false);
        END
        $fn$;
        REVOKE ALL ON FUNCTION @extschema@.fn_dot_iu_operator_runtime_enabled() FROM PUBLIC;
        COMMENT ON FUNCTION @extschema@.fn_dot_iu_operator_runtime_enabled() IS
            'The master toggle: true when dot_config[''iu_core.operator_runtime_enabled''] is the word true, and nothing else';
    END IF;

    IF EXISTS (SELECT FROM dot_wrapper.port WHERE port = 'guard' AND reason = 'to be shipped') THEN
        SELECT f.oid::regprocedure::text AS signature, f.proowner INTO proc
        FROM pg_catalog.pg_proc f
        WHERE f.proname = 'fn_preflight_guard' AND f.pronamespace = base::regnamespace AND f.pronargs = 0;
        found_one := FOUND;
        IF NOT found_one THEN
            CREATE FUNCTION @extschema@.fn_preflight_guard()
            RETURNS TABLE (check_name text, verdict text, detail text)
            LANGUAGE plpgsql STABLE
            SET search_path = pg_catalog, pg_temp
            AS $fn$
            DECLARE
                snapshot constant text := (SELECT trim(c.value) FROM @extschema@.dot_config c WHERE c.key = 'fs_snapshot_present');
                standby constant boolean := pg_is_in_recovery();
            BEGIN
                check_name := 'fs_snapshot_present';
                verdict := CASE WHEN snapshot = '1' THEN 'OK' ELSE 'BLOCK' END;
                detail := 'fs_snapshot_present=' || coalesce(snapshot, 'unset');
                RETURN NEXT;
                check_name := 'primary_server';
                verdict := CASE WHEN standby THEN 'BLOCK' ELSE 'OK' END;
                detail := 'in_recovery=' || standby;
                RETURN NEXT;
            END
            $fn$;
            REVOKE ALL ON FUNCTION @extschema@.fn_preflight_guard() FROM PUBLIC;
            COMMENT ON FUNCTION @extschema@.fn_preflight_guard() IS
                'Safety checks before a DOT may act: one row per check, verdict OK, WARN or BLOCK';
        END IF;
        CREATE FUNCTION @extschema@.fn_assert_safe_for_dot_action() RETURNS void
        LANGUAGE plpgsql STABLE
        SET search_path = pg_catalog, pg_temp
        AS $fn$
        DECLARE
            blocks text;
        BEGIN
            SELECT string_agg(g.detail, ', ' ORDER BY g.check_name) INTO blocks
            FROM @extschema@.fn_preflight_guard() g
            WHERE g.verdict IS DISTINCT FROM 'OK' AND g.verdict IS DISTINCT FROM 'WARN';
            IF blocks IS NOT NULL THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = 'preflight guard blocks: ' || blocks,
                    HINT = 'See fn_preflight_guard().';
            END IF;
        END
        $fn$;
        REVOKE ALL ON FUNCTION @extschema@.fn_assert_safe_for_dot_action() FROM PUBLIC;
        COMMENT ON FUNCTION @extschema@.fn_assert_safe_for_dot_action() IS
            'Raises when any check of fn_preflight_guard() is neither OK nor WARN';
        IF found_one THEN
            -- It calls the database's own function, which must not run with the rights of the extension's owner.
            EXECUTE format('ALTER FUNCTION @extschema@.fn_assert_safe_for_dot_action() OWNER TO %I',
                           pg_get_userbyid(proc.proowner));
        END IF;
    END IF;

    IF EXISTS (SELECT FROM dot_wrapper.port WHERE port = 'lease_acquire' AND reason = 'to be shipped') THEN
        CREATE FUNCTION @extschema@.fn_dot_iu_runtime_lease_acquire(key text, holder text, ttl interval)
        RETURNS timestamptz
        LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp
        AS $fn$
        DECLARE
            until timestamptz;
        BEGIN
            -- A look without a lock: who is refused does not make the holder's release wait for the end of his transaction.
            PERFORM FROM @extschema@.dot_iu_runtime_lease l
            WHERE l.lease_key = $1 AND l.holder <> $2 AND l.expires_at > clock_timestamp();
            IF FOUND THEN
                RETURN NULL;
            END IF;
            INSERT INTO @extschema@.dot_iu_runtime_lease AS l (lease_key, holder, acquired_at, expires_at)
            VALUES ($1, $2, clock_timestamp(), clock_timestamp() + $3)
            ON CONFLICT (lease_key) DO UPDATE
                SET holder = excluded.holder,
                    acquired_at = CASE WHEN l.holder = excluded.holder THEN l.acquired_at ELSE clock_timestamp() END,
                    expires_at = clock_timestamp() + $3
                WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
            RETURNING l.expires_at INTO until;
            RETURN until;
        END
        $fn$;
        REVOKE ALL ON FUNCTION @extschema@.fn_dot_iu_runtime_lease_acquire(text, text, interval) FROM PUBLIC;
        COMMENT ON FUNCTION @extschema@.fn_dot_iu_runtime_lease_acquire(text, text, interval) IS
            'Takes or renews a lease; its new end, or NULL when a live different holder has it';
    END IF;

    IF EXISTS (SELECT FROM dot_wrapper.port WHERE port = 'lease_release' AND reason = 'to be shipped') THEN
        CREATE FUNCTION @extschema@.fn_dot_iu_runtime_lease_release(key text, holder text)
        RETURNS boolean
        LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp
        AS $fn$
        BEGIN
            DELETE FROM @extschema@.dot_iu_runtime_lease l WHERE l.lease_key = $1 AND l.holder = $2;
            RETURN FOUND;
        END
        $fn$;
        REVOKE ALL ON FUNCTION @extschema@.fn_dot_iu_runtime_lease_release(text, text) FROM PUBLIC;
        COMMENT ON FUNCTION @extschema@.fn_dot_iu_runtime_lease_release(text, text) IS
            'Ends a lease, if that holder has it; true when it had';
    END IF;

    IF EXISTS (SELECT FROM dot_wrapper.port WHERE port = 'command_log' AND reason = 'to be shipped') THEN
        CREATE FUNCTION @extschema@.fn_dot_iu_command_log(
            command_name text, run_mode text, run_status text, mutating boolean, detail jsonb DEFAULT '{}')
        RETURNS bigint
        LANGUAGE sql
        SET search_path = pg_catalog, pg_temp
        AS $fn$
            INSERT INTO @extschema@.dot_iu_command_run (command_name, run_mode, run_status, mutating, detail)
            VALUES ($1, $2, $3, $4, $5)
            RETURNING run_id
        $fn$;
        REVOKE ALL ON FUNCTION @extschema@.fn_dot_iu_command_log(text, text, text, boolean, jsonb) FROM PUBLIC;
        COMMENT ON FUNCTION @extschema@.fn_dot_iu_command_log(text, text, text, boolean, jsonb) IS
            'Logs a catalogued command of the IU-command layer; its run id';
    END IF;

    UPDATE dot_wrapper.port p
    SET origin = 'shipped', reason = NULL,
        function = (SELECT format('%I.%I(%s)', n.nspname, f.proname, pg_catalog.oidvectortypes(f.proargtypes))
                    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
                    WHERE n.oid = base::regnamespace AND f.proname = CASE p.port
                        WHEN 'toggle' THEN 'fn_dot_iu_operator_runtime_enabled'
                        WHEN 'guard' THEN 'fn_assert_safe_for_dot_action'
                        WHEN 'lease_acquire' THEN 'fn_dot_iu_runtime_lease_acquire'
                        WHEN 'lease_release' THEN 'fn_dot_iu_runtime_lease_release'
                        ELSE 'fn_dot_iu_command_log' END)
    WHERE p.reason = 'to be shipped';
END
$substrate$;

-- Only what an operator bound or unbound by hand is worth dumping; the rest is found anew.
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.port', $$WHERE origin = 'bound' OR reason = 'unbound by fn_dot_bind'$$);
