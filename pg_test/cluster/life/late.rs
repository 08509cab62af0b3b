//! Substrate functions that do not answer: each is waited for three seconds, blocks what asked, and holds up nobody else.

use std::time::{Duration, Instant};

use crate::harness::{Bench, until};

/// Makes a function that is asked by every run sleep for ever.
fn hang(bench: &Bench, function: &str, result: &str) {
    bench.exec(&format!(
        "CREATE OR REPLACE FUNCTION {function}() RETURNS {result} LANGUAGE plpgsql AS
             $f$ BEGIN PERFORM pg_sleep(1e6); RETURN{}; END $f$",
        if result == "void" { "" } else { " true" }
    ));
}

const GUARD: (&str, &str) = ("fn_assert_safe_for_dot_action", "void");
const TOGGLE: (&str, &str) = ("fn_dot_iu_operator_runtime_enabled", "boolean");

#[test]
fn a_gate_that_hangs_at_the_second_asking_blocks_with_its_reason() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    for ((function, result), reason) in [(TOGGLE, "toggle_error"), (GUARD, "guard_error")] {
        let runs = [bench.apply("DOT-1"), bench.apply("DOT-2")];
        let definition: String = bench.one(&format!("SELECT pg_get_functiondef('{function}()'::regprocedure)"), &[]);
        hang(&bench, function, result);
        bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
        for run in &runs {
            let run = bench.until(run, "refused");
            assert_eq!(run.reason(), reason, "{run:?}");
            assert!(run.text("message").contains("did not answer within 3 s"), "{run:?}");
        }
        // Nothing is left of it: the next run goes out.
        bench.exec(&definition);
        bench.until(&bench.apply("DOT-1"), "succeeded");
        bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
        until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    }
    assert_eq!(bench.agent.count(), 2);
}

/// One lease that is not given in time is the trouble of the run that wants it.
#[test]
fn a_lease_that_is_not_given_in_time_holds_up_no_other() {
    let bench = Bench::own(&["dot_wrapper.worker_enabled = off"]);
    let [slow, quick] = [bench.apply("DOT-1"), bench.apply("DOT-2")];
    bench.exec(
        "CREATE FUNCTION slow_lease(key text, holder text, ttl interval) RETURNS boolean LANGUAGE plpgsql
             SET search_path = public, pg_temp AS $f$ BEGIN
                 IF key = 'tool:DOT-1' THEN PERFORM pg_sleep(1e6); END IF;
                 RETURN fn_dot_iu_runtime_lease_acquire(key, holder, ttl) IS NOT NULL;
             END $f$;
         SELECT fn_dot_bind('lease_acquire', 'slow_lease(text, text, interval)')",
    );
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    assert_eq!(bench.until(&slow, "refused").reason(), "lease_error");
    bench.until(&quick, "succeeded");
}

/// The caller waits as long, and can end that sooner by the usual means.
#[test]
fn a_gate_that_hangs_at_the_first_asking_refuses_and_can_be_cancelled() {
    let bench = Bench::shared();
    hang(&bench, GUARD.0, GUARD.1);
    let started = Instant::now();
    let run = bench.apply("DOT-1");
    assert_eq!((run.status(), run.reason()), ("refused", "guard_error"), "{run:?}");
    assert!(run.text("message").contains("did not answer within 3 s"), "{run:?}");
    assert!(started.elapsed() >= Duration::from_secs(3));

    let call = "SELECT fn_dot_run('DOT-1', 'apply')";
    bench.exec("SET statement_timeout = '200ms'");
    let error = bench.error(call);
    assert_eq!((error.code().code(), error.message()), ("57014", "canceling statement due to statement timeout"));
    bench.exec("RESET statement_timeout");

    let mut session = bench.connect();
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let waits = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1";
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| session.batch_execute(call).unwrap_err());
        until("the guard sleeps", || bench.one::<Option<bool>>(waits, &[&pid]).filter(|sleeps| *sleeps));
        assert!(bench.one::<bool>("SELECT pg_cancel_backend($1)", &[&pid]));
        let error = caller.join().unwrap();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("57014", "canceling statement due to user request"));
    });
    // The limit ended with the call.
    session.batch_execute("SELECT pg_sleep(3.2)").unwrap();
}

/// A function that does not let itself be cancelled is late all the same, and what it did is undone.
#[test]
fn an_answer_that_comes_too_late_is_none() {
    let bench = Bench::shared();
    bench.exec(
        "CREATE TABLE trace (n int);
         CREATE OR REPLACE FUNCTION fn_assert_safe_for_dot_action() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN
             INSERT INTO public.trace VALUES (1);
             BEGIN PERFORM pg_sleep(1e6); EXCEPTION WHEN query_canceled THEN NULL; END;
         END $f$",
    );
    let run = bench.apply("DOT-1");
    assert_eq!((run.status(), run.reason()), ("refused", "guard_error"), "{run:?}");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM trace", &[]), 0);
}
