//! A ledger with runs in every state, and what fn_dot_verify says of it.

use postgres::GenericClient;
use serde_json::json;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, until};

/// A row of fn_dot_verify.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub kind: String,
    /// The run.
    pub run_id: Option<Uuid>,
    /// The number of the event, attempt or seal.
    pub item: Option<i64>,
    /// In one word.
    pub verdict: String,
    /// In more.
    pub detail: String,
}

/// What fn_dot_verify says of the whole ledger.
#[track_caller]
pub fn verify(session: &mut impl GenericClient) -> Vec<Finding> {
    found(session, "")
}

/// The same with arguments, as they stand in the call.
#[track_caller]
pub fn found(session: &mut impl GenericClient, arguments: &str) -> Vec<Finding> {
    let sql = format!("SELECT kind, run_id, item, verdict, detail FROM public.fn_dot_verify({arguments})");
    let rows = session.query(&sql, &[]).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let read = |row: &postgres::Row| Finding {
        kind: row.get(0),
        run_id: row.get(1),
        item: row.get(2),
        verdict: row.get(3),
        detail: row.get(4),
    };
    rows.iter().map(read).collect()
}

/// Returns when everything is sealed, which has to be in order then; the summary.
#[track_caller]
pub fn all_sealed(bench: &Bench) -> String {
    let summary = until("everything is sealed", || {
        let found = verify(&mut *bench.session());
        assert_eq!((found.len(), found[0].verdict.as_str()), (1, "OK"), "{found:#?}");
        Some(found[0].detail.clone()).filter(|detail| !detail.contains("not sealed yet"))
    });
    let head: i64 = bench.one("SELECT seal_id FROM fn_dot_seal_head()", &[]);
    assert!(summary.contains(&format!("the newest seal is {head} with")), "{summary}");
    summary
}

/// Runs in every state.
pub fn furnish(bench: &Bench) {
    bench.exec(
        "INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', 'DOT-2', 'none'), ('tool', 'DOT-3', 'none');
         INSERT INTO dot_wrapper.policy (scope, name, lease, idempotent, retry_base_ms) VALUES ('tool', 'DOT-4', 'none', true, 1);
         INSERT INTO dot_wrapper.policy (scope, name, lease, start_by_s) VALUES ('tool', 'DOT-5', 'none', 1);
         INSERT INTO dot_wrapper.policy (scope, name, lease, total_timeout_ms) VALUES ('tool', 'DOT-6', 'none', 3600000);",
    );
    for n in 0..3 {
        let args = json!({"n": n, "text": "é \"q\" \\ 🔧", "number": 1.50, "deep": [null, {"a": true}]});
        let run = bench.ask(&Ask { args, ..Ask::new("DOT-1", ["apply", "verify", "apply"][n]) });
        bench.until(&run, "succeeded");
    }
    bench.ask(&Ask::new("DOT-1", "plan"));
    bench.ask(&Ask::new("DOT-NONE", "plan"));
    bench.ask(&Ask::new("DOT-NONE", "apply"));
    bench.exec("SELECT fn_dot_run_all('{\"execution_engine\": \"agent_api\"}', 'plan')");
    bench.agent.plan(|request| match (request.field("dot_code"), request.body["attempt"].as_i64()) {
        ("DOT-2", _) => Reply::ended("failed"),
        ("DOT-3", _) => Reply::Close,
        ("DOT-4", Some(1)) => Reply::Json(503, json!({})),
        ("DOT-6", _) => Reply::Hold,
        _ => Reply::succeeded(),
    });
    let [failed, doubted, repeated, held] = ["DOT-2", "DOT-3", "DOT-4", "DOT-6"].map(|code| bench.apply(code));
    bench.until(&failed, "failed");
    bench.until(&doubted, "in_doubt");
    assert_eq!(bench.until(&repeated, "succeeded").0["attempts"], 2);
    bench.until(&held, "running");
    waiting(bench, "DOT-2");
    let withdrawn = waiting(bench, "DOT-3");
    bench.session().query("SELECT fn_dot_cancel($1, 'not needed')", &[&withdrawn]).unwrap();
    let late = waiting(bench, "DOT-5");
    until("its time is up", || {
        bench.one::<bool>("SELECT start_by < now() FROM dot_wrapper.dot_run WHERE run_id = $1", &[&late]).then_some(())
    });
    bench
        .session()
        .execute("UPDATE dot_wrapper.dot_queue SET available_at = '-infinity' WHERE run_id = $1", &[&late])
        .unwrap();
    bench.look();
    let statuses: Vec<String> = bench.all("SELECT DISTINCT run_status FROM dot_wrapper.dot_run ORDER BY 1", &[]);
    let all = ["cancelled", "expired", "failed", "in_doubt", "planned", "queued", "refused", "running", "succeeded"];
    assert_eq!(statuses, all);
}

/// A run that stays in the queue.
fn waiting(bench: &Bench, code: &str) -> Uuid {
    let mut session = bench.session();
    let mut transaction = session.transaction().unwrap();
    let run = Ask::new(code, "apply").on(&mut transaction).unwrap();
    let sql = "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = $1";
    transaction.execute(sql, &[&run.id()]).unwrap();
    transaction.commit().unwrap();
    run.id()
}
