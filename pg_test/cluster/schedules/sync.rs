//! `fn_dot_schedule_sync`: where there is no pg_cron, where it is another's, and what it makes of declarations.

use super::synced;
use crate::harness::bench::db_error;
use crate::harness::{Bench, Cron};

const JOBS: &str = "SELECT concat_ws('|', jobname, schedule, command, username) FROM cron.job ORDER BY 1";

fn jobs(bench: &Bench) -> Vec<String> {
    bench.all(JOBS, &[])
}

#[test]
fn without_pg_cron_it_says_so_and_changes_nothing() {
    let bench = Bench::shared();
    bench.exec("UPDATE dot_tools SET trigger_type = 'cron', schedule = '* * * * *'");
    // A schema of that name is not the extension's, and nothing in it is called.
    bench.exec(
        "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, jobname text, schedule text, command text);
         CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''planted''; END'",
    );
    let told = synced(&bench, &mut bench.session());
    let advice = format!(
        "unavailable|pg_cron is not loaded; add it to shared_preload_libraries, set cron.database_name = '{}', restart, and CREATE EXTENSION pg_cron",
        bench.name
    );
    assert_eq!(told, [advice]);
}

#[test]
fn declarations_become_jobs_and_what_is_not_declared_any_more_is_removed() {
    let Some(cron) = Cron::start() else { return };
    let bench = cron.bench();
    let role = bench.role("operator");
    bench.exec(&format!(
        "INSERT INTO dot_tools (code, name, status, execution_engine) VALUES ('it''s \\\"$$;', 'odd', 'active', 'agent_api');
         UPDATE dot_tools SET trigger_type = 'cron', schedule = '1 * * * *' WHERE code IN ('DOT-1', 'DOT-2', 'it''s \\\"$$;');
         UPDATE dot_tools SET trigger_type = 'dual' WHERE code IN ('DOT-3', 'DOT-4');
         UPDATE dot_tools SET trigger_type = 'cron', schedule = '5/2 * * * *' WHERE code = 'DOT-5';
         INSERT INTO dot_wrapper.schedule (code, schedule) VALUES ('DOT-2', '@daily'), ('DOT-3', '*/5 * * * *'),
             ('DOT-6', '@daily'), ('DOT-9', '@daily'), (E'new\\nline', '@daily');
         INSERT INTO dot_tools (code, name, status, execution_engine, trigger_type) VALUES (E'new\\nline', 'x', 'active', 'agent_api', 'dual');
         SELECT cron.schedule('dot_wrapper:mine', '0 0 * * *', 'SELECT 1');
         SELECT cron.schedule('other', '0 0 * * *', 'SELECT public.fn_dot_tick(''DOT-1'')');
         GRANT EXECUTE ON FUNCTION fn_dot_schedule_sync TO {role}"
    ));
    may_not_sync_without_rights(bench, &role);

    let mut session = bench.connect_as(&role);
    let first = synced(bench, &mut session);
    let expected = [
        "DOT-1|created",
        "DOT-2|created",
        "DOT-3|created",
        "DOT-4|invalid|no schedule is declared; see dot_wrapper.schedule",
        "DOT-5|invalid|\"5/2\" is no minute; a step needs a range before it, or *",
        "DOT-6|invalid|its trigger_type is neither cron nor dual",
        "DOT-9|invalid|there is no such tool",
        "it's \\\"$$;|created",
        "new\nline|invalid|code must not contain control characters",
    ];
    assert_eq!(first, expected);
    let job = |rest: &str| format!("dot_wrapper:{rest}|{role}");
    let made = [
        job("DOT-1|1 * * * *|SELECT public.fn_dot_tick('DOT-1')"),
        job("DOT-2|@daily|SELECT public.fn_dot_tick('DOT-2')"),
        job("DOT-3|*/5 * * * *|SELECT public.fn_dot_tick('DOT-3')"),
        job("it's \\\"$$;|1 * * * *|SELECT public.fn_dot_tick(E'it''s \\\\\"$$;')"),
        "dot_wrapper:mine|0 0 * * *|SELECT 1|postgres".to_owned(),
        "other|0 0 * * *|SELECT public.fn_dot_tick('DOT-1')|postgres".to_owned(),
    ];
    assert_eq!(jobs(bench), made);

    bench.exec(
        "UPDATE dot_wrapper.schedule SET schedule = '@hourly' WHERE code = 'DOT-2';
         UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-3'; DELETE FROM dot_tools WHERE code LIKE 'it%'",
    );
    let second = synced(bench, &mut session);
    let changed = ["DOT-1|kept", "DOT-2|changed|it was @daily", "DOT-3|removed|its status is retired"];
    assert_eq!(second[..3], changed);
    assert!(second.contains(&"it's \\\"$$;|removed|it is not needed any more".to_owned()), "{second:?}");
    assert_eq!(jobs(bench).len(), 4);

    leaves_alone_what_others_have_made(bench, &role);
    is_unavailable_elsewhere_and_where_it_is_not_what_it_was(&cron);
}

fn may_not_sync_without_rights(bench: &Bench, role: &str) {
    let mut session = bench.connect_as(role);
    let grants = [
        ("permission denied for function fn_dot_run", "EXECUTE ON FUNCTION fn_dot_run"),
        ("permission denied for function fn_dot_tick", "EXECUTE ON FUNCTION fn_dot_tick"),
        ("permission denied for schema cron", "USAGE ON SCHEMA cron"),
    ];
    for (message, grant) in grants {
        let error = db_error(session.batch_execute("SELECT * FROM fn_dot_schedule_sync()").unwrap_err());
        assert_eq!((error.code().code(), error.message()), ("42501", message));
        bench.exec(&format!("GRANT {grant} TO {role}"));
    }
}

fn leaves_alone_what_others_have_made(bench: &Bench, role: &str) {
    // A superuser sees the jobs of all, and leaves what another role has made as it is; a job that is not ours, too.
    bench.exec("UPDATE dot_tools SET status = 'active' WHERE code = 'DOT-3'; UPDATE dot_tools SET code = 'mine' WHERE code = 'DOT-5';
                UPDATE dot_tools SET schedule = '@hourly' WHERE code = 'mine'");
    let third = synced(bench, &mut bench.session());
    let kept = format!("DOT-1|kept|it runs as role {role}, and stays as that role has made it");
    assert!(third.contains(&kept) && third.contains(&"DOT-3|created".to_owned()), "{third:?}");
    assert!(third.contains(&"mine|invalid|a job of this name does something else".to_owned()), "{third:?}");
    assert_eq!(jobs(bench).len(), 5);

    // Also where the superuser, or a third role, has a job of the same tool; what nobody needs goes, whoever's it is.
    bench.exec(
        "UPDATE cron.job SET username = 'postgres' WHERE jobname = 'dot_wrapper:DOT-3';
                INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, jobname)
                    SELECT '7 7 * * *', command, nodename, nodeport, database, rolname, jobname FROM cron.job, pg_roles
                    WHERE jobname = 'dot_wrapper:DOT-3' AND rolname IN ('pg_monitor', 'pg_signal_backend')",
    );
    let fourth = synced(bench, &mut bench.session());
    let kept = |other: &str| format!("DOT-3|kept|it runs as role {other}, and stays as that role has made it");
    let all = ["DOT-3|kept".to_owned(), kept("pg_monitor"), kept("pg_signal_backend")];
    let found: Vec<&String> = fourth.iter().filter(|row| row.starts_with("DOT-3")).collect();
    assert_eq!(found, all.iter().collect::<Vec<_>>());
    assert_eq!(jobs(bench).len(), 7);
    bench.exec("DELETE FROM cron.job WHERE jobname = 'dot_wrapper:DOT-3' AND username = 'postgres'");
    let fifth = synced(bench, &mut bench.session());
    assert_eq!(fifth.iter().filter(|row| row.starts_with("DOT-3|kept|")).count(), 2, "{fifth:?}");
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-3'");
    let sixth = synced(bench, &mut bench.session());
    let gone = sixth.iter().filter(|row| **row == "DOT-3|removed|its status is retired").count();
    assert_eq!((gone, jobs(bench).len()), (2, 4), "{sixth:?}");
}

fn is_unavailable_elsewhere_and_where_it_is_not_what_it_was(cron: &Cron) {
    let bench = cron.bench();
    let elsewhere = Bench::on(std::sync::Arc::clone(&bench.cluster));
    elsewhere.exec("UPDATE dot_tools SET trigger_type = 'cron', schedule = '* * * * *'");
    let told = synced(&elsewhere, &mut elsewhere.session());
    assert!(
        told.len() == 1 && told[0].starts_with("unavailable|pg_cron keeps its jobs in database scheduled"),
        "{told:?}"
    );

    bench.exec("ALTER EXTENSION pg_cron DROP FUNCTION cron.schedule(text, text, text)");
    let told = synced(bench, &mut bench.session());
    assert!(told.len() == 1 && told[0].contains("are not those of the extension"), "{told:?}");
    bench.exec("ALTER EXTENSION pg_cron ADD FUNCTION cron.schedule(text, text, text); DROP EXTENSION pg_cron");
    let told = synced(bench, &mut bench.session());
    assert!(told.len() == 1 && told[0].contains("not installed in this database"), "{told:?}");
}

/// What we take for a schedule, pg_cron does too; what it refuses, we do.
#[test]
fn schedules_are_read_as_pg_cron_reads_them() {
    let Some(cron) = Cron::start() else { return };
    let bench = cron.bench();
    let texts = [
        "* * * * *",
        "@hourly",
        "@daily",
        "@midnight",
        "@weekly",
        "@monthly",
        "0 0 1 1 *",
        "*/5 0-23/2 1,15 jan-MAR mon,FRI",
        " 1\t2 3 4 7 ",
        "0 0 * * sun-sat",
        "59 23 31 12 0",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "nonsense",
        "* * * *",
        "*/0 * * * *",
        "a b c d e",
        "",
    ];
    for (at, text) in texts.iter().enumerate() {
        let code = format!("PARSE-{at}");
        let sql = "INSERT INTO dot_tools (code, name, status, execution_engine, trigger_type) VALUES ($1, $1, 'active', 'agent_api', 'cron')";
        bench.session().execute(sql, &[&code]).unwrap();
        let sql = "INSERT INTO dot_wrapper.schedule (code, schedule) VALUES ($1, coalesce(nullif($2, ''), ' '))";
        bench.session().execute(sql, &[&code, text]).unwrap();
    }
    let ours = synced(bench, &mut bench.session());
    let mut taken = 0;
    for (at, text) in texts.iter().enumerate() {
        let row = ours.iter().find(|row| row.starts_with(&format!("PARSE-{at}|"))).unwrap();
        let theirs = bench.session().query_one("SELECT cron.schedule('probe', $1, 'SELECT 1')", &[text]).is_ok();
        assert_eq!(row.ends_with("|created"), theirs, "{text}: {row}");
        assert!(!row.contains("pg_cron says"), "{text}: {row}");
        taken += usize::from(theirs);
    }
    assert_eq!(taken, 11);
}
