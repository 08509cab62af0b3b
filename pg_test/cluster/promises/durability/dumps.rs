//! D6: dump and restore keep catalogue, grants, ledger, events and id counters, and nothing is executed on the restored
//! copy until an operator resumes it.

use std::time::Duration;

use crate::harness::bench::Params;
use crate::harness::run::Ask;
use crate::harness::wait::holds;
use crate::harness::{Bench, Reply, Run, figure, os, rounds, until};

const PENDING: usize = 50;
const IN_DOUBT: usize = 5;
const NO_PARAMS: Params<'_> = &[];

/// What has to arrive as it was. The queue by its own columns: what else it holds is made anew when it is resumed.
const TABLES: [&str; 12] = [
    "dot_wrapper.dot_run",
    "dot_wrapper.dot_run_attempt",
    "dot_wrapper.dot_run_event",
    "dot_wrapper.dot_queue",
    "dot_wrapper.usage_debt",
    "dot_wrapper.endpoint",
    "dot_wrapper.egress_rule",
    "dot_wrapper.policy",
    "dot_tools",
    "dot_config",
    "dot_wrapper.ancestry",
    "dot_wrapper.port",
];

/// A checksum of each table, and what may do what with it.
fn checksums(bench: &Bench) -> Vec<String> {
    let sum = |table: &&str| {
        let sql = format!(
            "SELECT concat_ws(' ', '{table}', count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text COLLATE \"C\"))) FROM {table} t"
        );
        bench.one::<String>(&sql, NO_PARAMS)
    };
    TABLES.iter().map(sum).collect()
}

/// What the next numbers are, and the largest ones that were given.
const NUMBERS: &str = "SELECT ARRAY[
    nextval('dot_wrapper.dot_run_event_event_id_seq'), (SELECT max(event_id) FROM dot_wrapper.dot_run_event),
    nextval('dot_wrapper.dot_queue_seq_seq'), (SELECT max(seq) FROM dot_wrapper.dot_queue),
    nextval('dot_wrapper.fencing_token_seq'), (SELECT max(fencing_token) FROM dot_wrapper.dot_run),
    nextval('dot_wrapper.egress_rule_id_seq'), (SELECT max(id) FROM dot_wrapper.egress_rule)]";

/// A database with something of everything, whose worker has been switched off.
fn full(rows: usize) -> (Bench, Vec<Run>, Vec<Run>) {
    let bench = Bench::own(&["dot_wrapper.max_in_flight = 100"]);
    let role = bench.role("reader");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {role}; GRANT SELECT ON dot_run TO {role}"));
    bench.until(&bench.apply("DOT-6"), "succeeded");
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none' WHERE scope = 'engine'");
    bench.agent.reply(Reply::Close);
    let doubts: Vec<Run> = (0..IN_DOUBT).map(|_| bench.apply("DOT-1")).collect();
    doubts.iter().for_each(|run| drop(bench.until(run, "in_doubt")));
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let pending: Vec<Run> = (0..PENDING).map(|_| bench.apply("DOT-2")).collect();
    let plans = (rows - PENDING - IN_DOUBT - 1) as i64;
    bench.one::<i64>("SELECT count(fn_dot_run('DOT-3', 'plan')) FROM generate_series(1, $1::bigint)", &[&plans]);
    bench.agent.reply(Reply::succeeded());
    (bench, doubts, pending)
}

#[test]
fn d6_a_restored_dump_has_everything_and_executes_nothing_until_it_is_resumed() {
    let rows = rounds(200, 1000);
    let (bench, doubts, pending) = full(rows);
    let file = bench.cluster.dir().join("d6");
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    let before = checksums(&bench);
    let privileges = "SELECT array_agg(a::text ORDER BY a::text) FROM (
        SELECT aclexplode(proacl) AS a FROM pg_proc WHERE proname LIKE 'fn\\_dot%'
        UNION ALL SELECT aclexplode(relacl) FROM pg_class WHERE relname LIKE 'dot\\_%') x";
    let granted: Vec<String> = bench.one(privileges, NO_PARAMS);

    let restored = Bench::empty(bench.cluster.clone());
    os::run(bench.cluster.client("pg_restore", &restored.name).args(["-e", "-d", &restored.name]).arg(&file));
    let after = checksums(&restored);
    let differ = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    // Ours has one row of its own besides: the database that it is in.
    let expected: Vec<_> = before.iter().filter(|line| !line.contains("ancestry")).collect();
    assert_eq!(after.iter().filter(|line| !line.contains("ancestry")).collect::<Vec<_>>(), expected);
    assert_eq!(differ, 1);
    assert_eq!(restored.one::<Vec<String>>(privileges, NO_PARAMS), granted);
    for pair in restored.one::<Vec<i64>>(NUMBERS, NO_PARAMS).chunks(2) {
        assert!(pair[0] > pair[1], "the next number is {}, the largest {}", pair[0], pair[1]);
    }

    // A worker comes, and looks, and does nothing; not for what is new either.
    let requests = bench.agent.count();
    let span = Duration::from_secs(rounds(2, 120) as u64);
    bench
        .cluster
        .connect("postgres")
        .batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS off", bench.name))
        .unwrap();
    restored.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    restored.worker();
    let fresh = restored.ask(&Ask::new("DOT-4", "apply"));
    assert_eq!(fresh.gate("worker").unwrap()["reason"], "suspended", "{fresh:?}");
    restored.look();
    holds("nothing is sent", span, || bench.agent.count() == requests);

    restored.exec("SELECT fn_dot_resume()");
    for run in pending.iter().chain([&fresh]) {
        restored.until(run, "succeeded");
    }
    assert_eq!(bench.agent.count(), requests + PENDING + 1);
    assert!(doubts.iter().all(|run| restored.run(run.id()).status() == "in_doubt"), "doubts stay");
    figure(
        "D6",
        &format!(
            "{rows} runs, {PENDING} of them queued, {IN_DOUBT} in doubt: {} of {} tables equal (the other names the copy), privileges equal, \
             4 counters ahead, 0 requests in {} s, all queued ones sent after fn_dot_resume()",
            TABLES.len() - differ,
            TABLES.len(),
            span.as_secs()
        ),
    );
}
