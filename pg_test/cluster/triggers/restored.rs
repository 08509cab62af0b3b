//! A dump has bindings, schedules and triggers; what they ask for in a restored copy is executed by nobody until it is
//! resumed.

use std::sync::Arc;

use super::{bound, runs, synced};
use crate::harness::bench::db_error;
use crate::harness::{Bench, os};

#[test]
fn a_restored_copy_has_its_bindings_and_executes_nothing_until_it_is_resumed() {
    let bench = bound("per, args", "'row', '{\"scope\": \"one\"}'");
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'dual', schedule = '@hourly' WHERE code = 'DOT-1';
         INSERT INTO dot_wrapper.schedule (code, schedule, note) VALUES ('DOT-1', '@daily', 'why')",
    );
    let file = bench.cluster.dir().join("bindings");
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    let copy = Bench::empty(Arc::clone(&bench.cluster));
    os::run(bench.cluster.client("pg_restore", &copy.name).args(["-e", "-d", &copy.name]).arg(&file));
    let kept = "SELECT concat_ws('|', s.schedule, s.note, b.relation, b.per, b.args, b.run_as, t.schedule)
                FROM dot_wrapper.schedule s JOIN dot_wrapper.trigger_binding b USING (code) JOIN dot_tools t USING (code)";
    assert_eq!(copy.one::<String>(kept, &[]), "@daily|why|public.t|row|{\"scope\": \"one\"}|postgres|@hourly");

    copy.exec("INSERT INTO t VALUES (1)");
    let run = runs(&copy).remove(0);
    assert_eq!((run.status(), &run.gate("worker").unwrap()["reason"]), ("queued", &serde_json::json!("suspended")));
    let kept =
        "DOT-1|public.t|dot_wrapper:DOT-1|kept|its events cover no tick of the tool's schedule: they are per row";
    assert_eq!(synced(&mut copy.session()), [kept]);
    copy.look();
    assert_eq!((runs(&copy)[0].status(), bench.agent.count()), ("queued", 0));
    copy.exec("SELECT fn_dot_resume()");
    copy.until(&run, "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

/// A dump knows roles by name alone. A binding whose role is not there is a row that the sync tells of; it takes no other along.
#[test]
fn where_a_role_is_missing_the_bindings_are_restored_and_the_sync_says_so() {
    let bench = bound("", "");
    let gone = bench.role("gone");
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.trigger_binding (code, relation, run_as) VALUES ('DOT-2', 'public.t', '{gone}')"
    ));
    let file = bench.cluster.dir().join("roles");
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    bench.exec(&format!("DROP ROLE {gone}"));
    let copy = Bench::empty(Arc::clone(&bench.cluster));
    os::run(copy.cluster.client("pg_restore", &copy.name).args(["-e", "-d", &copy.name]).arg(&file));
    copy.exec("UPDATE dot_tools SET trigger_type = 'event'");
    let why = format!("invalid|role {gone} does not exist");
    let told = ["DOT-1|public.t|dot_wrapper:DOT-1|kept".to_owned(), format!("DOT-2|public.t|dot_wrapper:DOT-2|{why}")];
    assert_eq!(synced(&mut copy.session()), told);

    // Nobody else may name a role that is not there, and have the one that somebody will make.
    let admin = bench.role("admin");
    copy.exec(&format!(
        "GRANT USAGE ON SCHEMA dot_wrapper TO {admin}; GRANT ALL ON dot_wrapper.trigger_binding TO {admin}"
    ));
    let sql = format!(
        "INSERT INTO dot_wrapper.trigger_binding (code, relation, run_as) VALUES ('DOT-3', 'public.t', '{gone}')"
    );
    let refused = db_error(copy.connect_as(&admin).batch_execute(&sql).unwrap_err());
    assert_eq!((refused.code().code(), refused.message()), ("42704", &*format!("role \"{gone}\" does not exist")));
}
