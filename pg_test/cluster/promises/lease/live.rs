//! L1: two sessions never both have a live lease on one key, in every order of a few steps and under contention.

use std::time::{Duration, Instant};

use postgres::Client;

use super::history::{self, Held};
use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, figure, rounds};

/// What one session does with the lease, in its own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Acquire,
    Renew,
    Release,
}

const STEPS: [Step; 3] = [Step::Acquire, Step::Renew, Step::Release];

/// All orders in which the sessions can take their steps: a list of session numbers each.
fn interleavings(left: &[usize]) -> Vec<Vec<usize>> {
    if left.iter().all(|steps| *steps == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for session in (0..left.len()).filter(|session| left[*session] > 0) {
        let mut rest = left.to_vec();
        rest[session] -= 1;
        for mut tail in interleavings(&rest) {
            tail.insert(0, session);
            all.push(tail);
        }
    }
    all
}

/// Takes the steps in this order, against a model that knows nothing but "one holder at a time".
fn follow(sessions: &mut [Client], order: &[usize]) {
    let mut done = vec![0; sessions.len()];
    let mut holder = None;
    for session in order {
        let step = STEPS[done[*session]];
        done[*session] += 1;
        let (mine, name) = (holder == Some(*session), format!("s{session}"));
        let got: bool = if step == Step::Release {
            sessions[*session].query_one("SELECT fn_dot_iu_runtime_lease_release('k', $1)", &[&name]).unwrap().get(0)
        } else {
            let sql = "SELECT fn_dot_iu_runtime_lease_acquire('k', $1, '1 h') IS NOT NULL";
            sessions[*session].query_one(sql, &[&name]).unwrap().get(0)
        };
        let expected = mine || (step != Step::Release && holder.is_none());
        assert_eq!(got, expected, "{step:?} of session {session} in {order:?}");
        if got {
            holder = (step != Step::Release).then_some(*session);
        }
    }
    sessions[0].batch_execute("DELETE FROM dot_iu_runtime_lease").unwrap();
}

#[test]
fn l1_in_every_order_of_steps_one_session_holds_the_lease() {
    let bench = Bench::shared();
    let mut sessions: Vec<Client> = (0..3).map(|_| bench.connect()).collect();
    let mut followed = 0;
    for steps in [vec![3, 3], if rounds(0, 1) == 1 { vec![3, 3, 3] } else { vec![2, 2, 2] }] {
        for order in interleavings(&steps) {
            follow(&mut sessions[..steps.len()], &order);
            followed += 1;
        }
    }
    figure(
        "L1.orders",
        &format!("{followed} orders of acquire, renew and release of two and three sessions: one holder in each"),
    );
}

/// One client's life: it takes the lease for some milliseconds, sometimes renews, sometimes lets it run out.
fn contend(bench: &Bench, number: usize, until: Instant) -> Vec<Held> {
    let mut session = bench.connect();
    let acquire = session
        .prepare("WITH a AS MATERIALIZED (SELECT fn_dot_iu_runtime_lease_acquire($1, $2, $3 * interval '1 ms') AS until)
                  SELECT (extract(epoch FROM a.until) * 1000000)::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM a")
        .unwrap();
    let release = session
        .prepare(
            "WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now)
                  SELECT (extract(epoch FROM t.now) * 1000000)::bigint, fn_dot_iu_runtime_lease_release($1, $2) FROM t",
        )
        .unwrap();
    let (holder, mut history, mut round) = (format!("client {number}"), Vec::new(), number);
    while Instant::now() < until {
        round = round.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let (key, ttl) = (format!("key {}", (round >> 16) % 2), 2.0 + ((round >> 8) % 40) as f64);
        let row = session.query_one(&acquire, &[&key, &holder, &ttl]).unwrap();
        let Some(end) = row.get::<_, Option<i64>>(0) else { continue };
        end_before(&mut history, &key, row.get(1));
        history.push(Held { key: key.clone(), holder: holder.clone(), from: row.get(1), to: end });
        std::thread::sleep(Duration::from_millis(((round >> 12) % 8) as u64));
        match (round >> 20) % 4 {
            0 => continue,
            1 => {
                let row = session.query_one(&acquire, &[&key, &holder, &ttl]).unwrap();
                if let Some(end) = row.get::<_, Option<i64>>(0) {
                    end_before(&mut history, &key, row.get(1));
                    history.push(Held { key: key.clone(), holder: holder.clone(), from: row.get(1), to: end });
                }
            }
            _ => {}
        }
        let row = session.query_one(&release, &[&key, &holder]).unwrap();
        end_before(&mut history, &key, row.get(0));
    }
    history
}

/// What this client has believed about its lease on a key ends at the latest with its next word about it: a renewal can
/// also make it shorter.
fn end_before(history: &mut [Held], key: &str, now: i64) {
    if let Some(held) = history.iter_mut().rev().find(|held| held.key == key) {
        held.to = held.to.min(now);
    }
}

#[test]
fn l1_under_contention_no_two_live_leases_overlap() {
    let bench = Bench::shared();
    let (clients, seconds) = (rounds(4, 16), rounds(3, 60));
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let history: Vec<Held> = std::thread::scope(|scope| {
        let lives: Vec<_> = (0..clients)
            .map(|number| {
                scope.spawn({
                    let bench = &bench;
                    move || contend(bench, number, until)
                })
            })
            .collect();
        lives.into_iter().flat_map(|life| life.join().unwrap()).collect()
    });
    let overlaps = history::overlaps(&history);
    assert!(overlaps.is_empty(), "{} of {}: {:?}", overlaps.len(), history.len(), overlaps.first());
    assert!(history.len() > clients * 10, "they did contend: {}", history.len());
    figure("L1", &format!("{clients} clients, {seconds} s, {} grants: {} overlap", history.len(), overlaps.len()));
}

#[test]
fn l1_runs_under_one_key_reach_the_agent_one_at_a_time_with_growing_tokens() {
    let bench = Bench::shared();
    let served = history::record(&bench, || std::thread::sleep(Duration::from_millis(2)));
    let (clients, seconds) = (rounds(4, 16), rounds(3, 60));
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let admitted: usize = std::thread::scope(|scope| {
        let call = || {
            let mut session = bench.connect();
            let mut admitted = 0;
            while Instant::now() < until {
                let run = Ask::new("DOT-1", "apply").on(&mut session).unwrap();
                admitted += usize::from(run.status() == "queued");
                assert!(run.status() == "queued" || run.reason() == "lease_held", "{run:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            admitted
        };
        let lives: Vec<_> = (0..clients).map(|_| scope.spawn(call)).collect();
        lives.into_iter().map(|life| life.join().unwrap()).sum()
    });
    bench.drain();
    crate::harness::until("all are over", || {
        (bench.one::<i64>("SELECT count(*) FROM dot_wrapper.dot_queue", &[]) == 0).then_some(())
    });
    let served = served.lock().unwrap().clone();
    assert_eq!(served.len(), admitted, "each admitted run was sent once");
    assert!(admitted > 5, "they did contend: {admitted}");
    let stale = history::stale(&served);
    assert!(stale.is_empty(), "{stale:?}");
    figure(
        "L1.runs",
        &format!(
            "{clients} clients, {seconds} s, {admitted} runs under one key: {} beside or behind a newer one",
            stale.len()
        ),
    );
}

/// What the worker believes must not outlive what the substrate says, or nobody renews the lease in time.
#[test]
fn l1_a_grant_does_not_outlive_a_lease_that_was_shortened_before_the_claim() {
    let bench = Bench::shared();
    bench.agent.reply(Reply::Hold);
    let mut session = bench.connect();
    let mut open = session.transaction().unwrap();
    let run = Ask::new("DOT-1", "apply").on(&mut open).unwrap();
    bench.exec("UPDATE dot_wrapper.policy SET lease_ttl_s = 10 WHERE name = 'agent_api'");
    open.commit().unwrap();
    let request = bench.agent.wait_for(1).remove(0);
    let sql = "SELECT g.expires_at <= clock_timestamp() + interval '10 s' AND g.renew_at <= clock_timestamp() + interval '4 s'
               FROM dot_wrapper.lease_grant g WHERE g.run_id = $1";
    assert!(bench.one::<bool>(sql, &[&run.id()]));
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
}
