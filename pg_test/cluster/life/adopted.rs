//! A database that has the whole substrate: its own stays its own.

use crate::harness::{Bench, Cluster, os, until};

/// Tables with columns of their own, functions with their own bodies, a lease with its TTL in seconds, a trigger.
const COMPANY: &str = "
    CREATE TYPE tool_status AS ENUM ('active', 'retired');
    CREATE TABLE dot_tools (id serial PRIMARY KEY, code varchar(40) UNIQUE, name text, status tool_status, execution_engine varchar,
        script_path text, tags text[], usage_count integer DEFAULT 0, last_executed timestamp, date_updated timestamptz);
    CREATE TABLE dot_config (key text PRIMARY KEY, value jsonb, note text);
    CREATE TABLE dot_iu_runtime_lease (lease_key text PRIMARY KEY, owner_name text, until timestamptz);
    CREATE TABLE dot_iu_command_run (id bigserial, what text);
    CREATE TABLE job_queue (id bigserial, payload jsonb);
    CREATE TABLE audit (who text, code text, uses integer);
    CREATE FUNCTION fn_dot_iu_operator_runtime_enabled() RETURNS boolean LANGUAGE sql STABLE AS
        $$ SELECT value = 'true' FROM dot_config WHERE key = 'iu_core.operator_runtime_enabled' $$;
    CREATE FUNCTION fn_preflight_guard() RETURNS TABLE (check_name text, verdict text) LANGUAGE sql AS
        $$ SELECT 'fs', CASE value WHEN '1' THEN 'OK' ELSE 'BLOCK' END FROM dot_config WHERE key = 'fs_snapshot_present' $$;
    CREATE FUNCTION fn_assert_safe_for_dot_action() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN IF EXISTS (SELECT FROM fn_preflight_guard() WHERE verdict = 'BLOCK') THEN RAISE 'unsafe'; END IF; END $$;
    CREATE FUNCTION fn_dot_iu_runtime_lease_acquire(k text, h text, ttl integer) RETURNS text LANGUAGE sql AS
        $$ INSERT INTO dot_iu_runtime_lease AS l VALUES (k, h, now() + make_interval(secs => ttl))
           ON CONFLICT (lease_key) DO UPDATE SET owner_name = h, until = excluded.until
           WHERE l.owner_name = h OR l.until < now() RETURNING lease_key $$;
    CREATE FUNCTION fn_dot_iu_runtime_lease_release(k text, h text) RETURNS void LANGUAGE sql AS
        $$ DELETE FROM dot_iu_runtime_lease WHERE lease_key = k AND owner_name = h $$;
    CREATE FUNCTION fn_dot_iu_command_log(a text, b text) RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO audit VALUES (current_user, new.code, new.usage_count); RETURN new; END $$;
    CREATE TRIGGER note BEFORE UPDATE ON dot_tools FOR EACH ROW EXECUTE FUNCTION note();
    INSERT INTO dot_tools (code, name, status, execution_engine) VALUES
        ('DOT-1', 'one', 'active', 'agent_api'), ('DOT-2', 'two', 'retired', 'agent_api'), ('DOT-CANARY', 'c', 'active', 'agent_api');
    INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', 'true'), ('fs_snapshot_present', '1');";

/// What is in the schema, without what belongs to the extension.
/// What is the company's: the request table is ours.
fn dump(bench: &Bench) -> String {
    let text = os::run(bench.cluster.client("pg_dump", &bench.name).args([
        "-n",
        "public",
        "-T",
        "public.dot_run_request",
        "--inserts",
    ]));
    // Newer versions put a random word at both ends.
    text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
}

/// A company's database, whose owner is an ordinary role and owns all of it.
fn company() -> (Bench, String) {
    let bench = Bench::empty(Cluster::shared());
    let owner = bench.role("company");
    bench.exec(&format!("ALTER DATABASE {} OWNER TO {owner}", bench.name));
    bench.connect_as(&owner).batch_execute(COMPANY).unwrap();
    (bench, owner)
}

fn configure(bench: &Bench) {
    let port = bench.agent.port();
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'http://127.0.0.1:{port}');
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes) VALUES ('engine', 'agent_api', 'agent', '{{verify,apply}}')"
    ));
}

#[test]
fn an_adopted_substrate_is_used_and_stays_as_it_is() {
    let (bench, owner) = company();
    let before = dump(&bench);
    bench.exec("CREATE EXTENSION dot_wrapper");
    assert_eq!(dump(&bench), before, "CREATE EXTENSION has changed something");
    let origins = "SELECT DISTINCT origin FROM dot_wrapper.port";
    assert_eq!(bench.all::<String>(origins, &[]), ["adopted"]);

    configure(&bench);
    let plan = bench.ask(&crate::harness::run::Ask::new("DOT-1", "plan"));
    assert_eq!(plan.status(), "planned", "{plan:?}");
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert!(run.token() > 0);
    assert_eq!(bench.apply("DOT-2").reason(), "inactive");
    // The trigger fires as for any UPDATE of the owner's.
    let audit = "SELECT who || ' ' || code || ' ' || uses FROM audit";
    until("the counter has moved", || {
        bench.all::<String>(audit, &[]).pop().map(|row| assert_eq!(row, format!("{owner} DOT-1 1")))
    });
    let counted = "SELECT usage_count = 1 AND last_executed IS NOT NULL FROM dot_tools WHERE code = 'DOT-1'";
    assert!(bench.one::<bool>(counted, &[]));
    until("the lease is free", || {
        (bench.one::<i64>("SELECT count(*) FROM dot_iu_runtime_lease", &[]) == 0).then_some(())
    });

    bench.exec("SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper");
    bench.exec(
        "DELETE FROM audit; ALTER TABLE dot_tools DISABLE TRIGGER note;
                UPDATE dot_tools SET usage_count = 0, last_executed = NULL; ALTER TABLE dot_tools ENABLE TRIGGER note",
    );
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&dump(&bench)), sorted(&before), "DROP EXTENSION has changed something");
}

#[test]
fn an_adopted_lease_keeps_live_applies_apart() {
    let (bench, _) = company();
    bench.exec("CREATE EXTENSION dot_wrapper");
    configure(&bench);
    bench.agent.reply(crate::harness::Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    assert_eq!(bench.apply("DOT-1").reason(), "lease_held");
    bench.agent.release(&request, crate::harness::Reply::succeeded());
    bench.until(&run, "succeeded");
    bench.agent.reply(crate::harness::Reply::succeeded());
    bench.until(&bench.apply("DOT-1"), "succeeded");
}

#[test]
fn an_adopted_toggle_and_guard_are_obeyed() {
    let (bench, _) = company();
    bench.exec("CREATE EXTENSION dot_wrapper");
    configure(&bench);
    bench.exec("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'");
    assert_eq!(bench.apply("DOT-1").reason(), "guard_error");
    bench.exec("DELETE FROM dot_config WHERE key = 'iu_core.operator_runtime_enabled'");
    assert_eq!(bench.apply("DOT-1").reason(), "toggle_invalid");
    assert_eq!(bench.agent.count(), 0);
}

#[test]
fn an_untrusted_owner_is_not_adopted() {
    for object in [
        "TABLE dot_tools",
        "TABLE dot_config",
        "TABLE dot_iu_runtime_lease",
        "TABLE job_queue",
        "FUNCTION fn_dot_iu_operator_runtime_enabled()",
        "FUNCTION fn_assert_safe_for_dot_action()",
        "FUNCTION fn_dot_iu_runtime_lease_acquire(text, text, integer)",
        "FUNCTION fn_dot_iu_runtime_lease_release(text, text)",
    ] {
        let (bench, _) = company();
        let stranger = bench.role("stranger");
        bench.exec(&format!("ALTER {object} OWNER TO {stranger}"));
        let error = bench.error("CREATE EXTENSION dot_wrapper");
        assert_eq!(error.code().code(), "42501", "{object}: {error:?}");
        assert!(error.detail().unwrap_or_default().contains(&stranger), "{object}: {error:?}");
        assert!(error.hint().is_some(), "{object}: {error:?}");
        let left: i64 = bench.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'dot_wrapper'", &[]);
        assert_eq!(left, 0, "{object}");
    }
}
