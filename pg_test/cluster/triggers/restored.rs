//! A dump has bindings, schedules and triggers; what they ask for in a restored copy is executed by nobody until it is
//! resumed.

use std::sync::Arc;

use super::{bound, runs, synced};
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
