//! Subtransactions that hand an error back: the inner part is undone, the outer goes on.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_db::fixture::{error_of, holds, run, text};
    use crate::pg::caught::Caught;
    use crate::pg::{settings, xact};

    fn table() {
        run("CREATE TEMP TABLE in_db_x (n integer CONSTRAINT in_db_small CHECK (n < 10))");
    }

    fn numbers() -> String {
        text("SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM in_db_x")
    }

    #[pg_test]
    fn what_succeeds_stays_and_what_fails_is_undone() {
        table();
        assert_eq!(xact::subtransaction(|| run("INSERT INTO in_db_x VALUES (1)")), Ok(()));
        let caught = xact::subtransaction(|| run("INSERT INTO in_db_x VALUES (2); INSERT INTO in_db_x VALUES (20)"));
        assert_eq!(caught.unwrap_err().sqlstate, "23514");
        run("INSERT INTO in_db_x VALUES (3)");
        assert_eq!(numbers(), "1 3");
    }

    #[pg_test]
    fn an_err_of_the_body_undoes_it_too() {
        table();
        let body = || {
            run("INSERT INTO in_db_x VALUES (1)");
            Err::<(), _>("changed my mind")
        };
        assert_eq!(xact::subtransaction_or_rollback(body), Ok(Err("changed my mind")));
        assert_eq!(numbers(), "");
    }

    #[pg_test]
    fn one_inside_the_other_is_undone_by_itself() {
        table();
        let outer = xact::subtransaction(|| {
            run("INSERT INTO in_db_x VALUES (1)");
            let inner = xact::subtransaction(|| {
                run("INSERT INTO in_db_x VALUES (2)");
                panic!("a panic of ours");
            });
            run("INSERT INTO in_db_x VALUES (3)");
            inner.unwrap_err()
        });
        let caught = outer.unwrap();
        assert_eq!((caught.sqlstate.as_str(), caught.message.as_str()), ("XX000", "a panic of ours"));
        assert_eq!(numbers(), "1 3");
    }

    #[pg_test]
    fn a_caught_error_keeps_its_parts_and_raises_with_them_again() {
        run("CREATE FUNCTION pg_temp.in_db_raise() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'the message' USING ERRCODE = '55000', DETAIL = 'the detail', HINT = 'the hint'; END $$");
        let want = Caught {
            sqlstate: "55000".into(),
            message: "the message".into(),
            detail: Some("the detail".into()),
            hint: Some("the hint".into()),
        };
        let caught = error_of("SELECT pg_temp.in_db_raise()");
        assert_eq!(caught, want);
        assert_eq!(xact::subtransaction(|| -> () { caught.raise() }).unwrap_err(), want);
    }

    #[pg_test]
    fn what_the_body_allocates_outlives_it() {
        let texts: Vec<String> =
            (0..50).map(|n| xact::subtransaction(|| text(&format!("SELECT repeat('{n} ', 5000)"))).unwrap()).collect();
        assert!(texts.iter().enumerate().all(|(n, t)| t.starts_with(&format!("{n} {n} "))));
    }

    #[pg_test]
    fn many_of_them_leave_the_session_as_it_was() {
        table();
        let held =
            || text("SELECT count(*)::text FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid()");
        run("INSERT INTO in_db_x VALUES (0)");
        let before = held();
        for n in 0..300 {
            let wanted = n % 2 == 0;
            let sql = format!("INSERT INTO in_db_x VALUES ({})", if wanted { 1 } else { 99 });
            assert_eq!(xact::subtransaction(|| run(&sql)).is_ok(), wanted);
        }
        assert!(holds("SELECT count(*) = 151 FROM in_db_x"));
        assert_eq!(held(), before);
    }

    #[pg_test]
    fn a_transaction_of_a_worker_is_refused_inside_another() {
        assert!(xact::is_open());
        assert_eq!(xact::transaction(|| ()).unwrap_err().sqlstate, "XX000");
        assert!(xact::is_open());
    }

    #[pg_test]
    fn a_transaction_knows_its_own_ids_in_savepoints_too() {
        table();
        let own = |sql: &str| {
            let xid: u32 = text(sql).parse().unwrap();
            settings::is_own_transaction(xid)
        };
        let inner = xact::subtransaction(|| {
            run("INSERT INTO in_db_x VALUES (1)");
            own("SELECT xmin::text FROM in_db_x")
        });
        assert_eq!(inner, Ok(true));
        assert!(own("SELECT xmin::text FROM in_db_x"), "released");
        assert!(!own("SELECT xmin::text FROM pg_class WHERE relname = 'pg_class'"));
    }
}
