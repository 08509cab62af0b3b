//! Statements that are prepared once per session: they follow what happens to the objects they name.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::domain::error::SqlState;
    use crate::in_db::fixture::{alone, beside_others, holds, open_gates, run, text};
    use crate::pg::{session, xact};
    use crate::store::{extension, grant, usage};

    #[pg_test]
    fn no_row_is_none_and_rows_are_counted() {
        beside_others();
        assert_eq!(grant::next_due(f64::NEG_INFINITY).map(|due| due.in_ms()), Ok(None));
        assert_eq!(grant::prolong("nobody's", uuid::Uuid::nil(), 60), Ok(None));
        usage::owe(&["B".into(), "A".into(), "B".into()]).unwrap();
        usage::owe(&["B".into()]).unwrap();
        let mut debts: Vec<_> = usage::collect().unwrap().into_iter().map(|d| (d.code, d.executions)).collect();
        debts.sort();
        assert_eq!(debts, [("A".to_owned(), 1), ("B".to_owned(), 3)]);
        assert_eq!(usage::collect().unwrap().len(), 0);
    }

    /// Entries of the index by renewal that this transaction has read.
    fn entries_read() -> i64 {
        let sql = "SELECT pg_stat_get_xact_tuples_returned('dot_wrapper.lease_grant_renew'::regclass)";
        Spi::get_one(sql).unwrap().unwrap()
    }

    #[pg_test]
    fn grants_that_are_over_are_not_read_again_where_nothing_was_due_before() {
        alone();
        // What a snapshot keeps: the rows are gone, and their entries are not.
        run("INSERT INTO dot_wrapper.lease_grant (lease_key, run_id, fencing_token, ttl_s, expires_at, renew_at)
             SELECT 'k' || n, gen_random_uuid(), n, 60, now(), now() - interval '1 h' + n * interval '1 ms' FROM generate_series(1, 1000) n;
             DELETE FROM dot_wrapper.lease_grant WHERE lease_key <> 'k1000'");
        let before = entries_read();
        let due = grant::next_due(f64::NEG_INFINITY).unwrap();
        assert!(due.in_ms().unwrap() < 0.0, "{due:?}");
        let whole = entries_read();
        assert!(whole - before >= 999, "{before} and {whole}");
        let from = due.first.unwrap() - 0.001;
        assert_eq!(grant::next_due(from).map(|due| due.first), Ok(due.first));
        assert_eq!(grant::due(10, from).unwrap().0.len(), 1);
        assert!(entries_read() - whole <= 10, "{} and {whole}", entries_read());
        assert_eq!(grant::next_due(due.now).map(|due| due.first), Ok(None));
    }

    #[pg_test]
    fn a_row_of_another_shape_is_a_defect_of_ours_and_says_where() {
        alone();
        run("ALTER TABLE dot_wrapper.instance DROP CONSTRAINT instance_key_long, ALTER permit_key DROP NOT NULL;
             UPDATE dot_wrapper.instance SET permit_key = NULL");
        let error = extension::instance(session::system_identifier()).unwrap_err();
        assert_eq!(error.state, SqlState::Internal);
        assert!(error.message.contains("in: SELECT i.system_identifier"), "{}", error.message);
        assert!(error.hint.is_some());
    }

    /// What a plan says of the lease: it looks into the lease table with a statement that the session keeps.
    fn lease() -> String {
        text(
            "SELECT jsonb_path_query_first(gates, '$[*] ? (@.gate == \"lease\").reason') #>> '{}' FROM fn_dot_run('A')",
        )
    }

    #[pg_test]
    fn a_table_that_was_made_anew_is_found() {
        alone();
        open_gates();
        let table = "CREATE TABLE dot_iu_runtime_lease (lease_key text, holder text, expires_at timestamptz)";
        assert_eq!(lease(), "ok");
        run(
            "SET LOCAL dot_wrapper.allow_drop = on; ALTER EXTENSION dot_wrapper DROP TABLE dot_iu_runtime_lease; DROP TABLE dot_iu_runtime_lease",
        );
        assert_eq!(lease(), "lease_not_tried");
        run(table);
        assert_eq!(lease(), "ok");
        run("INSERT INTO dot_iu_runtime_lease VALUES ('tool:A', 'x', 'tomorrow');
             ALTER TABLE dot_iu_runtime_lease ADD note text, DROP holder");
        assert_eq!(lease(), "lease_held");
        run("ALTER TABLE dot_iu_runtime_lease RENAME lease_key TO key");
        assert_eq!(lease(), "lease_not_tried");
        run("DROP TABLE dot_iu_runtime_lease");
        run(table);
        assert_eq!(lease(), "ok");
    }

    #[pg_test]
    fn a_plan_made_in_an_aborted_subtransaction_serves_afterwards() {
        open_gates();
        assert_eq!(xact::subtransaction_or_rollback(|| Err::<(), _>(lease())), Ok(Err("ok".to_owned())));
        assert_eq!(lease(), "ok");
    }

    #[pg_test]
    fn the_extension_can_be_dropped_and_made_anew_in_one_session() {
        alone();
        let plan = "SELECT run_status FROM fn_dot_run('A')";
        open_gates();
        let old = extension::current().unwrap();
        assert_eq!(text(plan), "planned");
        run("SET LOCAL dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper CASCADE");
        let error = extension::current().unwrap_err();
        assert_eq!(error.state, SqlState::ObjectNotInPrerequisiteState);
        run("CREATE EXTENSION dot_wrapper");
        assert_ne!(extension::current().unwrap().oid, old.oid);
        assert_eq!(text(plan), "refused", "an empty catalogue");
        open_gates();
        assert_eq!(text(plan), "planned");
        assert_eq!(text("SELECT run_status FROM fn_dot_run('A', 'apply')"), "queued");
        assert!(holds("SELECT count(*) = 3 FROM dot_wrapper.dot_run"));
    }

    #[pg_test]
    fn the_extension_can_come_back_in_another_schema_with_the_session_open() {
        alone();
        open_gates();
        assert_eq!(text("SELECT run_status FROM fn_dot_run('A')"), "planned");
        run(
            "SET LOCAL dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper CASCADE; CREATE SCHEMA \"In db\"; CREATE EXTENSION dot_wrapper SCHEMA \"In db\"",
        );
        assert_eq!(extension::current().unwrap().schema, "\"In db\"");
        assert_eq!(text("SELECT reason FROM \"In db\".fn_dot_run('A')"), "uncatalogued");
        run("INSERT INTO \"In db\".dot_tools (code, name, execution_engine) VALUES ('A', 'A', 'agent_api')");
        assert_eq!(text("SELECT reason FROM \"In db\".fn_dot_run('A')"), "endpoint_missing");
    }
}
