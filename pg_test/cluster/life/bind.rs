//! A substrate function that does not fit, and the adapter that is bound in its place.

use crate::harness::{Bench, Cluster, Run, until};

/// A toggle that answers in words, as an older substrate did.
const MISFIT: &str =
    "CREATE FUNCTION fn_dot_iu_operator_runtime_enabled() RETURNS text LANGUAGE sql AS $$ SELECT 'yes' $$";
const ADAPTER: &str = "CREATE FUNCTION toggle_adapter() RETURNS boolean LANGUAGE sql AS
                       $$ SELECT fn_dot_iu_operator_runtime_enabled() = 'yes' $$";

#[test]
fn a_function_that_does_not_fit_refuses_until_an_adapter_is_bound() {
    let bench = Bench::empty(Cluster::shared());
    bench.exec(MISFIT);
    bench.exec("CREATE EXTENSION dot_wrapper");
    bench.furnish();
    let refused = bench.apply("DOT-1");
    assert_eq!((refused.status(), refused.reason()), ("refused", "toggle_unbound"));
    assert!(refused.text("message").contains("returns text"), "{refused:?}");
    let advice: String =
        bench.one("SELECT advice FROM fn_dot_doctor() WHERE check_name = 'port toggle' AND verdict = 'BLOCK'", &[]);
    assert!(advice.contains("fn_dot_bind"), "{advice}");

    bench.exec(ADAPTER);
    let bound: String =
        bench.one("SELECT origin || ' ' || function FROM fn_dot_bind('toggle', 'toggle_adapter()')", &[]);
    assert_eq!(bound, "bound public.toggle_adapter()");
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.exec("DROP FUNCTION toggle_adapter()");
    assert_eq!(bench.apply("DOT-1").reason(), "toggle_unbound", "what is bound and gone is unbound");
    bench.exec(ADAPTER);
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.exec("SELECT fn_dot_bind('toggle', NULL)");
    assert_eq!(bench.apply("DOT-1").reason(), "toggle_unbound");
}

#[test]
fn only_what_fits_and_is_trusted_can_be_bound() {
    let bench = Bench::shared();
    let stranger = bench.role("stranger");
    bench.exec(&format!(
        "CREATE FUNCTION fits() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION words() RETURNS text LANGUAGE sql AS $$ SELECT 'yes' $$;
         CREATE FUNCTION many() RETURNS SETOF boolean LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION wants(integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE PROCEDURE calls() LANGUAGE sql AS '';
         CREATE FUNCTION strange() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         ALTER FUNCTION strange() OWNER TO {stranger}"
    ));
    for (port, function, state) in [
        ("'toggle'", "'words()'", "22023"),
        ("'toggle'", "'many()'", "22023"),
        ("'toggle'", "'wants(integer)'", "22023"),
        ("'toggle'", "'calls()'", "22023"),
        ("'toggle'", "'strange()'", "42501"),
        ("'lease_acquire'", "'fits()'", "22023"),
        ("'lease_release'", "'fits()'", "22023"),
        ("'teleport'", "'fits()'", "22023"),
        ("'toggle'", "4294967295::oid::regprocedure", "42704"),
        ("NULL", "'fits()'", "22004"),
    ] {
        let error = bench.error(&format!("SELECT fn_dot_bind({port}, {function})"));
        assert_eq!(error.code().code(), state, "{port} {function}: {error:?}");
    }
    bench.exec("SELECT fn_dot_bind('toggle', 'fits()')");
    bench.until(&bench.apply("DOT-1"), "succeeded");
}

/// Neither the functions behind the ports nor the extension itself need to lie where everybody may look.
#[test]
fn schemas_that_are_closed_to_all_do_not_stop_the_worker() {
    let bench = Bench::empty(Cluster::shared());
    bench.exec(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA ops; CREATE SCHEMA company;
         CREATE FUNCTION company.toggle() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE EXTENSION dot_wrapper SCHEMA ops;
         SELECT ops.fn_dot_bind('toggle', 'company.toggle()');
         SET search_path = ops, public",
    );
    bench.furnish();
    let sql = "SELECT to_jsonb(r) FROM ops.fn_dot_run('DOT-1', $1) r";
    for mode in ["apply", "verify"] {
        let run = Run(bench.one(sql, &[&mode]));
        bench.until(&run, "succeeded");
    }
    let moved = "SELECT usage_count FROM ops.dot_tools WHERE code = 'DOT-1'";
    until("the counter has moved", || (bench.one::<i64>(moved, &[]) == 2).then_some(()));
}
