//! Settings: those of the extension, which a reload applies, and those that somebody plants for the worker.

use std::time::{Duration, Instant};

use crate::harness::bench::TOOLS;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, os, until};

#[test]
fn a_reload_applies_max_in_flight() {
    let bench = Bench::own(&["dot_wrapper.max_in_flight = 2"]);
    bench.agent.reply(Reply::Hold);
    let runs: Vec<_> = TOOLS.iter().map(|code| bench.apply(code)).collect();
    bench.agent.wait_for(2);
    holds("two are out", Duration::from_millis(300), || bench.agent.count() == 2);
    bench.cluster.set(&[("dot_wrapper.max_in_flight", "5")]);
    let requests = bench.agent.wait_for(5);
    holds("five are out", Duration::from_millis(300), || bench.agent.count() == 5);
    // Less takes nothing back, and room is made again by what ends.
    bench.cluster.set(&[("dot_wrapper.max_in_flight", "1")]);
    for request in &requests[..4] {
        bench.agent.release(request, Reply::succeeded());
    }
    holds("one is out", Duration::from_millis(300), || bench.agent.count() == 5);
    bench.agent.reply(Reply::succeeded());
    bench.agent.release(&requests[4], Reply::succeeded());
    for run in &runs {
        bench.until(run, "succeeded");
    }
}

/// Whoever owns the database or administers the role cannot make the worker do otherwise by settings.
#[test]
fn planted_settings_do_not_reach_the_worker() {
    let bench = Bench::own(&[]);
    let planted = [
        "search_path = 'evil'",
        "role = 'pg_monitor'",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "idle_session_timeout = '1ms'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "default_transaction_deferrable = on",
        "row_security = off",
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
        "timezone = 'Asia/Ho_Chi_Minh'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "transform_null_equals = on",
        "extra_float_digits = -15",
        "client_encoding = 'LATIN1'",
        "client_min_messages = 'debug5'",
        "work_mem = '64kB'",
        "enable_indexscan = off",
    ];
    let mut session = bench.connect();
    for setting in planted {
        session.batch_execute(&format!("ALTER ROLE dot_wrapper_worker SET {setting}")).unwrap();
        session.batch_execute(&format!("ALTER DATABASE {} SET {setting}", bench.name)).unwrap();
    }
    let old = bench.worker();
    assert!(os::signal(old, "TERM"));
    until("there is another worker", || bench.worker_now().filter(|pid| *pid != old));
    // The bench's own session is older than the settings.
    let run = bench.until(&bench.apply("DOT-1"), "succeeded");
    assert_eq!(bench.agent.requests()[0].run_id(), Some(run.id()));
    bench.until(&bench.verify("DOT-2"), "succeeded");
    until("the counter has moved", || {
        (bench.one::<i64>("SELECT sum(usage_count)::bigint FROM dot_tools", &[]) == 2).then_some(())
    });
    let worker = bench.worker();
    bench.drain();
    assert_eq!(bench.worker(), worker);
}

#[test]
fn a_worker_does_not_run_as_more_than_an_ordinary_role() {
    let bench = Bench::own(&[]);
    bench.drain();
    for (attribute, word) in [("SUPERUSER", "superuser"), ("BYPASSRLS", "BYPASSRLS"), ("CREATEROLE", "CREATEROLE")] {
        bench.exec(&format!("ALTER ROLE dot_wrapper_worker {attribute}"));
        assert!(os::signal(bench.worker(), "TERM"));
        let detail = "SELECT detail FROM fn_dot_doctor() WHERE check_name = 'worker' AND verdict = 'BLOCK'";
        until("the doctor tells why there is no worker", || {
            bench.all::<String>(detail, &[]).pop().filter(|detail| detail.contains(word))
        });
        let before = bench.agent.count();
        let run = bench.apply("DOT-1");
        assert_eq!(bench.worker_now(), None);
        bench.exec(&format!("ALTER ROLE dot_wrapper_worker NO{attribute}"));
        bench.until(&run, "succeeded");
        assert_eq!(bench.agent.count(), before + 1);
    }
}

#[test]
fn a_switched_off_worker_leaves_and_what_was_admitted_waits() {
    let bench = Bench::own(&[]);
    bench.drain();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let run = bench.apply("DOT-1");
    bench.crash();
    assert_eq!(bench.run(run.id()).status(), "queued", "a crash leaves it as it is");
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    bench.until(&run, "succeeded");
}

/// Whoever switches workers off and on again does not wait for the calls that are out meanwhile.
#[test]
fn a_worker_that_is_about_to_leave_stays_when_it_is_switched_on_again() {
    let bench = Bench::own(&[]);
    bench.agent.reply(Reply::Hold);
    let out = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    let worker = bench.worker();
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    bench.agent.reply(Reply::succeeded());
    // The worker hears of it a moment later: until then it goes on sending.
    let waiting = until("the worker takes up nothing more", || {
        let run = bench.apply("DOT-2");
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end && bench.run(run.id()).status() == "queued" {}
        let is_left = bench.run(run.id()).status() == "queued";
        if !is_left {
            bench.until(&run, "succeeded");
        }
        is_left.then_some(run)
    });
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    bench.until(&waiting, "succeeded");
    assert_eq!((bench.run(out.id()).status(), bench.worker()), ("running", worker));
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&out, "succeeded");
    assert_eq!(bench.worker(), worker);
}
