//! Jobs, and tables of jobs, by people who mean no good.

use std::time::Duration;

use serde_json::json;

use super::Jobs;
use crate::harness::wait::holds;
use crate::harness::{Owned, until};

#[test]
fn a_payload_that_is_none_ends_refused_and_holds_up_no_other() {
    let jobs = Jobs::shared();
    let large = "x".repeat(2 << 20);
    let bad = [
        json!(null),
        json!([]),
        json!("DOT-1"),
        json!({}),
        json!({"code": 1}),
        json!({"code": "DOT-1", "arg": {}}),
        json!({"code": "DOT-1", "mode": "run"}),
        json!({"code": "DOT-1", "process_run_id": "x"}),
        json!({"code": "DOT-1", "args": [1]}),
        json!({"code": "DOT-1", "args": {"x": large}}),
        json!({"code": "DOT-1\n"}),
        json!({"code": "D".repeat(300)}),
        json!({"code": "DOT-1", "run_as": "postgres"}),
        json!({"code": "DOT-1", "args": {"$serde_json::private::Number": "1"}}),
    ];
    let ids: Vec<i64> = bad.iter().map(|payload| jobs.put(payload)).collect();
    jobs.drain();
    for (id, payload) in ids.iter().zip(&bad) {
        let job = jobs.until(*id, "refused");
        let told = job["result"]["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 600);
        assert!(told && job["result"]["reason"] == "bad_job", "{:.200}: {job:.600}", payload.to_string());
        assert_eq!((jobs.runs(*id).len(), job["finished_at"].is_string()), (0, true));
    }
    assert_eq!((jobs.bench.agent.count(), jobs.links()), (0, 0));
}

#[test]
fn who_may_insert_jobs_becomes_nobody_else_and_reaches_no_other_family() {
    let jobs = Jobs::shared();
    let attacker = jobs.bench.role("attacker");
    jobs.bench.exec(&format!(
        "GRANT INSERT, SELECT ON job_queue TO {attacker};
         ALTER TABLE job_queue ENABLE ROW LEVEL SECURITY;
         CREATE POLICY cut ON job_queue TO {attacker} USING (true) WITH CHECK (family <> 'job:dot')"
    ));
    let mut session = jobs.bench.connect_as(&attacker);
    let payload = json!({"code": "DOT-1"});
    let insert = "INSERT INTO job_queue (family, payload, actor) VALUES ($1, $2, $3)";
    assert!(session.execute(insert, &[&"job:dot", &payload, &"postgres"]).is_err());
    for family in ["job:cut", "job:dot ", "job:dot:x", "job:DOT", "job:dot\u{200b}", "*", "%", "{job:dot}"] {
        session.execute(insert, &[&family, &payload, &"postgres"]).unwrap();
    }
    for sql in [
        "UPDATE job_queue SET family = 'job:dot'",
        "UPDATE dot_wrapper.job_source SET run_as = 'postgres'",
        "INSERT INTO dot_wrapper.job_link (relation, job_id, run_id) VALUES ('public.job_queue', '1', gen_random_uuid())",
        "SELECT dot_wrapper.wake_on_change()",
        "CREATE TRIGGER t AFTER INSERT ON job_queue FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.wake_on_change()",
        "SELECT fn_dot_run('DOT-1', 'apply')",
    ] {
        assert!(session.batch_execute(sql).is_err(), "{sql}");
    }
    jobs.drain();
    let taken: i64 =
        jobs.bench.one("SELECT count(*) FROM job_queue WHERE family <> 'job:dot' AND status <> 'queued'", &[]);
    assert_eq!((taken, jobs.bench.agent.count()), (0, 0));

    // Where the family is his, the run is still the configured role's, whatever he calls himself.
    jobs.bench.exec("DROP POLICY cut ON job_queue; ALTER TABLE job_queue DISABLE ROW LEVEL SECURITY");
    let id: i64 = {
        let sql = format!("{insert} RETURNING id");
        session.query_one(&sql, &[&"job:dot", &payload, &"postgres"]).unwrap().get(0)
    };
    jobs.until(id, "succeeded");
    let run = jobs.run(id);
    assert_eq!((run.text("requested_by"), run.text("actor")), (jobs.role.as_str(), "postgres"));
    assert!(session.batch_execute("SELECT FROM dot_wrapper.dot_run").is_err());
}

#[test]
fn a_role_that_may_not_call_fn_dot_run_runs_nothing() {
    let jobs = Jobs::shared();
    let revoke = format!("REVOKE EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) FROM {}", jobs.role);
    jobs.bench.exec(&revoke);
    let id = jobs.apply("DOT-1");
    let job = jobs.until(id, "refused");
    let message = job["result"]["message"].as_str().unwrap();
    assert!(message.contains("fn_dot_run"), "{message}");
    jobs.bench.exec("UPDATE dot_wrapper.job_source SET run_as = 'nobody_at_all'");
    let id = jobs.apply("DOT-1");
    let check = "SELECT verdict || ' ' || detail FROM fn_dot_doctor() WHERE check_name = 'jobs'";
    assert_eq!(jobs.bench.one::<String>(check, &[]), "BLOCK there is no role nobody_at_all, as which jobs would run");
    holds("a job waits for its role", Duration::from_millis(200), || jobs.job(id)["status"] == "queued");
    assert_eq!(jobs.bench.agent.count(), 0);
}

/// What a trigger does that wants to be more than its table's owner. Each try and what came of it is written down.
const TRIES: &str = r#"
    CREATE TABLE tried (sql text, came text);
    CREATE FUNCTION hostile() RETURNS trigger LANGUAGE plpgsql AS $f$
    DECLARE
        try text;
    BEGIN
        INSERT INTO tried VALUES ('who', current_user || ' for ' || session_user);
        FOREACH try IN ARRAY ARRAY[
            'SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
            'ALTER ROLE OWNER SUPERUSER', 'GRANT postgres TO OWNER', 'CREATE TEMP TABLE mine (x int)',
            'SELECT permit_key FROM dot_wrapper.instance', 'UPDATE dot_wrapper.job_source SET run_as = ''postgres''',
            'UPDATE dot_wrapper.dot_run SET run_status = ''succeeded''', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
            'SELECT fn_dot_run(''DOT-2'', ''apply'')', 'LISTEN x']
        LOOP
            BEGIN
                EXECUTE replace(try, 'OWNER', quote_ident(current_user));
                INSERT INTO public.tried VALUES (try, 'worked');
            EXCEPTION WHEN OTHERS THEN
                INSERT INTO public.tried VALUES (try, SQLSTATE);
            END;
        END LOOP;
        RETURN new;
    END $f$;
    CREATE TABLE jobs (id int PRIMARY KEY, family text, payload jsonb, status text DEFAULT 'queued', run_id uuid,
        idempotency_key text, actor text, result jsonb, finished_at timestamptz);
    CREATE TRIGGER hostile BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION hostile();"#;

fn owned(table: &str) -> (Owned, String) {
    let owned = Owned::new();
    owned.owner().batch_execute(table).unwrap();
    let role = owned.bench.caller("jobs");
    owned.bench.exec(&format!(
        "INSERT INTO dot_wrapper.job_source (run_as, relation) VALUES ('{role}', 'public.jobs');
         INSERT INTO dot_config (key, value) VALUES ('queue.worker.enabled', 'true')"
    ));
    (owned, role)
}

fn put(owned: &Owned, ids: std::ops::RangeInclusive<i32>) {
    let (first, last) = (ids.start(), ids.end());
    owned.bench.exec(&format!(
        "INSERT INTO jobs (id, family, payload) SELECT n, 'job:dot', '{{\"code\": \"DOT-1\"}}' FROM generate_series({first}, {last}) n;
         SELECT dot_wrapper.announce()"
    ));
}

fn status(owned: &Owned, id: i32) -> String {
    owned.bench.one("SELECT status FROM jobs WHERE id = $1", &[&id])
}

#[test]
fn a_trigger_of_the_table_is_its_owner_and_no_more() {
    let (owned, _) = owned(TRIES);
    put(&owned, 1..=1);
    until("the job is over", || (status(&owned, 1) == "succeeded").then_some(()));
    let who = format!("{} for dot_wrapper_worker", owned.owner);
    assert_eq!(owned.bench.all::<String>("SELECT DISTINCT came FROM tried WHERE sql = 'who'", &[]), [who]);
    let worked = "SELECT DISTINCT sql FROM tried WHERE came = 'worked' ORDER BY 1";
    assert!(owned.bench.all::<String>(worked, &[]).is_empty(), "{:?}", owned.bench.all::<String>(worked, &[]));
    owned.is_still_ordinary("a job table's trigger");
    assert_eq!(owned.bench.agent.count(), 1);
}

/// Each of them refuses job 1 in its own way, and lets the others pass.
#[test]
fn a_trigger_that_does_not_want_a_job_taken_holds_up_no_other_and_nothing_runs() {
    for body in [
        "RAISE EXCEPTION 'not this one'",
        "RETURN NULL",
        "new.status := 'queued'",
        "new.status := 'mine'",
        "PERFORM pg_sleep(30)",
        "RAISE EXCEPTION 'not now' USING ERRCODE = '40001'",
        "RAISE EXCEPTION 'not now' USING ERRCODE = '40P01'",
        "RAISE EXCEPTION 'not now' USING ERRCODE = '55P03'",
    ] {
        let trigger = format!("BEGIN IF new.id = 1 THEN {body}; END IF; RETURN new; END");
        let (owned, _) = owned(&TRIES.replace(
            "CREATE TRIGGER hostile BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION hostile();",
            &format!(
                "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $f$ {trigger} $f$;
             CREATE TRIGGER picky BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION picky();"
            ),
        ));
        put(&owned, 1..=3);
        until("the others are over", || {
            (status(&owned, 2) == "succeeded" && status(&owned, 3) == "succeeded").then_some(())
        });
        assert_eq!(status(&owned, 1), "queued", "{body}");
        let runs: i64 = owned.bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE source_ref = '1'", &[]);
        assert_eq!((runs, owned.bench.agent.count()), (0, 2), "{body}");
        let troubles: i64 =
            owned.bench.one("SELECT count(*) FROM dot_wrapper.job_link WHERE job_id = '1' AND trouble <> ''", &[]);
        assert_eq!(troubles, 1, "{body}");
    }
}

/// It would be run at commit, as whoever commits.
#[test]
fn a_deferred_trigger_of_the_table_is_not_run_as_us() {
    let table = TRIES.replace(
        "CREATE TRIGGER hostile BEFORE UPDATE ON jobs",
        "CREATE CONSTRAINT TRIGGER hostile AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED",
    );
    let (owned, _) = owned(&table);
    put(&owned, 1..=1);
    let trouble = "SELECT trouble FROM dot_wrapper.job_link WHERE job_id = '1'";
    let said = until("the trouble is noted", || owned.bench.all::<String>(trouble, &[]).pop());
    assert!(said.contains("deferred trigger"), "{said}");
    assert_eq!((status(&owned, 1).as_str(), owned.bench.agent.count()), ("queued", 0));
    assert_eq!(owned.bench.one::<i64>("SELECT count(*) FROM tried", &[]), 0);
}

#[test]
fn a_table_of_a_role_that_is_not_trusted_is_not_read() {
    let (owned, _) = owned(TRIES);
    let stranger = owned.bench.role("stranger");
    owned.bench.exec(&format!("ALTER TABLE jobs OWNER TO {stranger}"));
    put(&owned, 1..=1);
    let check = "SELECT detail FROM fn_dot_doctor() WHERE check_name = 'jobs'";
    assert_eq!(
        owned.bench.one::<String>(check, &[]),
        "public.jobs belongs to a role that is not trusted; no job is taken"
    );
    owned.bench.look();
    holds("its jobs wait", Duration::from_millis(200), || status(&owned, 1) == "queued");
    assert_eq!(owned.bench.one::<i64>("SELECT count(*) FROM tried", &[]), 0);
}

#[test]
fn who_holds_a_process_run_holds_up_its_jobs_and_not_the_worker() {
    let jobs = Jobs::shared();
    let role = jobs.bench.caller("holder");
    let process = uuid::Uuid::now_v7();
    let mut holder = jobs.bench.connect();
    let call = format!("SELECT fn_dot_run('DOT-1', 'verify', '{process}', '{{}}', 'k')");
    holder.batch_execute(&format!("SET ROLE {role}; BEGIN; {call}")).unwrap();
    let sql = "INSERT INTO job_queue (family, payload, idempotency_key) VALUES ('job:dot', $1, 'k') RETURNING id";
    let payload = json!({"code": "DOT-1", "mode": "verify", "process_run_id": process});
    let id: i64 = jobs.bench.one(sql, &[&payload]);
    let noted = "SELECT count(*) FROM dot_wrapper.job_link
                 WHERE run_id IS NULL AND trouble = 'somebody is requesting runs of the same process run'";
    until("it waits, and the worker does not", || (jobs.bench.one::<i64>(noted, &[]) == 1).then_some(()));
    jobs.until(jobs.apply("DOT-2"), "succeeded");
    assert_eq!(jobs.job(id)["status"], "queued");
    holder.batch_execute("ROLLBACK").unwrap();
    jobs.until(id, "succeeded");
}
