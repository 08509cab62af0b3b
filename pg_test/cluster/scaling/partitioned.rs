//! What PostgreSQL would do with a partitioned ledger: keys, pruning and triggers, on copies of its tables.

use uuid::Uuid;

use crate::harness::Bench;

const SCHEMA: &str = include_str!("partitioned.sql");

/// The copies, with a run of each of four months in each of them; their ids.
fn filled() -> (Bench, Vec<Uuid>) {
    let bench = Bench::shared();
    bench.exec(SCHEMA);
    let done = bench.until(&bench.apply("DOT-1"), "succeeded");
    let mut runs = Vec::new();
    for month in 1..=4 {
        let sql =
            "SELECT overlay(by_time.bound(make_timestamptz(2026, $1, 15, 0, 0, 0))::text placing '7' from 15)::uuid";
        let run: Uuid = bench.one(sql, &[&month]);
        for schema in ["by_time", "by_process"] {
            bench.exec(&format!(
                "INSERT INTO {schema}.dot_run SELECT (jsonb_populate_record(r, jsonb_build_object(
                     'run_id', '{run}', 'process_run_id', gen_random_uuid()))).*
                 FROM dot_wrapper.dot_run r WHERE run_id = '{}'",
                done.id()
            ));
        }
        runs.push(run);
    }
    (bench, runs)
}

/// The partitions that a statement's plan visits when it is executed with these runs, as SPI would with a kept plan.
fn visited(bench: &Bench, kept: bool, sql: &str, runs: &[Uuid]) -> Vec<String> {
    let mode = if kept { "force_generic_plan" } else { "force_custom_plan" };
    let ids = runs.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
    bench.exec(&format!("SET plan_cache_mode = {mode}; PREPARE s (uuid[]) AS {sql}"));
    let plan: serde_json::Value = bench.one(&format!("EXPLAIN (ANALYZE, FORMAT json) EXECUTE s ('{{{ids}}}')"), &[]);
    bench.exec("DEALLOCATE s; RESET plan_cache_mode");
    let mut found = Vec::new();
    collect(&plan, &mut found);
    found.sort();
    found.dedup();
    found
}

fn collect(node: &serde_json::Value, found: &mut Vec<String>) {
    if let (Some(name), true) = (node["Relation Name"].as_str(), node["Actual Loops"].as_f64().is_some_and(|n| n > 0.0))
    {
        found.push(name.to_owned());
    }
    match node {
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
        _ => {}
    }
}

#[test]
fn by_time_a_list_of_runs_visits_their_months_alone_but_a_kept_plan_only_by_a_join() {
    let (bench, runs) = filled();
    let listed = "SELECT r.run_status FROM by_time.dot_run r WHERE r.run_id = ANY ($1)";
    let joined = "SELECT r.run_status FROM unnest($1) AS x (run_id) JOIN by_time.dot_run r USING (run_id)";
    let all = ["dot_run_1", "dot_run_2", "dot_run_3", "dot_run_4"];
    bench.exec("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off");
    assert_eq!(visited(&bench, false, listed, &runs[1..2]), ["dot_run_2"]);
    assert_eq!(visited(&bench, false, listed, &runs[2..]), ["dot_run_3", "dot_run_4"]);
    // Whoever keeps plans across calls writes it the second way.
    assert_eq!(visited(&bench, true, listed, &runs[1..2]), all);
    assert_eq!(visited(&bench, true, joined, &runs[1..2]), ["dot_run_2"]);
    // By process run, a run's id alone says nothing of where it is.
    let elsewhere = "SELECT r.run_status FROM unnest($1) AS x (run_id) JOIN by_process.dot_run r USING (run_id)";
    assert_eq!(visited(&bench, true, elsewhere, &runs[1..2]).len(), 4);
}

#[test]
fn the_key_of_invariant_5_spans_partitions_by_process_run_and_needs_a_table_by_time() {
    let (bench, _) = filled();
    let error = bench
        .error("CREATE UNIQUE INDEX ON by_time.dot_run (process_run_id, code, mode, idempotency_key) WHERE admitted");
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    // The same key again, by process run: found by the statement that fn_dot_run uses, refused to one that does not look.
    let again = "INSERT INTO by_process.dot_run SELECT (jsonb_populate_record(r, jsonb_build_object(
                     'run_id', gen_random_uuid()))).* FROM by_process.dot_run r";
    assert_eq!(bench.error(again).code().code(), "23505");
    let quietly = format!(
        "WITH x AS ({again} ON CONFLICT (process_run_id, code, mode, idempotency_key) WHERE admitted DO NOTHING RETURNING 1)
         SELECT count(*) FROM x"
    );
    assert_eq!(bench.one::<i64>(&quietly, &[]), 0);
    // By time a table beside it holds the key, for as long as the run is admitted.
    let take =
        "INSERT INTO by_time.dot_run_key SELECT r.process_run_id, r.code, r.mode, r.idempotency_key, gen_random_uuid()
                FROM by_time.dot_run r";
    bench.exec(take);
    assert_eq!(bench.error(take).code().code(), "23505");
}

#[test]
fn statement_triggers_guard_the_partition_that_they_are_on_and_nobody_guards_a_detach() {
    let (bench, _) = filled();
    for sql in ["DELETE FROM by_time.dot_run", "TRUNCATE by_time.dot_run", "DELETE FROM by_time.dot_run_1"] {
        assert_eq!(bench.error(sql).code().code(), "55000", "{sql}");
    }
    // A row trigger is there in each partition.
    let error = bench.error("UPDATE by_time.dot_run_2 SET reason = 'other'");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    // One without its own statement trigger loses its rows, and any can be detached.
    bench.exec("DELETE FROM by_time.dot_run_2");
    bench.exec("ALTER TABLE by_time.dot_run DETACH PARTITION by_time.dot_run_1");
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM by_time.dot_run", &[]), 2);
}
