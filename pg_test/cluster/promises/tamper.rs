//! D4: no role without superuser changes the ledger, and what a superuser changes is told by fn_dot_verify.

mod chain;
mod ledger;
mod mutation;

use postgres::Client;

use crate::harness::{Bench, figure, rounds};
use ledger::{all_sealed, furnish, verify};
use mutation::{Mutator, Shot};

const TABLES: [&str; 5] = ["dot_run", "dot_run_event", "dot_run_attempt", "dot_seal", "seal_head"];

/// Six roles without superuser, each with as much as such a role can be given.
fn roles(bench: &Bench) -> Vec<(&'static str, Client)> {
    let [bare, caller, writer, owner, maker] =
        ["bare", "caller", "writer", "owner", "maker"].map(|name| bench.role(name));
    bench.exec(&format!(
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {caller};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {caller};
         GRANT pg_read_all_data, pg_write_all_data TO {writer};
         GRANT ALL ON SCHEMA dot_wrapper TO {writer};
         ALTER DATABASE {} OWNER TO {owner};
         GRANT ALL ON SCHEMA dot_wrapper TO {owner};
         ALTER ROLE {maker} CREATEROLE CREATEDB;",
        bench.name
    ));
    let worker = "dot_wrapper_worker".to_owned();
    [
        ("nothing", bare),
        ("every grant", caller),
        ("pg_write_all_data", writer),
        ("the database", owner),
        ("CREATEROLE", maker),
        ("the worker's", worker),
    ]
    .map(|(what, role)| (what, bench.connect_as(&role)))
    .into()
}

/// The six ways to change a table.
fn attempts(table: &str) -> [(&'static str, String); 6] {
    let name = format!("dot_wrapper.{table}");
    // Columns that the worker may write, where it may write any; of a run that is over.
    let update = match table {
        "dot_run" => format!("UPDATE {name} SET message = 'x' WHERE finished_at IS NOT NULL"),
        "dot_run_event" => format!("UPDATE {name} SET detail = '{{}}'"),
        "dot_run_attempt" => format!("UPDATE {name} SET deadline = now()"),
        "dot_seal" => format!("UPDATE {name} SET sealed_at = now()"),
        _ => format!("UPDATE {name} SET only_row = only_row, low = 0 WHERE false"),
    };
    [
        ("UPDATE", update.clone()),
        ("DELETE", format!("DELETE FROM {name}")),
        ("TRUNCATE", format!("TRUNCATE {name}")),
        ("DISABLE TRIGGER", format!("ALTER TABLE {name} DISABLE TRIGGER ALL")),
        ("session_replication_role", format!("SET session_replication_role = replica; {update}")),
        ("DROP", format!("DROP TABLE {name} CASCADE")),
    ]
}

#[test]
fn d4_no_role_without_superuser_changes_the_ledger() {
    let bench = Bench::shared();
    furnish(&bench);
    let rows =
        "SELECT jsonb_build_object('r', (SELECT jsonb_agg(to_jsonb(r) ORDER BY run_id) FROM dot_wrapper.dot_run r),
                'e', (SELECT jsonb_agg(to_jsonb(e) ORDER BY event_id) FROM dot_wrapper.dot_run_event e),
                'a', (SELECT jsonb_agg(to_jsonb(a) ORDER BY run_id, attempt) FROM dot_wrapper.dot_run_attempt a),
                's', (SELECT jsonb_agg(to_jsonb(s) ORDER BY seal_id) FROM dot_wrapper.dot_seal s))";
    all_sealed(&bench);
    let before: serde_json::Value = bench.one(rows, &[]);
    let (mut tried, mut succeeded) = (0, Vec::new());
    for (who, mut session) in roles(&bench) {
        let queued = "UPDATE dot_wrapper.dot_run SET message = 'x' WHERE run_status = 'queued'";
        let ways = TABLES[..4].iter().flat_map(|table| attempts(table));
        // The worker moves runs that are not over, and the head; nobody else does.
        let more = [("UPDATE", queued.to_owned()), ("UPDATE", "UPDATE dot_wrapper.seal_head SET low = 0".to_owned())];
        let more = more.into_iter().filter(|_| who != "the worker's");
        let gone = [
            "DROP EXTENSION dot_wrapper CASCADE",
            "DROP SCHEMA dot_wrapper CASCADE",
            "DROP OWNED BY CURRENT_USER CASCADE",
        ];
        for (way, sql) in ways.chain(more).chain(gone[..2].iter().map(|sql| ("DROP", (*sql).to_owned()))) {
            tried += 1;
            if session.batch_execute(&sql).is_ok() {
                succeeded.push(format!("{who}: {way}: {sql}"));
            }
            let _ = session.batch_execute("RESET session_replication_role");
        }
        // What a role may always do takes only what it was given.
        let _ = session.batch_execute(gone[2]);
    }
    assert_eq!(succeeded, Vec::<String>::new());
    assert_eq!(bench.one::<serde_json::Value>(rows, &[]), before);
    figure("D4-roles", &format!("6 roles, 6 ways, ledger and seals: {tried} attempts, 0 successes"));
}

#[test]
fn d4_every_change_by_a_superuser_is_told() {
    let bench = Bench::shared();
    furnish(&bench);
    all_sealed(&bench);
    let mut session = bench.connect();
    let mut mutator = Mutator::new(&mut session, 0x0d4);
    let count = rounds(100, 1000);
    let mut missed = Vec::new();
    for n in 0..count {
        let mut transaction = session.transaction().unwrap();
        let Shot { what, run_id } = mutator.shoot(&mut transaction);
        let found = verify(&mut transaction);
        let told = found[0].verdict != "OK";
        let placed = run_id.is_none_or(|id| found.iter().any(|finding| finding.run_id == Some(id)));
        if !told || !placed {
            missed.push(format!("{n}: {what}: {found:?}"));
        }
        transaction.rollback().unwrap();
    }
    assert_eq!(missed, Vec::<String>::new());
    // And nothing was left behind: neither by the changes nor in what is told.
    all_sealed(&bench);
    figure("D4", &format!("{count} random changes by a superuser, {} told", count - missed.len()));
}
