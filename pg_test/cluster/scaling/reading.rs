//! A list of runs costs what the list costs, whatever the ledger has grown to.

use uuid::Uuid;

use crate::harness::Bench;

/// So many runs beside the ones that are asked about.
const OTHERS: i32 = 6000;

/// The ledger of one run many times over.
fn grown(bench: &Bench, model: Uuid) {
    bench.exec(&format!(
        "CREATE TABLE ids AS SELECT gen_random_uuid() AS run_id, gen_random_uuid() AS process FROM generate_series(1, {OTHERS});
         INSERT INTO dot_wrapper.dot_run SELECT (jsonb_populate_record(r, jsonb_build_object(
             'run_id', i.run_id, 'process_run_id', i.process))).* FROM dot_wrapper.dot_run r, ids i WHERE r.run_id = '{model}';
         INSERT INTO dot_wrapper.dot_run_event (run_id, event, attempt, from_status, to_status, detail)
             SELECT i.run_id, e.event, e.attempt, e.from_status, e.to_status, e.detail
             FROM dot_wrapper.dot_run_event e, ids i WHERE e.run_id = '{model}' ORDER BY i.run_id, e.event_id;
         INSERT INTO dot_wrapper.dot_run_attempt SELECT i.run_id, a.attempt, a.intent_at, a.deadline, a.worker, a.fencing_token
             FROM dot_wrapper.dot_run_attempt a, ids i WHERE a.run_id = '{model}'"
    ));
    for table in ["dot_run", "dot_run_event", "dot_run_attempt"] {
        bench.exec(&format!("ANALYZE dot_wrapper.{table}"));
    }
}

/// Pages that a statement looks at. The second time: the first one also counts the catalogue's, where a function in it is new to the
/// session, or somebody's change has made it forget what it knew.
fn pages(bench: &Bench, sql: &str) -> i64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {sql}");
    let look = || {
        let plan: serde_json::Value = bench.one(&explain, &[]);
        let top = &plan[0]["Plan"];
        top["Shared Hit Blocks"].as_i64().unwrap() + top["Shared Read Blocks"].as_i64().unwrap()
    };
    look().min(look())
}

#[test]
fn a_list_of_runs_is_read_without_the_rest_of_the_ledger() {
    let bench = Bench::shared();
    let model = bench.until(&bench.apply("DOT-1"), "succeeded").id();
    grown(&bench, model);
    let whole = pages(&bench, "SELECT * FROM dot_wrapper.dot_run");
    assert!(whole > 1000, "{whole} pages are not much to read");
    let all: i64 = bench.one("SELECT count(*) FROM dot_run_event e JOIN ids USING (run_id)", &[]);
    assert_eq!(all, i64::from(OTHERS) * 3);
    for view in ["dot_run", "dot_run_event", "dot_run_attempt", "dot_run_gate"] {
        for (list, most) in [
            ("(SELECT run_id FROM ids LIMIT 1)".to_owned(), 40),
            ("ANY (ARRAY(SELECT run_id FROM ids LIMIT 20))".to_owned(), 400),
        ] {
            let sql = format!("SELECT * FROM {view} WHERE run_id = {list}");
            let read = pages(&bench, &sql);
            assert!(read <= most, "{read} pages of {whole} for {sql}");
        }
    }
    // The newest ones come in the order of their index.
    let read = pages(&bench, "SELECT * FROM dot_observation LIMIT 50");
    assert!(read <= 400, "{read} pages of {whole}");
}
