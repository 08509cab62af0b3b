//! G5: rows that came by any way but `fn_dot_run` are never executed, and each is told in the log and in an event.

use serde_json::json;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, figure, os};

/// What can be changed about a queued run that changes what would be executed, and for whom.
const ALTERATIONS: [&str; 8] = [
    "UPDATE dot_wrapper.dot_run SET args = '{\"n\": 2}' WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET args = args || '{\"m\": null}' WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET code = 'DOT-3' WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET mode = 'verify' WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET process_run_id = gen_random_uuid() WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET requested_by_oid = 'dot_wrapper_worker'::regrole WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_run SET lease_key = lease_key || 'x' WHERE run_id = RUN",
    "UPDATE dot_wrapper.dot_queue SET permit = sha256(permit) WHERE run_id = RUN",
];

/// A session of a role that may write the tables, by one attribute or another, and is no superuser.
fn writer(bench: &Bench, name: &str, grant: &str) -> postgres::Client {
    let role = bench.role(name);
    // What the tables' CHECKs call.
    let checks =
        "GRANT EXECUTE ON FUNCTION dot_wrapper.run_fits, dot_wrapper.event_fits, dot_wrapper.queue_fits TO WRITER";
    bench.exec(&format!("{grant}; {checks}").replace("WRITER", &role));
    bench.connect_as(&role)
}

/// Forges by every kind of role that can write the tables, with every permit that it could get hold of.
fn forgeries(bench: &Bench, real: &Run) -> Vec<Uuid> {
    let tables = "GRANT USAGE ON SCHEMA dot_wrapper TO WRITER; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA dot_wrapper TO WRITER";
    let mut sessions = [
        bench.connect(),
        writer(
            bench,
            "bypass",
            &format!("ALTER ROLE WRITER BYPASSRLS; {tables}; REVOKE ALL ON dot_wrapper.instance FROM WRITER"),
        ),
        writer(bench, "writer", "GRANT pg_write_all_data, pg_read_all_data TO WRITER"),
    ];
    let mut forged = Vec::new();
    for session in &mut sessions {
        for permit in ["''", "sha256('x')", "(SELECT permit FROM public.stolen)"] {
            forged.push(Bench::forge(session, real, permit).unwrap());
        }
    }
    forged
}

/// Every forged run has one event, one line in the log, and has not moved.
#[track_caller]
fn told_and_left(bench: &Bench, forged: &[Uuid]) {
    let log = bench.cluster.log();
    for id in forged {
        let run = bench.run(*id);
        assert_eq!(run.status(), "queued", "{run:?}");
        let events = bench.events(&run);
        assert_eq!(events.iter().filter(|event| *event == "no_permit").count(), 1, "{events:?} of {run:?}");
        let id = id.to_string();
        let lines = log.lines().filter(|line| line.contains("WARNING") && line.contains(&id)).count();
        assert_eq!(lines, 1, "lines of the log that name {id}");
    }
}

#[test]
fn g5_forged_rows_are_told_and_never_executed() {
    let bench = Bench::shared();
    bench.exec("CREATE TABLE stolen (permit bytea); GRANT SELECT ON stolen TO PUBLIC");
    let ask = Ask { args: json!({"n": 1}), ..Ask::new("DOT-2", "apply") };
    let real = bench.between(&ask, "INSERT INTO stolen SELECT permit FROM dot_wrapper.dot_queue WHERE run_id = RUN");
    let real = bench.until(&real, "succeeded");
    let mut forged = forgeries(&bench, &real);
    for alteration in ALTERATIONS {
        let change = format!("{alteration}; DELETE FROM dot_iu_runtime_lease; DELETE FROM dot_wrapper.lease_grant");
        forged.push(bench.between(&ask, &change).id());
    }
    bench.drain();
    told_and_left(&bench, &forged);
    // A row of a run that is over, and one of a run that never was: nothing to execute, and a line in the log.
    let nobody = Uuid::now_v7();
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit) SELECT '{}', 'queued', 1, 'DOT-1', 'agent', permit FROM stolen;
         INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit) VALUES ('{nobody}', 'queued', 1, 'DOT-1', 'agent', '')",
        real.id()
    ));
    bench.drain();
    let log = bench.cluster.log();
    for id in [real.id(), nobody] {
        assert!(log.lines().any(|line| line.contains("WARNING") && line.contains(&id.to_string())), "{id} is not told");
    }
    assert_eq!(bench.agent.requests().iter().map(|r| r.run_id()).collect::<Vec<_>>(), [Some(real.id())]);
    figure("G5", &format!("{} forged rows: 0 executed, one event and one line in the log each", forged.len() + 2));
}

#[test]
fn g5_rows_of_a_restored_dump_are_told_and_never_executed() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-5"), "succeeded");
    let later = "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = RUN";
    let old: Vec<Uuid> =
        ["DOT-1", "DOT-2", "DOT-3"].iter().map(|code| bench.between(&Ask::new(code, "apply"), later).id()).collect();
    let restored = Bench::empty(bench.cluster.clone());
    let file = bench.cluster.dir().join(format!("{}.g5", bench.name));
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    os::run(bench.cluster.client("pg_restore", &restored.name).args(["-e", "-d", &restored.name]).arg(&file));
    restored.open();
    restored.exec("UPDATE dot_wrapper.dot_queue SET available_at = now()");
    restored.look();
    assert_eq!(
        restored.one::<String>("SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'instance'", &[]),
        "BLOCK"
    );
    // An operator lets this copy work, and vouches for none of its old runs.
    assert_eq!(restored.one::<i64>("SELECT fn_dot_resume('{}')", &[]), 0);
    restored.drain();
    told_and_left(&restored, &old);
    assert_eq!(bench.agent.count(), 1);
    figure(
        "G5.restored",
        &format!("{} queued rows of a restored dump: 0 executed, one event and one line each", old.len()),
    );
}
