//! From the commit to the wire, on an idle server, one run at a time: one clock sees the commit and the arrival.

use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::json;

use crate::agent::{Agent, key};
use crate::figure::{Figure, Outcome, Plot, Series, Target};
use crate::ours::{Kind, Ours};
use crate::stats::{alternate, percentile};
use crate::theirs::{Task, Theirs};
use crate::world::World;

const FAST: Kind = Kind { name: "FAST", tools: 8, wait_ms: 0, all_calls: true };
/// A call that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one run took, in ms.
#[derive(Clone, Copy)]
pub struct Sample {
    /// From the return of COMMIT to the arrival of the call's head.
    pub returned: f64,
    /// From when COMMIT was sent.
    pub sent: f64,
}

/// 1,000 of each a round.
pub fn measure(world: &World) -> Outcome {
    let count = world.options.size(1000, 150);
    let mut ours = Ours::new(world, &[FAST], 64);
    ours.switch(true);
    ours.await_worker();
    let mut theirs = Theirs::new(world);
    let (a, b) = alternate(
        world.options.rounds,
        || {
            world.settle();
            time_ours(&mut ours, &FAST, count)
        },
        || {
            world.settle();
            theirs.start(&[Task { name: "fast", wait_ms: 0 }], 64);
            theirs.go();
            theirs.working();
            let samples = time_theirs(&mut theirs, count);
            theirs.stop();
            samples
        },
    );
    Outcome { figures: figures(&a, &b), plots: vec![distribution(&a, &b)] }
}

fn figures(ours: &[Vec<Sample>], theirs: &[Vec<Sample>]) -> Vec<Figure> {
    let line = |name: &str, of: f64, what: fn(&Sample) -> f64| {
        let rounds = |side: &[Vec<Sample>]| side.iter().map(|round| at(round, of, what)).collect::<Vec<_>>();
        Figure::new(name, "ms", rounds(ours)).against("graphile-worker", rounds(theirs))
    };
    let samples = |side: &[Vec<Sample>]| -> Vec<Vec<[f64; 2]>> {
        side.iter().map(|round| round.iter().map(|one| [one.returned, one.sent]).collect()).collect()
    };
    let raw = json!({ "samples": "[from COMMIT's return, from COMMIT sent], ms", "ours": samples(ours), "theirs": samples(theirs) });
    vec![
        line("commit to wire, idle, one at a time: p50", 50.0, |one| one.returned)
            .target(Target::RatioAtMost(0.25))
            .raw(raw),
        line("commit to wire, idle, one at a time: p99", 99.0, |one| one.returned).target(Target::AtMost(5.0)),
        line("  from the sending of COMMIT: p50", 50.0, |one| one.sent),
        line("  from the sending of COMMIT: p99", 99.0, |one| one.sent),
    ]
}

/// A percentile of samples.
pub fn at(samples: &[Sample], of_100: f64, what: fn(&Sample) -> f64) -> f64 {
    percentile(&samples.iter().map(what).collect::<Vec<_>>(), of_100)
}

fn distribution(ours: &[Vec<Sample>], theirs: &[Vec<Sample>]) -> Plot {
    let line = |side: &[Vec<Sample>]| -> Vec<(f64, f64)> {
        let all: Vec<Sample> = side.iter().flatten().copied().collect();
        (0..=200).map(|n| f64::from(n) / 2.0).map(|of| (at(&all, of, |one| one.returned).max(0.05), of)).collect()
    };
    Plot {
        file: "latency",
        title: "From the commit to the wire: how many runs are sent within".to_owned(),
        x: "ms since COMMIT returned",
        y: "% of runs",
        log_x: true,
        series: vec![
            Series { name: "dot_wrapper", points: line(ours) },
            Series { name: "graphile-worker", points: line(theirs) },
        ],
    }
}

/// One run after the other, each when nothing is left of the one before.
pub fn time_ours(ours: &mut Ours, kind: &Kind, count: usize) -> Vec<Sample> {
    ours.world.agent.forget();
    let sql = "SELECT r.run_id::text FROM fn_dot_run($1, 'apply', args => jsonb_build_object('n', $2::int)) r";
    let statement = ours.session.prepare(sql).expect("a statement");
    let sample = |n: usize| {
        let code = format!("{}-{}", kind.name, 1 + n % kind.tools);
        let number = -1 - i32::try_from(n).unwrap_or_default();
        let agent = &ours.world.agent;
        time(agent, &mut ours.session, |session| session.query_one(&statement, &[&code, &number]))
    };
    (0..count).map(sample).collect()
}

/// The same with jobs.
pub fn time_theirs(theirs: &mut Theirs, count: usize) -> Vec<Sample> {
    theirs.world.agent.forget();
    theirs.payload();
    let sql = "SELECT id::text FROM graphile_worker.add_job('fast', bench_payload($1))";
    let statement = theirs.session.prepare(sql).expect("a statement");
    let sample = |n: usize| {
        let (agent, number) = (&theirs.world.agent, n as i64);
        time(agent, &mut theirs.session, |session| session.query_one(&statement, &[&number]))
    };
    (0..count).map(sample).collect()
}

/// One transaction that asks, its commit, and the call. Then a pause in which the worker ends what it has to do: it is
/// long enough that the next one finds it idle, and of changing length.
fn time(
    agent: &Agent,
    session: &mut Client,
    ask: impl FnOnce(&mut postgres::Transaction) -> Result<postgres::Row, postgres::Error>,
) -> Sample {
    let mut transaction = session.transaction().expect("a transaction");
    let id: String = ask(&mut transaction).expect("a run").get(0);
    let sent = Instant::now();
    transaction.commit().expect("a commit");
    let returned = Instant::now();
    let arrival = agent.arrival(key(&id), PATIENCE).unwrap_or_else(|| panic!("{id} was never sent"));
    std::thread::sleep(Duration::from_micros(20_000 + u64::from(arrival.elapsed().subsec_nanos() % 5_000)));
    Sample { returned: ms(returned, arrival), sent: ms(sent, arrival) }
}

/// Negative where the arrival came first.
fn ms(from: Instant, to: Instant) -> f64 {
    to.checked_duration_since(from).map_or_else(|| -(from - to).as_secs_f64(), |span| span.as_secs_f64()) * 1e3
}
