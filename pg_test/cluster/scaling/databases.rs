//! Several databases, each with a ledger and a worker of its own: what shards today. On one server here; on several it is the
//! same, since a worker knows nothing beyond its database.

use crate::harness::{Bench, Reply, os};

#[test]
fn databases_have_a_worker_each_and_one_view_can_show_their_ledgers() {
    if !os::has_library("postgres_fdw") {
        return;
    }
    let (one, two) = (Bench::shared(), Bench::shared());
    one.agent.reply(Reply::Hold);
    two.agent.reply(Reply::Hold);
    // The same tool and the same lease at the same time: they are not the same ones.
    let (a, b) = (one.apply("DOT-1"), two.apply("DOT-1"));
    assert_eq!(a.text("lease_key"), b.text("lease_key"));
    let (to_one, to_two) = (one.agent.wait_for(1), two.agent.wait_for(1));
    assert_ne!(one.worker(), two.worker());
    two.agent.release(&to_two[0], Reply::succeeded());
    two.until(&b, "succeeded");
    assert_eq!(one.run(a.id()).status(), "running");

    let host = two.cluster.dir().display();
    one.exec(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER two FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', dbname '{}', port '5432');
         CREATE USER MAPPING FOR postgres SERVER two OPTIONS (user 'postgres', password_required 'false');
         CREATE SCHEMA two;
         IMPORT FOREIGN SCHEMA public LIMIT TO (dot_run, dot_process_run) FROM SERVER two INTO two;
         CREATE VIEW all_runs AS SELECT 'one' AS shard, * FROM dot_run UNION ALL SELECT 'two', * FROM two.dot_run",
        two.name
    ));
    let statuses = one.all::<String>("SELECT shard || ' ' || run_status FROM all_runs ORDER BY 1", &[]);
    assert_eq!(statuses, ["one running", "two succeeded"]);
    one.agent.release(&to_one[0], Reply::succeeded());
    one.until(&a, "succeeded");
    // What the server keeps of the session would be in the way of dropping the database.
    one.forget_session();
}
