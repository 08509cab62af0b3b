//! The catalogue's counters: `usage_count` and `last_executed` move with apply and verify, and with nothing else.

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

fn count(bench: &Bench, code: &str) -> i64 {
    bench.one("SELECT usage_count FROM dot_tools WHERE code = $1", &[&code])
}

#[track_caller]
fn becomes(bench: &Bench, code: &str, wanted: i64) {
    until("the counter has moved", || (count(bench, code) >= wanted).then_some(()));
    assert_eq!(count(bench, code), wanted, "{code}");
}

#[test]
fn counters_move_with_every_execution() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    becomes(&bench, "DOT-1", 1);
    let first: String = bench.one("SELECT last_executed::text FROM dot_tools WHERE code = 'DOT-1'", &[]);
    bench.until(&bench.verify("DOT-1"), "succeeded");
    becomes(&bench, "DOT-1", 2);
    let later = "SELECT last_executed > $1::text::timestamptz AND last_executed <= clock_timestamp() FROM dot_tools WHERE code = 'DOT-1'";
    assert!(bench.one::<bool>(later, &[&first]));

    // Executions that failed, or that nobody knows the end of, were executions.
    bench.agent.reply(Reply::ended("failed"));
    bench.until(&bench.apply("DOT-2"), "failed");
    becomes(&bench, "DOT-2", 1);
    bench.agent.reply(Reply::Close);
    bench.until(&bench.apply("DOT-3"), "in_doubt");
    becomes(&bench, "DOT-3", 1);
}

#[test]
fn counters_do_not_move_for_plans_refusals_and_what_was_not_sent() {
    let bench = Bench::shared();
    bench.ask(&Ask::new("DOT-1", "plan"));
    bench.exec("INSERT INTO dot_wrapper.policy (scope, name, modes) VALUES ('tool', 'DOT-2', '{apply}')");
    assert_eq!(bench.verify("DOT-2").status(), "refused");
    // A port where nobody listens.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.exec(&format!(
        "INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('nobody', 'http://127.0.0.1:{unused}');
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {unused}, '{{127.0.0.1/32}}');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('tool', 'DOT-3', 'nobody')"
    ));
    assert_eq!(bench.until(&bench.apply("DOT-3"), "failed").reason(), "connect_failed");
    // The canary is counted after all of them.
    bench.drain();
    becomes(&bench, crate::harness::agent::CANARY, 1);
    let moved =
        "SELECT count(*) FROM dot_tools WHERE code LIKE 'DOT-_' AND (usage_count <> 0 OR last_executed IS NOT NULL)";
    assert_eq!(bench.one::<i64>(moved, &[]), 0);
}

/// A catalogue that does not want to be counted holds up neither the end of a run nor the next one.
#[test]
fn counters_that_cannot_move_are_owed_and_paid_later() {
    let bench = Bench::shared();
    bench.exec(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
         CREATE TRIGGER no BEFORE UPDATE ON dot_tools FOR EACH ROW EXECUTE FUNCTION no()",
    );
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.drain();
    assert_eq!(count(&bench, "DOT-1"), 0);
    let owed: i64 = bench.one("SELECT executions FROM dot_wrapper.usage_debt WHERE code = 'DOT-1'", &[]);
    assert_eq!(owed, 2);
    bench.exec("DROP TRIGGER no ON dot_tools");
    becomes(&bench, "DOT-1", 2);
}
