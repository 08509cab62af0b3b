//! G3: what changes while runs wait counts for them, and from a second after the change nothing of them is sent.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::wait::until_or;
use crate::harness::{Bench, Reply, figure, rounds, until};

/// What an operator does, and the reason that follows for all that still waits. REQUESTER asked for it.
const CHANGES: [(&str, &str, &str, &str); 4] = [
    (
        "toggle off",
        "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'",
        "toggle",
        "toggle_off",
    ),
    (
        "EXECUTE revoked",
        "REVOKE EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) FROM REQUESTER",
        "requester",
        "privilege_revoked",
    ),
    ("role dropped", "DROP OWNED BY REQUESTER; DROP ROLE REQUESTER", "requester", "role_gone"),
    (
        "leases expired and taken",
        "UPDATE dot_iu_runtime_lease l SET holder = 'somebody', expires_at = 'infinity'
         FROM dot_wrapper.dot_queue q WHERE q.state = 'queued' AND l.holder = 'dot_run:' || q.run_id",
        "lease",
        "lease_held",
    ),
];

/// An agent that takes its time, and when each run reached it.
fn slow_agent(bench: &Bench) -> Arc<Mutex<Vec<(Uuid, Instant)>>> {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&arrivals);
    bench.agent.plan(move |request| {
        book.lock().unwrap().push((request.run_id().unwrap(), Instant::now()));
        std::thread::sleep(Duration::from_millis(15));
        Reply::succeeded()
    });
    arrivals
}

/// Queues `count` applies of a role, each under a lease of its own, and changes something when the first have arrived.
/// How many arrived in all, and how many of them more than a second after the change had committed.
fn flood(bench: &Bench, count: usize, (what, change, gate, reason): (&str, &str, &str, &str)) -> (usize, usize) {
    let role = bench.caller("flood");
    let arrivals = slow_agent(bench);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'n:{args.n}' WHERE name = 'agent_api'");
    let mut session = bench.connect_as(&role);
    let mut transaction = session.transaction().unwrap();
    for n in 0..count {
        let ask = Ask { args: serde_json::json!({"n": n}), ..Ask::new("DOT-1", "apply") };
        assert_eq!(ask.on(&mut transaction).unwrap().status(), "queued", "{what}");
    }
    transaction.commit().unwrap();
    drop(session);
    until("the first have arrived", || (arrivals.lock().unwrap().len() >= count / 15).then_some(()));
    bench.exec(&change.replace("REQUESTER", &role));
    let closed = Instant::now();
    let left = "SELECT coalesce(string_agg(n || ' ' || state, ', '), '') FROM
                (SELECT state, count(*) AS n FROM dot_wrapper.dot_queue GROUP BY state) q";
    let empty = || bench.one::<String>(left, &[]).is_empty().then_some(());
    until_or(empty, || format!("the queue is empty after {what}: {}", bench.one::<String>(left, &[])));
    let arrivals = std::mem::take(&mut *arrivals.lock().unwrap());
    let late = arrivals.iter().filter(|(_, at)| *at > closed + Duration::from_secs(1)).count();
    let sql = "SELECT count(*) FROM dot_run_gate g JOIN dot_run r USING (run_id)
               WHERE r.code = 'DOT-1' AND r.run_status = 'refused' AND g.stage = 'send' AND g.verdict = 'BLOCK'
                 AND g.gate = $1 AND g.reason = $2 AND r.reason = $2";
    let refused: i64 = bench.one(sql, &[&gate, &reason]);
    assert_eq!(
        arrivals.len() + usize::try_from(refused).unwrap(),
        count,
        "{what}: each was sent or is refused as said"
    );
    assert!(refused > 0, "{what}: the change came too late to be seen");
    (arrivals.len(), late)
}

#[test]
fn g3_what_is_closed_while_runs_wait_is_closed_within_a_second() {
    let count = rounds(150, 1000);
    let cluster = Arc::new(crate::harness::Cluster::start(&["dot_wrapper.max_in_flight = 4"], &[]));
    let (mut told, mut late) = (Vec::new(), 0);
    for change in CHANGES {
        let bench = Bench::on(Arc::clone(&cluster));
        let (sent, too_late) = flood(&bench, count, change);
        told.push(format!("{}: {sent} sent before", change.0));
        late += too_late;
    }
    assert_eq!(late, 0, "{told:?}");
    figure("G3", &format!("{count} queued each; {}; {late} started more than 1 s after the change", told.join(", ")));
}
