//! A restore puts rows back, and requests nothing.

use serde_json::Value;

use super::{apply, request, row, runs, served, until_says};
use crate::harness::bench::db_error;
use crate::harness::{Bench, Reply, os, until};

const ALL: &str = "SELECT jsonb_agg(w ORDER BY w.id) FROM dot_run_request w";

/// Every kind of row: planned, refused, misuse, over, in doubt, queued.
fn full(bench: &Bench, role: &str) -> Value {
    request(bench, role, "code", "'DOT-1'");
    request(bench, role, "code, mode", "'NO-SUCH', 'apply'");
    request(bench, role, "code, mode", "'DOT-1', 'run'");
    until_says(bench, &apply(bench, role, "DOT-1"), "succeeded");
    bench.agent.reply(Reply::Close);
    until_says(bench, &apply(bench, role, "DOT-2"), "in_doubt");
    bench.agent.reply(Reply::succeeded());
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    apply(bench, role, "DOT-3")
}

#[test]
fn a_restored_dump_has_the_rows_as_they_were_and_makes_no_runs() {
    let (bench, role) = served(Bench::own(&[]));
    let queued = full(&bench, &role);
    let (before, ledger): (Value, i64) = (bench.one(ALL, &[]), runs(&bench));
    let file = bench.cluster.dir().join("requests");
    for options in [vec!["-Fc"], vec!["-Fc", "--inserts"]] {
        os::run(bench.cluster.client("pg_dump", &bench.name).args(&options).arg("-f").arg(&file));
        let restored = Bench::empty(bench.cluster.clone());
        let jobs = if options.len() == 1 { "4" } else { "1" };
        let mut restore = bench.cluster.client("pg_restore", &restored.name);
        os::run(restore.args(["-e", "-j", jobs, "-d", &restored.name]).arg(&file));
        assert_eq!((restored.one::<Value>(ALL, &[]), runs(&restored)), (before.clone(), ledger), "{options:?}");
        // Its role sees its rows, and may ask for more.
        assert_eq!(super::rows(&restored, &role, "SELECT * FROM dot_run_request").len(), 6);
        assert_eq!(request(&restored, &role, "code", "'DOT-1'")["run_status"], "planned");
        restored.forget_session();
    }
    // Once more, with rows that are gone from the original: data alone, into the database that they came from.
    bench.exec("DELETE FROM dot_run_request");
    let mut restore = bench.cluster.client("pg_restore", &bench.name);
    os::run(restore.args(["-e", "-a", "-t", "dot_run_request", "-d", &bench.name]).arg(&file));
    assert_eq!((bench.one::<Value>(ALL, &[]), runs(&bench)), (before, ledger));
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "on")]);
    until_says(&bench, &queued, "succeeded");
}

/// In another schema, whose name comes before that of our own tables, and with roles that have other OIDs.
#[test]
fn a_resumed_copy_in_another_cluster_keeps_its_rows_up() {
    let bench =
        Bench::empty(std::sync::Arc::new(crate::harness::Cluster::start(&["dot_wrapper.worker_enabled = off"], &[])));
    bench.exec("CREATE SCHEMA app; CREATE EXTENSION dot_wrapper SCHEMA app; SET search_path = app, public");
    bench.exec(&format!("ALTER DATABASE {} SET search_path = app, public", bench.name));
    bench.forget_session();
    bench.furnish();
    let role = super::requester(&bench, "api");
    bench.exec(&format!("GRANT USAGE ON SCHEMA app TO {role}"));
    let queued = apply(&bench, &role, "DOT-1");
    assert_eq!(queued["run_status"], "queued", "{queued:?}");
    let file = bench.cluster.dir().join("app");
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));

    let other = Bench::own(&[]);
    let (oid, here) =
        ("SELECT oid FROM pg_roles WHERE rolname = $1", |bench: &Bench, sql: &str| bench.one::<u32>(sql, &[&role]));
    other.exec(&format!("CREATE ROLE {role} LOGIN"));
    if here(&other, oid) == here(&bench, oid) {
        other.exec(&format!("DROP ROLE {role}; CREATE ROLE {role} LOGIN"));
    }
    let copied = Bench::empty(other.cluster.clone());
    copied.exec(&format!("ALTER DATABASE {} SET search_path = app, public", copied.name));
    copied.forget_session();
    os::run(other.cluster.client("pg_restore", &copied.name).args(["-e", "-d", &copied.name]).arg(&file));
    assert_eq!(row(&copied, &queued["id"]), queued);
    assert_eq!(runs(&copied), 1);
    let seen = |bench: &Bench| super::rows(bench, &role, "SELECT * FROM dot_run_request").len();
    assert_eq!(seen(&copied), 0, "the OID is somebody else's here");
    copied.exec("SELECT fn_dot_resume()");
    assert_eq!(seen(&copied), 1);
    until_says(&copied, &queued, "succeeded");
    assert_eq!(bench.agent.count(), 1);
}

/// Only who has the rights of the extension's owner puts rows back; and a row that he inserts as anybody does is a request.
#[test]
fn the_owner_puts_back_whole_rows_and_requests_with_others() {
    let (bench, role) = served(Bench::shared());
    let asked = request(&bench, &role, "code", "'DOT-1'");
    let before = runs(&bench);
    bench.exec("CREATE TABLE kept AS SELECT * FROM dot_run_request; DELETE FROM dot_run_request");
    bench.exec("INSERT INTO dot_run_request SELECT * FROM kept");
    assert_eq!((row(&bench, &asked["id"]), runs(&bench)), (asked, before));
    bench.exec("INSERT INTO dot_run_request (code, run_status) VALUES ('DOT-1', 'succeeded')");
    let fresh = "SELECT run_status FROM dot_run_request WHERE requested_by = 'postgres'";
    assert_eq!((bench.one::<String>(fresh, &[]).as_str(), runs(&bench)), ("planned", before + 1));
    let nonsense =
        "INSERT INTO dot_run_request (code, run_status, requested_by, requested_at) VALUES ('A', 'x', 'y', now())";
    assert_eq!(db_error(bench.connect().batch_execute(nonsense).unwrap_err()).code().code(), "23514");
}
