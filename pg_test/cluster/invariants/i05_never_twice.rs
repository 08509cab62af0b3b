//! Invariant 5: the same (process run, code, mode, key) is one run and one request; a plan is always made anew.

use std::sync::Barrier;

use serde_json::json;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, until};

#[test]
fn invariant_05_never_twice_eight_sessions_with_one_key_make_one_run_and_one_request() {
    const SESSIONS: usize = 8;
    let bench = Bench::shared();
    for (round, mode) in ["apply", "verify", "apply", "verify"].into_iter().enumerate() {
        let process = Uuid::now_v7();
        let ask = Ask { process: Some(process), key: Some("k"), args: json!({"n": 1}), ..Ask::new("DOT-1", mode) };
        let start = Barrier::new(SESSIONS);
        let runs: Vec<Run> = std::thread::scope(|scope| {
            let call = || {
                let mut session = bench.connect();
                start.wait();
                ask.on(&mut session).unwrap()
            };
            let threads: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(call)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(runs.iter().all(|run| run.id() == runs[0].id()), "{runs:?}");
        bench.until(&runs[0], "succeeded");
        bench.drain();
        let rows: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run WHERE process_run_id = $1", &[&process]);
        assert_eq!((rows, bench.agent.count()), (1, round + 1));
        let request = bench.agent.requests().pop().unwrap();
        assert_eq!(request.header("idempotency-key"), runs[0].id().to_string());
        assert_eq!(request.run_id(), Some(runs[0].id()));
        // After its end, too.
        assert_eq!(bench.ask(&ask).id(), runs[0].id());
    }
}

#[test]
fn invariant_05_never_twice_the_key_belongs_to_its_arguments() {
    let bench = Bench::shared();
    let process = Some(Uuid::now_v7());
    let ask =
        |n: i32, code, mode, key| Ask { process, key, args: json!({"n": n, "m": [1, 2]}), ..Ask::new(code, mode) };
    let first = bench.ask(&ask(1, "DOT-1", "apply", Some("k")));
    let error = ask(2, "DOT-1", "apply", Some("k")).on(&mut *bench.session()).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505", "{error:?}");
    bench.until(&first, "succeeded");
    // Another tool, another mode, another key, no key: another run.
    let others = [
        ("DOT-2", "apply", Some("k")),
        ("DOT-1", "verify", Some("k")),
        ("DOT-1", "apply", Some("l")),
        ("DOT-1", "apply", None),
    ];
    let mut seen = vec![first.id()];
    for (code, mode, key) in others {
        let run = bench.ask(&ask(2, code, mode, key));
        assert!(!seen.contains(&run.id()), "{code} {mode} {key:?}");
        bench.until(&run, "succeeded");
        seen.push(run.id());
    }
    bench.drain();
    assert_eq!(bench.agent.count(), seen.len());
    // Without a process run nothing is "the same".
    let loose = Ask { process: None, ..ask(1, "DOT-1", "verify", Some("k")) };
    assert_ne!(bench.ask(&loose).id(), bench.ask(&loose).id());
}

#[test]
fn invariant_05_never_twice_a_refusal_leaves_the_key_free_and_a_plan_is_always_new() {
    let bench = Bench::shared();
    let ask = Ask { process: Some(Uuid::now_v7()), key: Some("k"), ..Ask::new("DOT-1", "apply") };
    let retire = "UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'";
    bench.exec(retire);
    let first = bench.ask(&ask);
    let again = bench.ask(&ask);
    assert_eq!((first.status(), again.status()), ("refused", "refused"));
    assert_ne!(first.id(), again.id(), "each refusal is a decision of its own");
    bench.exec("UPDATE dot_tools SET status = 'active'");

    // A refusal at the second gate leaves it free as well.
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let late = ask.on(&mut transaction).unwrap();
    assert_eq!(late.status(), "queued");
    transaction.batch_execute(retire).unwrap();
    transaction.commit().unwrap();
    bench.until(&late, "refused");
    bench.exec("UPDATE dot_tools SET status = 'active'");

    let admitted = bench.ask(&ask);
    assert!(![first.id(), again.id(), late.id()].contains(&admitted.id()));
    bench.until(&admitted, "succeeded");
    assert_eq!(bench.ask(&ask).id(), admitted.id());

    let plan = Ask { mode: "plan", ..ask };
    let (one, two) = (bench.ask(&plan), bench.ask(&plan));
    assert_eq!((one.status(), two.status()), ("planned", "planned"));
    assert_ne!(one.id(), two.id());
    bench.drain();
    assert_eq!(bench.agent.count(), 1);
}

const RUN_ALL: &str = "SELECT run_id, code FROM fn_dot_run_all('{}', 'apply', $1)";

fn many_tools(bench: &Bench, tools: i32) {
    let sql = "INSERT INTO dot_tools (code, name, status, execution_engine)
               SELECT 'MANY-' || i, 'many', 'active', 'agent_api' FROM generate_series(1, $1) i";
    bench.session().execute(sql, &[&tools]).unwrap();
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE name = 'agent_api'");
}

/// The server's table of locks has room for some hundred here, and it is everybody's.
#[test]
fn invariant_05_never_twice_thousands_of_tools_of_one_process_run_take_few_locks() {
    let bench = Bench::own(&["max_locks_per_transaction = 10", "dot_wrapper.worker_enabled = off"]);
    many_tools(&bench, 3_200);
    let process = Uuid::now_v7();
    let mut session = bench.connect();
    let mut all = session.transaction().unwrap();
    let made = all.query(RUN_ALL, &[&process]).unwrap();
    assert!(made.len() > 3_200, "{}", made.len());
    let held = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()";
    let held: i64 = all.query_one(held, &[]).unwrap().get(0);
    assert!(held < 150, "{held}");
    all.commit().unwrap();
    let rows = "SELECT count(*) FROM dot_wrapper.dot_run WHERE process_run_id = $1 AND run_status = 'queued'";
    assert_eq!(bench.one::<i64>(rows, &[&process]), i64::try_from(made.len()).unwrap());
}

/// Whichever comes first: the other waits, and finds its run.
#[test]
fn invariant_05_never_twice_one_call_and_one_for_all_tools_at_the_same_time_make_one_run() {
    let bench = Bench::shared();
    many_tools(&bench, 40);
    let waits = |what: &str| {
        let sql = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                                  WHERE NOT l.granted AND l.locktype = 'advisory' AND d.datname = current_database())";
        until(what, || bench.one::<bool>(sql, &[]).then_some(()));
    };
    let one = |process, session: &mut postgres::Client| {
        Ask { process: Some(process), ..Ask::new("MANY-7", "apply") }.on(session).unwrap().id()
    };
    let of_all = |rows: Vec<postgres::Row>| -> Uuid {
        rows.iter().find(|row| row.get::<_, &str>(1) == "MANY-7").map(|row| row.get(0)).unwrap()
    };
    std::thread::scope(|scope| {
        let (process, mut first, mut second) = (Uuid::now_v7(), bench.connect(), bench.connect());
        first.batch_execute("BEGIN").unwrap();
        let made = of_all(first.query(RUN_ALL, &[&process]).unwrap());
        let other = scope.spawn(move || one(process, &mut second));
        waits("the single call waits for the one for all");
        // Its own calls go on.
        assert_eq!(one(process, &mut first), made);
        first.batch_execute("COMMIT").unwrap();
        assert_eq!(other.join().unwrap(), made);
    });
    std::thread::scope(|scope| {
        let (process, mut first, mut second) = (Uuid::now_v7(), bench.connect(), bench.connect());
        first.batch_execute("BEGIN").unwrap();
        let made = one(process, &mut first);
        let other = scope.spawn(move || of_all(second.query(RUN_ALL, &[&process]).unwrap()));
        waits("the call for all waits for the single one");
        // It is before the one that waits for it.
        assert_eq!(of_all(first.query(RUN_ALL, &[&process]).unwrap()), made);
        first.batch_execute("COMMIT").unwrap();
        assert_eq!(other.join().unwrap(), made);
    });
}
