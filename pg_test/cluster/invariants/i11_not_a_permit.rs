//! Invariant 11: a queue row that did not come through `fn_dot_run` is never executed; a copy executes nothing until an
//! operator resumes it.

use serde_json::json;

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, os, until};

/// Admits a run and does something to its rows before it is committed.
fn altered(bench: &Bench, sql: &str) -> Run {
    bench.between(&Ask { args: json!({"n": 1}), ..Ask::new("DOT-2", "apply") }, sql)
}

#[test]
fn invariant_11_a_row_is_not_a_permit_forged_rows_are_not_executed() {
    let bench = Bench::shared();
    // The permit of a real run, for copies.
    bench.exec("CREATE TABLE stolen (permit bytea)");
    let real = altered(&bench, "INSERT INTO stolen SELECT permit FROM dot_wrapper.dot_queue WHERE run_id = RUN");
    let real = bench.until(&real, "succeeded");
    let mut forged: Vec<Run> = ["''", "gen_random_uuid()::text::bytea", "(SELECT permit FROM stolen)"]
        .iter()
        .map(|permit| bench.run(Bench::forge(&mut bench.connect(), &real, permit).unwrap()))
        .collect();
    for column in [
        "args = '{\"n\": 2}'",
        "code = 'DOT-3'",
        "mode = 'verify'",
        "process_run_id = gen_random_uuid()",
        "requested_by_oid = 'dot_wrapper_worker'::regrole",
        "lease_key = lease_key || 'x'",
        "lease_key = NULL, fencing_token = NULL",
    ] {
        forged.push(altered(
            &bench,
            &format!(
                "UPDATE dot_wrapper.dot_run SET {column} WHERE run_id = RUN;
                                              DELETE FROM dot_iu_runtime_lease; DELETE FROM dot_wrapper.lease_grant"
            ),
        ));
    }
    bench.exec("INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit) VALUES (gen_random_uuid(), 'queued', 1, 'X', 'x', '')");
    bench.drain();
    assert_eq!(bench.agent.requests().iter().map(|r| r.run_id()).collect::<Vec<_>>(), [Some(real.id())]);
    for run in &forged {
        assert_eq!(bench.run(run.id()).status(), "queued");
        assert_eq!(bench.events(run).last().unwrap(), "no_permit", "{run:?}");
    }
    assert!(bench.cluster.log().contains("valid permit"), "the log tells");

    // Only the owner can vouch for one, and vouches for that one alone.
    let role = bench.role("caller");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_resume(uuid[]) TO {role}"));
    let error = bench.connect_as(&role).batch_execute("SELECT fn_dot_resume()").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
    assert_eq!(bench.one::<i64>("SELECT fn_dot_resume(ARRAY[$1::uuid])", &[&forged[0].id()]), 1);
    bench.until(&forged[0], "succeeded");
    bench.drain();
    assert_eq!(bench.agent.count(), 2);
}

/// Leaves a run in the queue that its own database does not execute.
fn left_in_queue(bench: &Bench) -> Run {
    altered(bench, "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = RUN")
}

/// In a copy nothing is executed, old or new, until it is resumed; then both are.
#[track_caller]
fn waits_for_resume(original: &Bench, copy: &Bench, old: &Run) {
    copy.exec("UPDATE dot_wrapper.dot_queue SET available_at = now()");
    copy.look();
    copy.look();
    assert_eq!(original.agent.count(), 0, "the copy has sent something");
    assert_eq!(copy.run(old.id()).status(), "queued");
    assert!(copy.one::<i64>("SELECT fn_dot_resume()", &[]) >= 1);
    copy.until(old, "succeeded");
    assert!(original.agent.requests().iter().any(|request| request.run_id() == Some(old.id())));
    copy.drain();
    // What the copy was told, the original was not.
    original.look();
    assert_eq!(original.run(old.id()).status(), "queued");
}

#[test]
fn invariant_11_a_row_is_not_a_permit_a_template_copy_waits_for_an_operator() {
    let bench = Bench::shared();
    let old = left_in_queue(&bench);
    let copy = bench.copy();
    let fresh = copy.ask(&Ask::new("DOT-3", "apply"));
    assert_eq!(fresh.gate("worker").unwrap()["reason"], "suspended", "{fresh:?}");
    waits_for_resume(&bench, &copy, &old);
    copy.until(&fresh, "succeeded");
    assert_eq!(bench.agent.count(), 2);
}

#[test]
fn invariant_11_a_row_is_not_a_permit_a_restored_dump_waits_for_an_operator() {
    let bench = Bench::shared();
    let done = bench.until(&bench.apply("DOT-5"), "succeeded");
    let old = left_in_queue(&bench);
    let requests = bench.agent.count();
    let restored = Bench::empty(bench.cluster.clone());
    let file = bench.cluster.dir().join(format!("{}.dump", bench.name));
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    os::run(bench.cluster.client("pg_restore", &restored.name).args(["-e", "-d", &restored.name]).arg(&file));

    assert_eq!(restored.run(done.id()), bench.run(done.id()), "the history came along");
    // Whether the gates of a restored database are open is its dump's affair; here they are.
    restored.open();
    restored.exec("UPDATE dot_wrapper.dot_queue SET available_at = now()");
    restored.look();
    restored.look();
    assert_eq!(bench.agent.count(), requests, "the restored database has sent what it did not admit");
    assert_eq!(restored.run(old.id()).status(), "queued");
    assert_eq!(restored.one::<i64>("SELECT fn_dot_resume()", &[]), 1);
    restored.until(&old, "succeeded");
    assert_eq!(bench.agent.count(), requests + 1);
}

/// A restore is not one transaction, and a worker comes up in the middle of it.
#[test]
fn invariant_11_a_row_is_not_a_permit_a_worker_does_not_get_in_the_way_of_a_restore() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-5"), "succeeded");
    altered(&bench, "");
    bench.drain();
    left_in_queue(&bench);
    bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = 'infinity'");
    let dump = os::run(bench.cluster.client("pg_dump", &bench.name).arg("--inserts"));
    let dump: String = dump.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n");
    // Due, as a run is that was waiting when the dump was made.
    let dump = dump.replace("'infinity'", "'2020-01-01'");
    let events = dump.find("INSERT INTO dot_wrapper.dot_run_event").expect("events in the dump");
    let restored = Bench::empty(bench.cluster.clone());
    restored.exec(&dump[..events]);
    until("the worker is there", || restored.worker_now());
    restored.look();
    restored.exec(&dump[events..]);
    restored.forget_session();
    restored.open();
    restored.exec("SELECT fn_dot_resume()");
    restored.drain();
}
