//! O2: drop, rename, move and template copy of any database work without manual steps on our part.

use std::time::{Duration, Instant};

use crate::harness::{Bench, Cluster, Reply, figure, os, rounds, until};

/// For a database that is none of ours.
const LIMIT_OTHER: Duration = Duration::from_secs(1);
/// As long as PostgreSQL itself would wait for other sessions.
const LIMIT_OURS: Duration = Duration::from_secs(6);

/// The four commands, each with what undoes it. `copy` is a name that is free.
fn commands(name: &str, copy: &str) -> [[String; 2]; 4] {
    [
        [format!("ALTER DATABASE {name} RENAME TO {copy}"), format!("ALTER DATABASE {copy} RENAME TO {name}")],
        [
            format!("ALTER DATABASE {name} SET TABLESPACE elsewhere"),
            format!("ALTER DATABASE {name} SET TABLESPACE pg_default"),
        ],
        [format!("CREATE DATABASE {copy} TEMPLATE {name}"), format!("DROP DATABASE {copy}")],
        [format!("DROP DATABASE {name}"), format!("CREATE DATABASE {name} TEMPLATE {name}_kept")],
    ]
}

/// Counts what went through, and the longest that it took.
#[derive(Default)]
struct Tally {
    done: usize,
    tried: usize,
    longest: Duration,
}

impl Tally {
    fn run(&mut self, session: &mut postgres::Client, sql: &str) {
        let started = Instant::now();
        let done = session.batch_execute(sql);
        let took = started.elapsed();
        self.tried += 1;
        match done {
            Ok(()) => self.done += 1,
            Err(error) => println!("{sql}: {error:?}"),
        }
        self.longest = self.longest.max(took);
    }
}

#[test]
fn o2_commands_on_databases_go_through() {
    let rounds = rounds(2, 20);
    let bench = Bench::on(std::sync::Arc::new(Cluster::start(&[], &[])));
    let space = bench.cluster.dir().join("elsewhere");
    os::run(os::as_server("mkdir").arg(&space));
    let mut session = bench.cluster.connect("postgres");
    let sql = format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.display());
    session.batch_execute(&sql).unwrap();
    for name in ["other", "other_kept"] {
        session.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    }
    bench.drain();
    let worker = || until("there is a worker", || bench.worker_now());
    let (mut ours, mut others) = (Tally::default(), Tally::default());

    // Ours: the worker is in it each time, with nothing out.
    bench.forget_session();
    session.batch_execute(&format!("CREATE DATABASE {0}_kept TEMPLATE {0}", bench.name)).unwrap();
    for _ in 0..rounds {
        for [sql, undo] in commands(&bench.name, "ours_too") {
            worker();
            bench.forget_session();
            ours.run(&mut session, &sql);
            session.batch_execute(&undo).unwrap_or_else(|error| panic!("{error:?} in {undo}"));
        }
    }

    // Another's, while a call is out here.
    bench.exec("SELECT fn_dot_resume()");
    bench.agent.reply(Reply::Hold);
    let run = bench.apply("DOT-1");
    let request = bench.agent.wait_for(1).remove(0);
    let pid = worker();
    for _ in 0..rounds {
        for [sql, undo] in commands("other", "other_too") {
            others.run(&mut session, &sql);
            session.batch_execute(&undo).unwrap_or_else(|error| panic!("{error:?} in {undo}"));
        }
    }
    assert_eq!(worker(), pid, "the worker was not in the way, and was left alone");
    bench.agent.release(&request, Reply::succeeded());
    bench.until(&run, "succeeded");
    figure(
        "O2",
        &format!(
            "{}/{} commands went through; on our database the longest took {} ms, on another {} ms",
            ours.done + others.done,
            ours.tried + others.tried,
            ours.longest.as_millis(),
            others.longest.as_millis()
        ),
    );
    assert_eq!((ours.done, others.done), (ours.tried, others.tried));
    assert!(others.longest <= LIMIT_OTHER, "{:?}", others.longest);
    assert!(ours.longest <= LIMIT_OURS, "{:?}", ours.longest);
}
