//! What the second gates say is on record in full, if only as a name where it is word for word what they said at the request;
//! the ledger's readers see no difference.

use serde_json::{Value, json};

use crate::harness::run::Ask;
use crate::harness::{Bench, Run, figure};

/// The gates that are asked twice, as the event has them when nothing has changed.
const NAMES: [&str; 7] = ["tool", "mode", "engine", "egress", "toggle", "guard", "lease"];

/// Admits a run that waits, does something, lets it go, and waits for its end. The change has been committed by then, so that
/// the worker has been told of it.
fn sent(bench: &Bench, change: &str) -> Run {
    let wait = "UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = RUN";
    let run = bench.between(&Ask { args: json!({"n": 1}), ..Ask::new("DOT-2", "apply") }, wait);
    bench.exec(&change.replace("RUN", &format!("'{}'", run.id())));
    bench.exec("UPDATE dot_wrapper.dot_queue SET available_at = '-infinity' WHERE available_at = 'infinity'");
    bench.look();
    bench.until(&run, "succeeded")
}

/// The second gates' decisions as they are kept.
fn kept(bench: &Bench, run: &Run) -> Vec<Value> {
    let sql = "SELECT detail -> 'gates' FROM dot_wrapper.dot_run_event WHERE run_id = $1 AND event = 'running'";
    bench.one::<Value>(sql, &[&run.id()]).as_array().unwrap().clone()
}

/// The same as a stage of the view shows them, less the position.
fn shown(bench: &Bench, run: &Run, stage: &str) -> Vec<Value> {
    bench.all(
        "SELECT jsonb_build_object('gate', gate, 'verdict', verdict, 'reason', reason, 'message', message, 'inputs', inputs)
         FROM dot_run_gate WHERE run_id = $1 AND stage = $2 AND gate NOT IN ('worker', 'breaker') ORDER BY position",
        &[&run.id(), &stage],
    )
}

/// Without what is the run's own.
fn alike(decisions: &[Value]) -> Vec<Value> {
    decisions.iter().filter(|decision| decision["gate"] != "lease").cloned().collect()
}

#[test]
fn what_the_second_gates_repeat_is_kept_as_a_name_and_shown_in_full() {
    let bench = Bench::shared();
    let named = sent(&bench, "");
    let kept_names = kept(&bench, &named);
    assert!(kept_names[..3].iter().all(Value::is_object), "{kept_names:?}");
    assert_eq!(kept_names[3..], NAMES.map(Value::from));
    let seen = shown(&bench, &named, "send");
    assert_eq!(seen[..3], kept_names[..3]);
    assert_eq!(seen[3..], shown(&bench, &named, "request"));
    assert!(seen.iter().all(|row| row.as_object().unwrap().values().all(|value| !value.is_null())), "{seen:?}");
    let positions =
        "SELECT array_agg(position ORDER BY position) FROM dot_run_gate WHERE run_id = $1 AND stage = 'send'";
    assert_eq!(bench.one::<Vec<i64>>(positions, &[&named.id()]), (1..=10).collect::<Vec<i64>>());

    // The digest is of no use to the new permit, and nobody vouches for it: what is written in full shows the same.
    let full = sent(&bench, "SELECT fn_dot_resume(ARRAY[RUN]::uuid[])");
    assert!(kept(&bench, &full).iter().all(Value::is_object));
    assert_eq!(shown(&bench, &full, "send"), kept(&bench, &full));
    assert_eq!(alike(&shown(&bench, &full, "send")), alike(&seen));
    let bytes = |run: &Run| {
        let sql =
            "SELECT pg_column_size(detail) FROM dot_wrapper.dot_run_event WHERE run_id = $1 AND event = 'running'";
        bench.one::<i32>(sql, &[&run.id()])
    };
    let (less, more) = (bytes(&named), bytes(&full));
    assert!(less * 2 < more, "{less} bytes instead of {more}");
    figure("named", &format!("{less} bytes of decisions in the event, {more} in full"));
    // Both are what was sealed, and what the marks were made over.
    for run in [&named, &full] {
        let process = run.0["process_run_id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        let bad = "SELECT count(*) FROM fn_dot_verify($1) WHERE verdict = 'BROKEN'";
        assert_eq!(bench.one::<i64>(bad, &[&process]), 0);
    }
}

#[test]
fn what_has_changed_since_the_request_is_on_record_in_full() {
    let bench = Bench::shared();
    for (change, gate) in [
        ("UPDATE dot_tools SET name = 'renamed' WHERE code = 'DOT-2'", "tool"),
        ("UPDATE dot_wrapper.policy SET modes = '{apply}' WHERE name = 'agent_api'", "mode"),
        ("ALTER TABLE dot_tools ADD version text DEFAULT '2'", "tool"),
    ] {
        let run = sent(&bench, change);
        let (kept, shown) = (kept(&bench, &run), shown(&bench, &run, "send"));
        assert!(kept.iter().all(Value::is_object), "after {change}: {kept:?}");
        assert_eq!(shown, kept, "after {change}");
        let said = |decisions: &[Value]| -> Vec<Value> {
            decisions.iter().filter(|decision| decision["gate"] == gate).cloned().collect()
        };
        assert_ne!(said(&shown), said(run.0["gates"].as_array().unwrap()), "after {change}");
    }
    // What no gate speaks of is no change.
    let run = sent(&bench, "UPDATE dot_wrapper.policy SET max_attempts = 7 WHERE name = 'agent_api'");
    assert_eq!(kept(&bench, &run)[3..], NAMES.map(Value::from));
    // Its lease is another matter at its turn than at the request.
    bench.exec("UPDATE dot_wrapper.policy SET lease_wait = true WHERE name = 'agent_api'");
    let run = sent(&bench, "");
    assert_eq!(run.gate("lease").unwrap()["reason"], "lease_later");
    assert_eq!(shown(&bench, &run, "send"), kept(&bench, &run));
    assert_eq!(shown(&bench, &run, "send").last().unwrap()["reason"], "ok");
}

/// A row of the queue cannot have the ledger say that nothing has changed.
#[test]
fn a_forged_digest_is_no_permit() {
    let bench = Bench::shared();
    bench.exec("CREATE TABLE stolen (decided bytea)");
    sent(&bench, "INSERT INTO stolen SELECT decided FROM dot_wrapper.dot_queue WHERE run_id = RUN");
    let requests = bench.agent.count();
    for forged in ["NULL", "''", "sha256(decided)", "substring(decided FROM 2)", "(SELECT decided FROM stolen)"] {
        let change = format!(
            "UPDATE dot_tools SET name = name || '!'; UPDATE dot_wrapper.dot_queue SET decided = {forged} WHERE run_id = RUN;
             DELETE FROM dot_iu_runtime_lease; DELETE FROM dot_wrapper.lease_grant"
        );
        let ask = Ask { args: json!({"n": 1}), ..Ask::new("DOT-3", "apply") };
        let run = bench.between(&ask, &change);
        bench.drain();
        assert_eq!(bench.run(run.id()).status(), "queued", "{forged}");
        assert_eq!(bench.events(&run), ["queued", "no_permit"], "{forged}");
    }
    assert_eq!(bench.agent.count(), requests);
}
