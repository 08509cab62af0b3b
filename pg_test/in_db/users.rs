//! Running as another role: everything is switched together, and everything comes back, whichever way it ends.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_db::fixture::{error_of, run, standing, text};
    use crate::pg::user::{self, Trust};
    use crate::pg::xact;

    fn role(name: &str) -> pg_sys::Oid {
        run(&format!("CREATE ROLE {name}"));
        Spi::get_one::<pg_sys::Oid>(&format!("SELECT oid FROM pg_roles WHERE rolname = '{name}'")).unwrap().unwrap()
    }

    fn who() -> String {
        text("SELECT concat_ws(' ', current_user, current_setting('search_path'))")
    }

    #[pg_test]
    fn role_and_path_are_switched_and_come_back() {
        let (inner, before) = (role("in_db_user_a"), standing());
        let seen = user::run_as(inner, Trust::Own, "pg_catalog, pg_temp", || (who(), user::current()));
        assert_eq!(seen, ("in_db_user_a pg_catalog, pg_temp".to_owned(), inner));
        assert_eq!(standing(), before);
        assert_eq!(user::name_of(inner), "in_db_user_a");
    }

    #[pg_test]
    fn one_inside_the_other_comes_back_to_the_outer() {
        let (outer, inner, before) = (role("in_db_user_b"), role("in_db_user_c"), standing());
        user::run_as(outer, Trust::Own, "pg_catalog", || {
            let caught = xact::subtransaction(|| {
                user::run_as(inner, Trust::Foreign, "information_schema", || {
                    assert_eq!(who(), "in_db_user_c information_schema");
                    run("SELECT 1 / 0");
                });
            });
            assert_eq!(caught.unwrap_err().sqlstate, "22012");
            assert_eq!(who(), "in_db_user_b pg_catalog");
        });
        assert_eq!(standing(), before);
    }

    #[pg_test]
    fn an_error_and_a_panic_inside_bring_everything_back() {
        let (inner, before) = (role("in_db_user_d"), standing());
        for body in [|| run("SELECT 1 / 0"), || panic!("a panic of ours")] {
            let caught = xact::subtransaction(|| user::run_as(inner, Trust::Foreign, "pg_catalog", body)).unwrap_err();
            assert!(["22012", "XX000"].contains(&caught.sqlstate.as_str()), "{caught}");
            assert_eq!(standing(), before);
        }
    }

    #[pg_test]
    fn what_the_body_sets_does_not_outlive_it() {
        let (inner, before) = (role("in_db_user_e"), standing());
        user::run_as(inner, Trust::Foreign, "pg_catalog", || {
            run("SET work_mem = '88kB'; SET search_path = public; SET LOCAL application_name = 'somebody else'");
        });
        assert_eq!(standing(), before);
        assert_ne!(text("SHOW application_name"), "somebody else");
    }

    #[pg_test]
    fn somebody_elses_code_is_restricted_and_ours_is_not() {
        let inner = role("in_db_user_f");
        run("GRANT TEMPORARY ON DATABASE pgrx_tests TO in_db_user_f");
        for sql in [
            "CREATE TEMP TABLE in_db_left ()",
            "DECLARE in_db_cursor CURSOR WITH HOLD FOR SELECT 1",
            "SET ROLE NONE",
            "SET SESSION AUTHORIZATION DEFAULT",
        ] {
            let caught = xact::subtransaction(|| user::run_as(inner, Trust::Foreign, "pg_catalog", || run(sql)));
            assert_eq!(caught.expect_err(sql).sqlstate, "42501", "{sql}");
        }
        user::run_as(inner, Trust::Own, "pg_catalog", || run("CREATE TEMP TABLE in_db_ours ()"));
        assert_eq!(text("SELECT tableowner::text FROM pg_tables WHERE tablename = 'in_db_ours'"), "in_db_user_f");
    }

    #[pg_test]
    fn the_role_has_its_own_rights_and_no_others() {
        let inner = role("in_db_user_g");
        let read = || run("SELECT FROM dot_wrapper.dot_run");
        let caught = xact::subtransaction(|| user::run_as(inner, Trust::Own, "pg_catalog", read)).unwrap_err();
        assert_eq!(caught.sqlstate, "42501");
        read();
        assert_eq!(error_of("SET ROLE in_db_user_g; SELECT FROM dot_wrapper.dot_run").sqlstate, "42501");
    }
}
