//! Ticks of the real pg_cron, of a server whose clock the test sets: each waits for the next second, not for a minute.

use crate::harness::wait::holds;
use crate::harness::{Bench, Cron, Reply, Run, until};

/// What the schedule asked for, oldest first.
fn ticks(bench: &Bench, code: &str) -> Vec<Run> {
    let sql = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE code = $1 AND source = 'schedule' ORDER BY run_id";
    bench.all(sql, &[&code]).into_iter().map(Run).collect()
}

/// The tick that comes when the minute is over, which is not before it.
fn next_tick(cron: &Cron, code: &str) -> Run {
    let before = ticks(cron.bench(), code).len();
    cron.next_minute();
    until("pg_cron has asked", || ticks(cron.bench(), code).get(before).cloned())
}

fn requests(bench: &Bench, code: &str) -> usize {
    bench.agent.requests().iter().filter(|request| request.field("dot_code") == code).count()
}

#[test]
fn pg_cron_runs_declared_tools_once_per_tick_and_dual_tools_with_one_effect() {
    let Some(cron) = Cron::start() else { return };
    let bench = cron.bench();
    let role = bench.role("operator");
    bench.exec(&format!(
        "UPDATE dot_tools SET trigger_type = 'cron', schedule = '* * * * *' WHERE code = 'DOT-1';
         UPDATE dot_tools SET trigger_type = 'dual', schedule = '* * * * *' WHERE code = 'DOT-2';
         INSERT INTO dot_wrapper.schedule (code, schedule, overlap) VALUES ('DOT-2', '* * * * *', 'queue');
         CREATE TABLE watched (id int PRIMARY KEY);
         INSERT INTO dot_wrapper.trigger_binding (code, relation, run_as) VALUES ('DOT-2', 'public.watched', '{role}');
         GRANT EXECUTE ON FUNCTION fn_dot_schedule_sync, fn_dot_tick, fn_dot_run TO {role}; GRANT USAGE ON SCHEMA cron TO {role};
         SELECT * FROM fn_dot_trigger_sync()"
    ));
    bench.connect_as(&role).batch_execute("SELECT * FROM fn_dot_schedule_sync()").unwrap();

    let first = next_tick(&cron, "DOT-1");
    assert_eq!((first.text("requested_by"), first.text("source_ref")), (&*role, "dot_wrapper:DOT-1"), "{first:?}");
    assert!(first.text("idempotency_key").ends_with(":00Z"), "{first:?}");
    bench.until(&first, "succeeded");
    let again = super::tick(&mut bench.connect_as(&role), "DOT-1");
    assert_eq!(again.id(), first.id());
    bench.until(&ticks(bench, "DOT-2")[0], "succeeded");

    event_first(&cron);
    tick_first(&cron);
    every_call_of_pg_cron_went_well(bench);
}

/// pg_cron has called, and is kept waiting until the event's run is over.
fn event_first(cron: &Cron) {
    let bench = cron.bench();
    let (before, asked) = (requests(bench, "DOT-2"), ticks(bench, "DOT-2").len());
    let mut blocker = bench.connect();
    let mut block = blocker.transaction().unwrap();
    block.batch_execute("LOCK dot_wrapper.schedule IN ACCESS EXCLUSIVE MODE").unwrap();
    cron.next_minute();
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'dot_wrapper.schedule'::regclass AND NOT granted";
    until("pg_cron's calls wait", || (bench.one::<i64>(waiting, &[]) == 2).then_some(()));
    bench.exec("INSERT INTO watched VALUES (1)");
    let event = Run(bench.one("SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'trigger'", &[]));
    bench.until(&event, "succeeded");
    block.commit().unwrap();
    let tick = until("pg_cron has asked", || ticks(bench, "DOT-2").get(asked).cloned());
    assert_eq!((tick.status(), tick.reason()), ("refused", "covered"), "{tick:?}");
    bench.drain();
    assert_eq!(requests(bench, "DOT-2"), before + 1, "one effect of both");
}

/// The tick's run is queued, and what it would have done is done for the event that comes before it could start.
fn tick_first(cron: &Cron) {
    let bench = cron.bench();
    let before = requests(bench, "DOT-2");
    bench.exec("UPDATE dot_wrapper.endpoint SET max_in_flight = 1");
    bench.agent.plan(|request| if request.field("dot_code") == "DOT-6" { Reply::Hold } else { Reply::succeeded() });
    bench.apply("DOT-6");
    let held = until("the endpoint is busy", || {
        bench.agent.requests().into_iter().find(|request| request.field("dot_code") == "DOT-6")
    });
    let tick = next_tick(cron, "DOT-2");
    assert_eq!(tick.status(), "queued", "{tick:?}");
    bench.exec("INSERT INTO watched VALUES (2)");
    let sql = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'trigger' ORDER BY run_id DESC LIMIT 1";
    let event = Run(bench.one(sql, &[]));
    assert_eq!(bench.run(tick.id()).status(), "queued");
    bench.agent.release(&held, Reply::succeeded());
    bench.until(&event, "succeeded");
    let tick = bench.until(&tick, "refused");
    assert_eq!((tick.reason(), bench.block(&tick, "send")), ("covered", ("overlap".to_owned(), "covered".to_owned())));
    bench.drain();
    assert_eq!(requests(bench, "DOT-2"), before + 1, "one effect of both");
}

fn every_call_of_pg_cron_went_well(bench: &Bench) {
    let bad = "SELECT count(*) FROM cron.job_run_details WHERE status NOT IN ('succeeded', 'running', 'starting')";
    holds("pg_cron's calls succeed", std::time::Duration::from_millis(200), || bench.one::<i64>(bad, &[]) == 0);
    assert!(bench.one::<i64>("SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'", &[]) >= 4);
}
