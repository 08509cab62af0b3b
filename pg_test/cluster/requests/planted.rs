//! Triggers on the request table: somebody else's code is never run, and an administrator's with no more rights than it needs.

use serde_json::{Value, json};

use super::{apply, row, served, until_says};
use crate::harness::bench::db_error;
use crate::harness::{Bench, Reply, Run, until};

/// A role that may put triggers on the table, and that notes in `ran` who runs its functions.
struct Planter<'a> {
    bench: &'a Bench,
    role: String,
}

impl<'a> Planter<'a> {
    fn new(bench: &'a Bench) -> Planter<'a> {
        let role = bench.role("planter");
        bench.exec(&format!(
            "CREATE SCHEMA {role} AUTHORIZATION {role}; GRANT TRIGGER ON dot_run_request TO {role};
             GRANT USAGE ON SCHEMA {role} TO PUBLIC"
        ));
        bench
            .connect_as(&role)
            .batch_execute(&format!(
                "CREATE TABLE {role}.ran (who text); GRANT INSERT ON {role}.ran TO PUBLIC;
                 CREATE FUNCTION {role}.plant() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO {role}.ran VALUES (current_user); RETURN NEW; END$$;
                 CREATE FUNCTION {role}.ask(code text) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO {role}.ran VALUES (current_user); RETURN true; END$$"
            ))
            .unwrap();
        Planter { bench, role }
    }

    /// Its own function.
    fn plant(&self) {
        let sql = "CREATE TRIGGER plant BEFORE UPDATE ON dot_run_request FOR EACH ROW EXECUTE FUNCTION";
        self.bench.connect_as(&self.role).batch_execute(&format!("{sql} {}.plant()", self.role)).unwrap();
    }

    /// A function of core, and its own one that is asked whether that should be called.
    fn ask(&self) {
        let sql = format!(
            "CREATE TRIGGER plant BEFORE UPDATE ON dot_run_request FOR EACH ROW WHEN ({}.ask(new.code))
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
            self.role
        );
        self.bench.connect_as(&self.role).batch_execute(&sql).unwrap();
    }

    /// As whom its code was run.
    fn ran(&self) -> Vec<String> {
        self.bench.all(&format!("SELECT who FROM {}.ran", self.role), &[])
    }

    fn drop(&self) {
        self.bench.exec("DROP TRIGGER plant ON dot_run_request");
    }
}

#[test]
fn a_condition_of_somebody_elses_trigger_is_never_asked() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    let planter = Planter::new(&bench);
    planter.ask();
    let asked = apply(&bench, &role, "DOT-1");
    bench.until(&Run(asked.clone()), "succeeded");
    bench.drain();
    assert_eq!((planter.ran(), &row(&bench, &asked["id"])["run_status"]), (vec![], &json!("queued")));
    let advice = "SELECT advice FROM fn_dot_doctor() WHERE check_name = 'request table' AND verdict = 'WARN'";
    assert!(bench.one::<String>(advice, &[]).starts_with("DROP TRIGGER plant"));
    planter.drop();
    until_says(&bench, &asked, "succeeded");
    assert!(planter.ran().is_empty());
}

/// The session's snapshot does not show the trigger; the executor would fire it.
#[test]
fn a_trigger_that_an_old_snapshot_does_not_show_is_never_run() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_cancel TO {role}"));
    let planter = Planter::new(&bench);
    let asked = apply(&bench, &role, "DOT-1");
    let mut old = bench.connect_as(&role);
    let mut old = old.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    // It has looked at the table too, and has it in its cache.
    old.batch_execute("SELECT FROM dot_run_request; SELECT FROM pg_trigger").unwrap();
    planter.plant();
    old.batch_execute(&format!("SELECT fn_dot_cancel('{}', 'x')", asked["run_id"].as_str().unwrap())).unwrap();
    old.commit().unwrap();
    assert_eq!(bench.run(Run(asked.clone()).id()).status(), "cancelled");
    assert_eq!((planter.ran(), &row(&bench, &asked["id"])["run_status"]), (vec![], &json!("queued")));
    planter.drop();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    until_says(&bench, &asked, "cancelled");
}

/// As after a restore where roles have other OIDs.
#[test]
fn a_resume_runs_no_trigger_of_somebody_else() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    let planter = Planter::new(&bench);
    let asked = apply(&bench, &role, "DOT-1");
    bench.exec("SET session_replication_role = replica; UPDATE dot_run_request SET requested_by_oid = 1; RESET ALL");
    for plant in [Planter::plant, Planter::ask] {
        plant(&planter);
        let error = bench.error("SELECT fn_dot_resume()");
        assert_eq!((error.code().code(), error.hint().is_some()), ("55000", true));
        planter.drop();
    }
    assert!(planter.ran().is_empty());
    bench.exec("SELECT fn_dot_resume()");
    let now: Value = bench.one("SELECT to_jsonb(w.requested_by_oid) FROM pg_roles r, dot_run_request w WHERE r.rolname = $1 AND r.oid = w.requested_by_oid", &[&role]);
    assert!(now.is_string() || now.is_number(), "{now:?}");
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    until_says(&bench, &asked, "succeeded");
}

/// Neither the worker's rights nor the owner's: none but to write outcomes, and those not by the trigger's own statements.
#[test]
fn a_trusted_trigger_has_the_rights_of_a_role_that_has_none() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec(&format!(
        "CREATE TABLE ran (what text); GRANT INSERT ON ran TO PUBLIC; GRANT EXECUTE ON FUNCTION fn_dot_cancel TO {role};
         CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO public.ran VALUES (current_user);
             PERFORM pg_notify('requests', NEW.id::text);
             BEGIN
                 PERFORM FROM dot_wrapper.dot_run;
             EXCEPTION WHEN OTHERS THEN INSERT INTO public.ran VALUES (SQLSTATE);
             END;
             BEGIN
                 UPDATE dot_wrapper.request_outcome SET message = 'forged' WHERE finished_at IS NOT NULL;
             EXCEPTION WHEN OTHERS THEN INSERT INTO public.ran VALUES (SQLSTATE);
             END;
             BEGIN
                 SET ROLE postgres;
             EXCEPTION WHEN OTHERS THEN INSERT INTO public.ran VALUES (SQLSTATE);
             END;
             RETURN NEW;
         END$$;
         CREATE TRIGGER told AFTER UPDATE ON dot_run_request FOR EACH ROW EXECUTE FUNCTION told()"
    ));
    let ran = || -> Vec<String> { bench.all("WITH gone AS (DELETE FROM ran RETURNING what) SELECT * FROM gone", &[]) };
    let asked = apply(&bench, &role, "DOT-1");
    let cancel = format!("SELECT fn_dot_cancel('{}', 'x')", asked["run_id"].as_str().unwrap());
    bench.connect_as(&role).batch_execute(&cancel).unwrap();
    until_says(&bench, &asked, "cancelled");
    assert_eq!(ran(), ["dot_wrapper_mirror", "42501", "55000", "42501"]);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    until_says(&bench, &apply(&bench, &role, "DOT-2"), "succeeded");
    assert_eq!(ran(), ["dot_wrapper_mirror", "42501", "55000", "42501"].repeat(2));
}

/// On our own tables they would run with the extension owner's rights.
#[test]
fn the_doctor_tells_of_triggers_on_our_own_tables() {
    let (bench, _) = served(Bench::shared());
    let found = "SELECT coalesce(string_agg(verdict || ' ' || advice, ''), '') FROM fn_dot_doctor() WHERE check_name = 'own tables'";
    assert_eq!(bench.one::<String>(found, &[]), "");
    let role = bench.role("planter");
    bench.exec(&format!(
        "GRANT USAGE ON SCHEMA dot_wrapper TO {role}; GRANT TRIGGER ON dot_wrapper.dot_queue TO {role}"
    ));
    let plant = "CREATE TRIGGER plant BEFORE UPDATE ON dot_wrapper.dot_queue FOR EACH ROW
                 EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()";
    bench.connect_as(&role).batch_execute(plant).unwrap();
    assert!(bench.one::<String>(found, &[]).starts_with("WARN DROP TRIGGER plant ON dot_wrapper.dot_queue;"));
}

fn raising(bench: &Bench, what: &str) {
    bench.exec(&format!(
        "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {what}; RETURN NEW; END$$;
         CREATE OR REPLACE TRIGGER broken AFTER UPDATE ON dot_run_request FOR EACH ROW EXECUTE FUNCTION broken()"
    ));
}

/// Codes that say that the whole transaction has to end: said by a trigger, they say nothing about the run's.
#[test]
fn a_trigger_that_asks_for_the_transactions_end_keeps_no_run_from_its_own() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    let mut all = Vec::new();
    for state in ["40001", "40P01", "57014", "57P01", "53100", "53200"] {
        raising(&bench, &format!("RAISE EXCEPTION 'broken' USING ERRCODE = '{state}'"));
        let asked = apply(&bench, &role, "DOT-1");
        bench.until(&Run(asked.clone()), "succeeded");
        assert_eq!(row(&bench, &asked["id"])["run_status"], "queued", "{state}");
        all.push(asked);
    }
    bench.exec("DROP TRIGGER broken ON dot_run_request");
    for asked in all {
        until_says(&bench, &asked, "succeeded");
    }
}

/// What one row's trigger says is no reason to leave the others behind.
#[test]
fn a_row_whose_trigger_fails_keeps_no_other_row_from_being_caught_up_with() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.agent.reply(Reply::Hold);
    let bad = apply(&bench, &role, "DOT-1");
    let first = bench.agent.wait_for(1).pop().unwrap();
    let good = apply(&bench, &role, "DOT-2");
    let second = bench.agent.wait_for(2).pop().unwrap();
    for asked in [&bad, &good] {
        until_says(&bench, asked, "running");
    }
    raising(&bench, "IF NEW.code = 'DOT-1' THEN RAISE EXCEPTION 'broken'; END IF");
    let mut session = bench.connect();
    let mut lock = session.transaction().unwrap();
    lock.batch_execute("SELECT FROM dot_run_request WHERE code = 'DOT-2' FOR UPDATE").unwrap();
    for (asked, held) in [(&bad, &first), (&good, &second)] {
        bench.agent.release(held, Reply::succeeded());
        bench.until(&Run(asked.clone()), "succeeded");
    }
    lock.rollback().unwrap();
    until_says(&bench, &good, "succeeded");
    assert_eq!(row(&bench, &bad["id"])["run_status"], "running");
}

#[test]
fn a_slow_trigger_holds_up_neither_runs_nor_leases() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.poll_interval = 1s"]));
    bench.exec("UPDATE dot_wrapper.policy SET lease_ttl_s = 10 WHERE scope = 'engine'");
    bench.agent.reply(Reply::Hold);
    let kept = apply(&bench, &role, "DOT-1");
    let held = bench.agent.wait_for(1).pop().unwrap();
    until_says(&bench, &kept, "running");
    raising(&bench, "PERFORM pg_sleep(600)");
    bench.agent.reply(Reply::succeeded());
    let asked = apply(&bench, &role, "DOT-2");
    bench.until(&Run(asked.clone()), "succeeded");
    assert_eq!(row(&bench, &asked["id"])["run_status"], "queued");
    let sql = "SELECT expires_at::text FROM dot_iu_runtime_lease WHERE lease_key = 'tool:DOT-1'";
    let granted: String = bench.one(sql, &[]);
    until("the lease has been renewed", || (bench.one::<String>(sql, &[]) > granted).then_some(()));
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&Run(kept.clone()), "succeeded");
    bench.exec("DROP TRIGGER broken ON dot_run_request");
    until_says(&bench, &asked, "succeeded");
    until_says(&bench, &kept, "succeeded");
}

/// Somebody's own cancel is his, and ends his transaction.
#[test]
fn a_cancel_of_the_session_itself_is_not_taken_for_a_triggers_fault() {
    let (bench, role) = served(Bench::own(&["dot_wrapper.worker_enabled = off"]));
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_cancel TO {role}"));
    let asked = apply(&bench, &role, "DOT-1");
    raising(&bench, "PERFORM pg_sleep(600)");
    let cancel =
        format!("SET statement_timeout = 500; SELECT fn_dot_cancel('{}', 'x')", asked["run_id"].as_str().unwrap());
    let error = db_error(bench.connect_as(&role).batch_execute(&cancel).unwrap_err());
    assert_eq!(error.code().code(), "57014");
    assert_eq!(bench.run(Run(asked.clone()).id()).status(), "queued");
}
