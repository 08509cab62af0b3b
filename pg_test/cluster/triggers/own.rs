//! What a trigger of ours does not do: run for what dot_wrapper itself writes, or for a table that is not the bound one.

use std::sync::{Arc, Mutex};

use super::{bound, runs, synced};
use crate::harness::{Bench, until};

/// What the server warned of while these statements ran.
fn warnings(bench: &Bench, user: &str, sql: &str) -> Vec<String> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut config = bench.cluster.config(&bench.name, user);
    let listener = Arc::clone(&heard);
    config.notice_callback(move |notice| listener.lock().unwrap().push(notice.message().to_owned()));
    config.connect(postgres::NoTls).unwrap().batch_execute(sql).unwrap();
    let heard = heard.lock().unwrap();
    heard.clone()
}

#[test]
fn the_counters_of_a_run_are_no_event_of_the_catalogue() {
    let bench = Bench::shared();
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'event';
         INSERT INTO dot_wrapper.trigger_binding (code, relation) VALUES ('DOT-1', 'public.dot_tools')",
    );
    assert_eq!(synced(&mut bench.session()), ["DOT-1|public.dot_tools|dot_wrapper:DOT-1|created"]);
    bench.exec("UPDATE dot_tools SET name = 'other' WHERE code = 'DOT-2'");
    bench.until(&runs(&bench)[0], "succeeded");
    let counted = "SELECT usage_count FROM dot_tools WHERE code = 'DOT-1'";
    until("it is counted", || (bench.one::<i64>(counted, &[]) == 1).then_some(()));
    bench.drain();
    assert_eq!((runs(&bench).len(), bench.agent.count()), (1, 1));
}

#[test]
fn what_a_guard_writes_is_no_event() {
    let bench = bound("", "");
    bench.exec(
        "CREATE OR REPLACE FUNCTION fn_assert_safe_for_dot_action() RETURNS void LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.t SELECT count(*) FROM public.t; END'",
    );
    bench.exec("INSERT INTO t VALUES (100)");
    assert_eq!(runs(&bench).len(), 1);
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM t WHERE id < 100", &[]), 1);
}

/// No sync would put a trigger there; somebody who may can.
#[test]
fn what_keeps_the_request_table_up_is_no_event() {
    let bench = Bench::shared();
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'event';
         INSERT INTO dot_wrapper.trigger_binding (code, relation) VALUES ('DOT-1', 'public.dot_run_request');
         CREATE TRIGGER mine AFTER UPDATE ON dot_run_request FOR EACH STATEMENT
             EXECUTE FUNCTION dot_wrapper.fire('DOT-1', 'public.dot_run_request');
         INSERT INTO dot_run_request (code, mode) VALUES ('DOT-2', 'apply')",
    );
    let status = "SELECT run_status FROM dot_run_request";
    until("the request is followed", || (bench.one::<String>(status, &[]) == "succeeded").then_some(()));
    bench.drain();
    assert_eq!((runs(&bench).len(), bench.agent.count()), (0, 1));
}

#[test]
fn a_trigger_by_hand_fires_nothing_that_is_not_bound_and_says_so() {
    let bench = bound("per", "'row'");
    let stranger = bench.role("stranger");
    bench.exec(&format!(
        "GRANT USAGE ON SCHEMA dot_wrapper TO {stranger}; GRANT EXECUTE ON FUNCTION dot_wrapper.fire TO {stranger};
         CREATE SCHEMA theirs AUTHORIZATION {stranger}"
    ));
    let by_hand = |arguments: &str, each: &str| {
        let sql = format!(
            "CREATE TABLE theirs.t (id int PRIMARY KEY);
             CREATE TRIGGER mine AFTER INSERT ON theirs.t FOR EACH {each} EXECUTE FUNCTION dot_wrapper.fire({arguments});
             INSERT INTO theirs.t VALUES (1); DROP TABLE theirs.t"
        );
        warnings(&bench, &stranger, &sql)
    };
    let says = |why: &str| vec![format!("trigger mine runs nothing: {why}")];
    assert_eq!(by_hand("'DOT-1', 'public.t'", "ROW"), says("the table has another name"));
    assert_eq!(by_hand("'DOT-1', 'theirs.t'", "ROW"), says("nothing binds it any more"));
    assert_eq!(by_hand("", "ROW"), says("it has other arguments"));
    // On the bound table itself, only what is bound.
    bench.exec("CREATE TRIGGER mine AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.fire('DOT-1', 'public.t')");
    assert_eq!(warnings(&bench, "postgres", "INSERT INTO t VALUES (1)"), says("it is bound otherwise"));
    assert_eq!(runs(&bench).len(), 1);
    let swept = synced(&mut bench.session());
    assert_eq!(swept, ["DOT-1|public.t|dot_wrapper:DOT-1|kept", "public.t|mine|removed|nothing binds it any more"]);

    bench.exec("ALTER TABLE t RENAME TO moved");
    let told = warnings(&bench, "postgres", "INSERT INTO moved VALUES (2)");
    assert_eq!(told, ["trigger dot_wrapper:DOT-1 runs nothing: the table has another name"]);
    assert_eq!(runs(&bench).len(), 1);
}
