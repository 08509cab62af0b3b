//! A job table that was there before, with its own names, types and triggers.

use serde_json::{Value, json};

use crate::harness::{Bench, Cluster, until};

const TABLE: &str = r#"
    CREATE TYPE stage AS ENUM ('new', 'working', 'done', 'broken', 'denied', 'stopped', 'late', 'unsure');
    CREATE TABLE job_queue (
        "Job Key" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        kind varchar(20) NOT NULL,
        body json NOT NULL,
        stage stage NOT NULL DEFAULT 'new',
        the_run text,
        token varchar(50),
        who text,
        answer text,
        ended timestamp,
        priority int NOT NULL CHECK (priority > 0),
        tenant text NOT NULL,
        written_by name[] NOT NULL DEFAULT '{}'
    );
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $f$ BEGIN new.written_by := new.written_by || current_user::name || session_user::name; RETURN new; END $f$;
    CREATE TRIGGER note BEFORE UPDATE ON job_queue FOR EACH ROW EXECUTE FUNCTION note();"#;

const SOURCE: &str = r#"
    INSERT INTO dot_wrapper.job_source (run_as, families, id_column, family_column, payload_column, status_column, run_id_column,
        idempotency_key_column, actor_column, result_column, finished_at_column, status_words)
    VALUES ('ROLE', '{dot}', 'Job Key', 'kind', 'body', 'stage', 'the_run', 'token', 'who', 'answer', 'ended',
        '{"queued": "new", "taken": "working", "succeeded": "done", "failed": "broken", "refused": "denied",
          "cancelled": "stopped", "expired": "late", "in_doubt": "unsure"}');
    INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', 'true')"#;

/// A database whose owner, an ordinary role, has brought a table of jobs; the owner, and the role that runs.
fn company(table: &str) -> (Bench, String, String) {
    let bench = Bench::empty(Cluster::shared());
    let owner = bench.role("company");
    bench.exec(&format!("ALTER DATABASE {} OWNER TO {owner}", bench.name));
    bench.connect_as(&owner).batch_execute(table).unwrap();
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    let role = bench.caller("jobs");
    (bench, owner, role)
}

fn doctor(bench: &Bench) -> String {
    bench.one("SELECT string_agg(verdict || ' ' || detail, E'\\n') FROM fn_dot_doctor() WHERE check_name = 'jobs'", &[])
}

fn until_stage(bench: &Bench, sql: &str, stage: &str) -> Value {
    until(&format!("the job is {stage}"), || {
        bench.one::<Option<Value>>(sql, &[]).filter(|job| job["stage"] == stage || job["status"] == stage)
    })
}

#[test]
fn an_adopted_table_with_other_names_and_types_works() {
    let (bench, owner, role) = company(TABLE);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'job_queue'::regclass";
    assert_eq!(bench.one::<i64>(triggers, &[]), 1, "a trigger of ours on somebody's table");
    bench.exec(&SOURCE.replace("ROLE", &role));
    assert_eq!(doctor(&bench), format!("OK dot of public.job_queue run as {role}"));
    // The line of docs/job_queue.md, for pickup at commit.
    bench.exec(
        "CREATE TRIGGER wakes AFTER INSERT ON job_queue FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.wake_on_change()",
    );
    bench.exec(
        r#"INSERT INTO job_queue (kind, body, priority, tenant, token, who)
               VALUES ('dot', '{"code":"DOT-1", "args":{"a": 1}}', 3, 't', 'k-1', 'ann')"#,
    );
    let job = until_stage(&bench, "SELECT to_jsonb(j) FROM job_queue j", "done");
    let run: Value = bench.one("SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'job'", &[]);
    assert_eq!((&job["the_run"], &job["Job Key"]), (&run["run_id"], &run["source_ref"]));
    assert_eq!((&run["actor"], &run["idempotency_key"]), (&json!("ann"), &json!("k-1")));
    assert_eq!(run["args"], json!({"a": 1}));
    let answer: Value = serde_json::from_str(job["answer"].as_str().unwrap()).unwrap();
    assert_eq!((&answer["run_status"], &answer["result"]["said"]), (&json!("succeeded"), &json!("succeeded")));
    assert!(job["ended"].is_string(), "{job}");
    // Its trigger ran as its owner, twice, and not as us.
    assert_eq!(job["written_by"], json!([owner, "dot_wrapper_worker", owner, "dot_wrapper_worker"]));
}

#[test]
fn an_adopted_table_of_four_columns_works() {
    let (bench, _, role) = company(
        "CREATE TABLE job_queue (id text PRIMARY KEY, family text NOT NULL, payload text NOT NULL, status text NOT NULL)",
    );
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.job_source (run_as, run_id_column, idempotency_key_column, actor_column, result_column, finished_at_column)
             VALUES ('{role}', NULL, NULL, NULL, NULL, NULL);
         INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', 'true');
         INSERT INTO job_queue VALUES ('a''b', 'job:dot', '{{\"code\": \"DOT-1\"}}', 'queued'), ('c', 'job:dot', 'no', 'queued');
         SELECT dot_wrapper.announce()"
    ));
    until_stage(&bench, "SELECT to_jsonb(j) FROM job_queue j WHERE id = 'a''b'", "succeeded");
    until_stage(&bench, "SELECT to_jsonb(j) FROM job_queue j WHERE id = 'c'", "refused");
    assert_eq!(bench.agent.count(), 1);
    until("the log says why", || {
        bench.cluster.log().contains("job c of public.job_queue is refused: the payload is not JSON").then_some(())
    });
}

/// Every family has a partition of its own, and a job's key is unique only together with its family.
#[test]
fn an_adopted_table_in_partitions_works() {
    let (bench, _, role) = company(
        "CREATE TABLE job_queue (id bigint NOT NULL, family text NOT NULL, payload jsonb NOT NULL, status text NOT NULL,
             run_id uuid, PRIMARY KEY (family, id)) PARTITION BY LIST (family);
         CREATE TABLE jobs_dot PARTITION OF job_queue FOR VALUES IN ('job:dot');
         CREATE TABLE jobs_rest PARTITION OF job_queue DEFAULT",
    );
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.job_source (run_as, idempotency_key_column, actor_column, result_column, finished_at_column)
             VALUES ('{role}', NULL, NULL, NULL, NULL);
         INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', 'true');
         INSERT INTO job_queue VALUES (1, 'job:dot', '{{\"code\": \"DOT-1\"}}', 'queued'), (2, 'job:dot', '{{\"code\": \"DOT-2\"}}', 'queued'),
             (2, 'job:cut', '{{\"code\": \"DOT-1\"}}', 'queued');
         SELECT dot_wrapper.announce()"
    ));
    until_stage(&bench, "SELECT to_jsonb(j) FROM job_queue j WHERE family = 'job:dot' AND id = 1", "succeeded");
    // Job 2 shares its key with one of another family, which is not touched.
    until_stage(&bench, "SELECT to_jsonb(j) FROM job_queue j WHERE family = 'job:dot' AND id = 2", "succeeded");
    let other = "SELECT concat_ws(' ', j.ctid, j.xmax, j.status, j.run_id) FROM job_queue j WHERE family = 'job:cut'";
    assert_eq!((bench.one::<String>(other, &[]).as_str(), bench.agent.count()), ("(0,1) 0 queued", 2));
}

#[test]
fn a_source_that_does_not_fit_is_told_once_and_takes_nothing() {
    let (bench, _, role) = company(TABLE);
    bench.exec(&format!(
        "INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', 'true');
         INSERT INTO job_queue (kind, body, priority, tenant) VALUES ('job:dot', '{{\"code\": \"DOT-1\"}}', 3, 't');
         INSERT INTO dot_wrapper.job_source (run_as) VALUES ('{role}')"
    ));
    let missing = "public.job_queue has no column id, family, payload, status, run_id, idempotency_key, actor, result, finished_at";
    assert_eq!(doctor(&bench), format!("BLOCK {missing}; no job is taken"));
    let said = |what: &str| bench.cluster.log().lines().filter(|line| line.contains(what)).count();
    let name = format!("no job is taken: {missing}");
    until("the log says so", || (said(&name) > 0).then_some(()));
    for _ in 0..3 {
        bench.look();
    }
    assert_eq!(said(&name), 1);
    let set = |sql: &str| bench.exec(&format!("UPDATE dot_wrapper.job_source SET {sql}"));
    set("id_column = 'Job Key', family_column = 'kind', payload_column = 'body', status_column = 'stage', run_id_column = NULL,
         idempotency_key_column = NULL, actor_column = NULL, result_column = NULL, finished_at_column = NULL");
    assert!(
        doctor(&bench).starts_with("BLOCK the status column of public.job_queue cannot be queued, running"),
        "{}",
        doctor(&bench)
    );
    set("status_words = '{\"queued\": \"new\", \"taken\": \"new\"}'");
    assert!(doctor(&bench).contains("\"new\" means queued and something else"), "{}", doctor(&bench));
    set("status_words = '{}', relation = 'public.nothing'");
    assert!(doctor(&bench).contains("there is no table public.nothing"), "{}", doctor(&bench));
    set("relation = 'public.job_queue', run_as = 'nobody_at_all'");
    bench.look();
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM job_queue WHERE stage = 'new'", &[]), 1);
    for bad in [
        "relation = 'job_queue'",
        "families = '{}'",
        "status_words = '{\"done\": \"x\"}'",
        "status_words = '{\"failed\": 1}'",
        "batch = 0",
    ] {
        let error = bench.error(&format!("UPDATE dot_wrapper.job_source SET {bad}"));
        assert_eq!(error.code().code(), "23514", "{bad}: {error:?}");
    }
}
