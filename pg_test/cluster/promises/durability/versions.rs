//! D7, as far as one version goes: the install script makes one schema, and a schema of another version is refused, clearly.

use std::collections::BTreeSet;

use crate::harness::bench::Params;
use crate::harness::run::Ask;
use crate::harness::{Bench, Cluster, figure, os, until};

const NO_PARAMS: Params<'_> = &[];

/// All that the extension consists of, a line each: objects, columns, constraints, indexes, triggers, functions,
/// privileges, comments, what is dumped.
const SNAPSHOT: &str = "
    WITH member AS (
        SELECT classid, objid FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'dot_wrapper'
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    ), relation AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid)
    SELECT 'member ' || pg_describe_object(classid, objid, 0) || ': ' ||
           coalesce(obj_description(objid, classid::regclass::text::name), '') FROM member
    UNION ALL SELECT 'relation ' || concat_ws(' ', oid::regclass, relkind, relacl, reloptions, relrowsecurity) FROM relation
    UNION ALL SELECT 'column ' || concat_ws(' ', r.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attidentity, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
        FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
    UNION ALL SELECT 'constraint ' || concat_ws(' ', r.oid::regclass, conname, pg_get_constraintdef(k.oid))
        FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
    UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM relation r JOIN pg_index i ON i.indrelid = r.oid
    UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid
        WHERE NOT t.tgisinternal
    UNION ALL SELECT 'view ' || r.oid::regclass || pg_get_viewdef(r.oid) FROM relation r WHERE r.relkind = 'v'
    UNION ALL SELECT 'function ' || pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '')
        FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    UNION ALL SELECT 'dumped ' || concat_ws(' ', t::regclass, c)
        FROM pg_extension x, unnest(x.extconfig, x.extcondition) AS u (t, c) WHERE x.extname = 'dot_wrapper'
    UNION ALL SELECT 'version ' || extversion FROM pg_extension WHERE extname = 'dot_wrapper'";

fn snapshot(bench: &Bench) -> BTreeSet<String> {
    bench.exec("SET search_path = ''");
    let lines = bench.all(SNAPSHOT, NO_PARAMS).into_iter().collect();
    bench.exec("RESET search_path");
    lines
}

#[test]
fn d7_however_it_comes_the_extension_is_the_same() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    let fresh = snapshot(&bench);
    assert!(fresh.len() > 200, "{} lines", fresh.len());
    let file = bench.cluster.dir().join(format!("{}.d7", bench.name));
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    let restored = Bench::empty(Cluster::shared());
    os::run(bench.cluster.client("pg_restore", &restored.name).args(["-e", "-d", &restored.name]).arg(&file));
    // The same version again is no change.
    restored.exec("ALTER EXTENSION dot_wrapper UPDATE");
    let differs = fresh.symmetric_difference(&snapshot(&restored)).count();
    bench.exec("SET dot_wrapper.allow_drop = on; DROP EXTENSION dot_wrapper; CREATE EXTENSION dot_wrapper");
    let differs = differs + fresh.symmetric_difference(&snapshot(&bench)).count();
    figure(
        "D7",
        &format!("one version: {} lines of schema, made, made again and restored: {differs} differ", fresh.len()),
    );
    assert_eq!(differs, 0);
}

#[test]
fn d7_a_schema_of_another_version_is_refused_and_nothing_is_sent() {
    let bench = Bench::shared();
    bench.drain();
    let own: String = bench.one("SELECT extversion FROM pg_extension WHERE extname = 'dot_wrapper'", NO_PARAMS);
    bench.exec("UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'dot_wrapper'");
    for call in ["SELECT fn_dot_run('DOT-1', 'apply')", "SELECT * FROM fn_dot_doctor()", "SELECT fn_dot_resume()"] {
        let error = bench.error(call);
        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains("version 99.0"), "{error:?}");
        assert!(error.hint().unwrap_or_default().contains("ALTER EXTENSION dot_wrapper UPDATE"), "{error:?}");
    }
    // Left over from before the update.
    bench.exec("SELECT dot_wrapper.announce()");
    until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let line = format!("no worker in database \"{}\": the library does not know this version", bench.name);
    until("the log says why", || bench.cluster.log().contains(&line).then_some(()));
    // As ALTER EXTENSION UPDATE to a version that is known would leave it.
    bench.exec(&format!(
        "BEGIN; UPDATE pg_extension SET extversion = '{own}' WHERE extname = 'dot_wrapper';
                         ALTER EXTENSION dot_wrapper UPDATE; COMMIT"
    ));
    bench.until(&bench.apply("DOT-1"), "succeeded");
    assert!(Ask::new("DOT-1", "plan").on(&mut *bench.session()).is_ok());
}
