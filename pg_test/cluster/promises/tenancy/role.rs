//! T1: the worker refuses to run as a role that is more than it may be, or that could become more.

use crate::harness::{Bench, figure, until};

/// Attributes, and what the refusal says; empty for a role that may serve.
const ATTRIBUTES: [(&str, &str); 8] = [
    ("", ""),
    ("CREATEDB", ""),
    ("PASSWORD 'x' VALID UNTIL '2020-01-01' CONNECTION LIMIT 1", ""),
    ("NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION NOCREATEDB", ""),
    ("SUPERUSER", "is a superuser"),
    ("BYPASSRLS", "has BYPASSRLS"),
    ("CREATEROLE", "has CREATEROLE"),
    ("REPLICATION", "has REPLICATION"),
];

/// What is granted to the role, by way of others or not; the same.
const MEMBERSHIPS: [(&str, &str); 9] = [
    ("GRANT pg_monitor TO WORKER", ""),
    ("CREATE ROLE WORKER_g NOLOGIN CREATEDB; GRANT WORKER_g TO WORKER", ""),
    ("GRANT postgres TO WORKER", "is a member of"),
    ("ALTER ROLE WORKER NOINHERIT; GRANT postgres TO WORKER", "is a member of"),
    ("GRANT pg_execute_server_program TO WORKER", "is a member of"),
    ("GRANT pg_read_server_files TO WORKER", "is a member of"),
    ("GRANT pg_write_all_data TO WORKER", "is a member of"),
    (
        "CREATE ROLE WORKER_g NOLOGIN; GRANT WORKER_g TO WORKER; CREATE ROLE WORKER_h NOLOGIN CREATEROLE; GRANT WORKER_h TO WORKER_g",
        "is a member of",
    ),
    ("CREATE ROLE WORKER_g NOLOGIN BYPASSRLS; GRANT WORKER_g TO WORKER", "is a member of"),
];

/// Who the worker is now, if there is one.
fn served_by(bench: &Bench) -> Option<String> {
    let sql = "SELECT usename::text FROM pg_stat_activity WHERE backend_type = 'dot_wrapper worker' AND datname = $1";
    bench.all(sql, &[&bench.name]).pop()
}

/// Names the role as the worker's: it serves and runs a tool, or there is none and the doctor says why.
#[track_caller]
fn serves(bench: &Bench, role: &str, refusal: &str, what: &str) {
    bench.cluster.set(&[("dot_wrapper.worker_role", role)]);
    if refusal.is_empty() {
        until(&format!("{what} serves"), || (served_by(bench).as_deref() == Some(role)).then_some(()));
        bench.until(&bench.apply("DOT-1"), "succeeded");
        return;
    }
    let sql = "SELECT detail FROM fn_dot_doctor() WHERE check_name = 'worker' AND verdict = 'BLOCK'";
    until(&format!("{what} is refused"), || {
        bench.all::<String>(sql, &[]).pop().filter(|detail| detail.contains(refusal) && served_by(bench).is_none())
    });
    assert!(bench.cluster.log().contains(refusal), "the log tells of {what}");
}

#[test]
fn t1_the_worker_runs_as_an_ordinary_role_only() {
    let bench = Bench::own(&[]);
    let (mut ran, mut refused) = (0, 0);
    let attributes = ATTRIBUTES.map(|(words, refusal)| (format!("ALTER ROLE WORKER {words}"), refusal));
    let memberships = MEMBERSHIPS.map(|(sql, refusal)| (sql.to_owned(), refusal));
    for (number, (sql, refusal)) in attributes.iter().chain(&memberships).enumerate() {
        let role = format!("worker_{number}");
        bench.exec(&format!("CREATE ROLE {role} LOGIN; GRANT dot_wrapper_worker TO {role}"));
        bench.exec(&sql.trim_end_matches("ALTER ROLE WORKER ").replace("WORKER", &role));
        serves(&bench, &role, refusal, sql);
        (ran, refused) = (ran + i32::from(refusal.is_empty()), refused + i32::from(!refusal.is_empty()));
    }
    assert_eq!((ran, refused), (6, 11));
    figure(
        "T1",
        &format!(
            "8 attribute combinations: 4 run, 4 refused; 9 memberships: 2 run, 7 refused; {ran} and {refused} in all"
        ),
    );
}

/// Makes the launcher look at its databases, which it does by itself once a minute, by a command that it steps aside for.
fn nudge(bench: &Bench) {
    let mut session = bench.cluster.connect("postgres");
    session.batch_execute("CREATE DATABASE nudge").unwrap();
    session.batch_execute("ALTER DATABASE nudge RENAME TO nudged").unwrap();
    session.batch_execute("DROP DATABASE nudged").unwrap();
}

/// It is not asked once: who becomes more has to go, and comes back when that is undone.
#[test]
fn t1_a_worker_whose_role_becomes_more_leaves() {
    let bench = Bench::own(&[]);
    serves(&bench, "dot_wrapper_worker", "", "the default");
    for (more, less) in [
        ("GRANT pg_write_server_files TO dot_wrapper_worker", "REVOKE pg_write_server_files FROM dot_wrapper_worker"),
        ("ALTER ROLE dot_wrapper_worker SUPERUSER", "ALTER ROLE dot_wrapper_worker NOSUPERUSER"),
    ] {
        bench.exec(more);
        nudge(&bench);
        until("the worker has left", || served_by(&bench).is_none().then_some(()));
        let waiting = bench.apply("DOT-1");
        bench.exec(less);
        bench.until(&waiting, "succeeded");
        assert_eq!(served_by(&bench).as_deref(), Some("dot_wrapper_worker"));
    }
}
