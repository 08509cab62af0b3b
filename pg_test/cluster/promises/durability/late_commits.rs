//! A5: rows from prepared transactions and late commits are delivered regardless of id order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use super::Dice;
use crate::harness::bench::TOOLS;
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, figure, until};

/// Of each kind.
const COUNT: usize = 50;
/// dot_wrapper.poll_interval.
const POLL: Duration = Duration::from_secs(1);

/// A transaction that waits for its end, which may come from anybody or from its own session alone.
enum Open {
    Prepared(String),
    Slow(Box<Client>),
}

#[test]
fn a5_prepared_and_slow_transactions_are_delivered_when_they_commit() {
    let bench =
        Bench::own(&["max_prepared_transactions = 100", "max_connections = 100", "dot_wrapper.poll_interval = 1"]);
    bench.exec("UPDATE dot_wrapper.policy SET lease = 'none'");
    let arrived: Arc<Mutex<HashMap<Uuid, Instant>>> = Arc::default();
    let note = Arc::clone(&arrived);
    bench.agent.plan(move |request| {
        note.lock().unwrap().insert(request.run_id().unwrap_or_default(), Instant::now());
        Reply::succeeded()
    });
    let mut open: Vec<(Uuid, Open)> = Vec::new();
    for n in 0..2 * COUNT {
        let mut session = bench.connect();
        session.batch_execute("BEGIN").unwrap();
        let run = Ask::new(TOOLS[n % TOOLS.len()], "apply").on(&mut session).unwrap();
        open.push((
            run.id(),
            if n % 2 == 0 {
                let name = format!("p{n}");
                session.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).unwrap();
                Open::Prepared(name)
            } else {
                Open::Slow(Box::new(session))
            },
        ));
    }
    // Later ones have come and gone meanwhile.
    bench.drain();
    let mut dice = Dice::new(0xA5);
    let mut committed = Vec::new();
    while !open.is_empty() {
        let (run, transaction) = open.swap_remove(dice.roll(open.len()));
        match transaction {
            Open::Prepared(name) => bench.exec(&format!("COMMIT PREPARED '{name}'")),
            Open::Slow(mut session) => session.batch_execute("COMMIT").unwrap(),
        }
        committed.push((run, Instant::now()));
    }
    until("all have arrived", || (arrived.lock().unwrap().len() == committed.len()).then_some(()));
    let arrived = arrived.lock().unwrap();
    let latest = committed.iter().map(|(run, at)| arrived[run].saturating_duration_since(*at)).max().unwrap();
    figure(
        "A5",
        &format!(
            "{COUNT} prepared and {COUNT} slow transactions, shuffled: {}/{} delivered, the latest {} ms after its commit (poll {} ms)",
            arrived.len(),
            committed.len(),
            latest.as_millis(),
            POLL.as_millis()
        ),
    );
    assert_eq!(bench.agent.count(), committed.len());
    assert!(latest <= POLL + Duration::from_secs(1), "{latest:?}");
}
