//! Ticks that are asked for by hand: what makes one, that it runs once, and what refuses it. No pg_cron is needed.

use serde_json::json;

use super::tick;
use crate::harness::bench::db_error;
use crate::harness::run::{Ask, Run};
use crate::harness::{Bench, Reply, until};
use crate::triggers::busy;

/// Due at midnight, so that its tick is that of today as long as the test runs, with all day to start.
fn scheduled(trigger: &str, overlap: &str) -> Bench {
    let bench = Bench::shared();
    bench.exec(&format!(
        "UPDATE dot_tools SET trigger_type = '{trigger}';
         INSERT INTO dot_wrapper.schedule (code, schedule, overlap, window_s, args)
             SELECT code, '0 0 * * *', '{overlap}', 86400, '{{\"n\": 1}}' FROM dot_tools"
    ));
    bench
}

#[test]
fn a_tick_runs_once_however_often_and_by_how_many_it_is_asked_for() {
    let bench = scheduled("cron", "skip");
    let first = tick(&mut *bench.session(), "DOT-1");
    assert_eq!((first.status(), first.text("source")), ("queued", "schedule"), "{first:?}");
    assert_eq!((first.text("source_ref"), &first.0["args"]), ("dot_wrapper:DOT-1", &json!({"n": 1})));
    let today: String = bench.one(
        "SELECT 'tick:' || to_char(date_trunc('day', now() AT TIME ZONE 'GMT'), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        &[],
    );
    assert_eq!(first.text("idempotency_key"), today);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(tick(&mut bench.connect(), "DOT-1").id(), first.id()));
        }
    });
    let done = bench.until(&first, "succeeded");
    assert_eq!(tick(&mut *bench.session(), "DOT-1").id(), done.id());
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn a_tick_that_comes_too_late_is_refused_and_one_that_waits_too_long_expires() {
    let bench = scheduled("cron", "queue");
    bench.exec("UPDATE dot_wrapper.schedule SET schedule = '0 0 1 1 *', window_s = 1 WHERE code = 'DOT-1'");
    let late = tick(&mut *bench.session(), "DOT-1");
    assert_eq!((late.status(), late.reason()), ("refused", "missed_window"), "{late:?}");
    assert_eq!(bench.block(&late, "request").0, "deadline");
    assert_eq!(late.gate("deadline").unwrap()["inputs"]["window_s"], 1);

    // The rest of the window is what a queued tick has to start in.
    bench.agent.reply(Reply::Hold);
    bench.ask(&Ask::new("DOT-2", "apply"));
    let held = bench.agent.wait_for(1).remove(0);
    let elapsed =
        "SELECT extract(epoch FROM now() - date_trunc('day', now() AT TIME ZONE 'GMT') AT TIME ZONE 'GMT')::int";
    let window = bench.one::<i32>(elapsed, &[]).clamp(0, 86_395) + 4;
    bench.exec(&format!("UPDATE dot_wrapper.schedule SET window_s = {window} WHERE code = 'DOT-2'"));
    let waiting = tick(&mut *bench.session(), "DOT-2");
    assert_eq!(waiting.status(), "queued", "{waiting:?}");
    let is_over = "SELECT start_by < clock_timestamp() FROM dot_wrapper.dot_run WHERE run_id = $1";
    until("its window is over", || bench.one::<bool>(is_over, &[&waiting.id()]).then_some(()));
    bench.agent.release(&held, Reply::succeeded());
    assert_eq!(bench.until(&waiting, "expired").reason(), "start_by_passed");
    assert_eq!(bench.agent.count(), 1);
}

#[test]
fn overlap_skips_queues_or_leaves_it_to_the_lease() {
    for (overlap, status, reason) in
        [("skip", "refused", "overlapping"), ("queue", "queued", ""), ("allow", "refused", "lease_held")]
    {
        let bench = scheduled("cron", overlap);
        bench.agent.reply(Reply::Hold);
        let other = bench.apply("DOT-1");
        let held = bench.agent.wait_for(1).remove(0);
        let asked = tick(&mut *bench.session(), "DOT-1");
        assert_eq!((asked.status(), asked.reason()), (status, reason), "{overlap}: {asked:?}");
        bench.agent.reply(Reply::succeeded());
        bench.agent.release(&held, Reply::succeeded());
        bench.until(&other, "succeeded");
        // A refusal does not use the tick up.
        let again = tick(&mut *bench.session(), "DOT-1");
        assert_eq!(again.id() == asked.id(), overlap == "queue");
        bench.until(&again, "succeeded");
        assert_eq!(bench.agent.count(), 2);
    }
}

/// A dual tool's table and what is bound to it: columns and values on top of tool and table.
fn watched(bench: &Bench, code: &str, columns: &str, values: &str) {
    bench.exec(&format!(
        "CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, v int);
         INSERT INTO dot_wrapper.trigger_binding (code, relation, {columns}) VALUES ('{code}', 'public.t', {values});
         SELECT * FROM fn_dot_trigger_sync()"
    ));
}

#[test]
fn a_tick_of_a_dual_tool_does_nothing_when_an_event_since_its_moment_has_done_its_work() {
    for overlap in ["skip", "queue", "allow"] {
        let bench = scheduled("dual", overlap);
        watched(&bench, "DOT-2", "args, events", "'{\"n\": 1}', '{insert}'");
        watched(&bench, "DOT-3", "args, events", "'{\"n\": 1}', '{update}'");
        let event = |code: &str, sql: &str, status: &str| {
            bench.exec(sql);
            let last = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE code = $1 AND source = 'trigger' ORDER BY run_id DESC LIMIT 1";
            bench.until(&Run(bench.one(last, &[&code])), status)
        };
        // What failed has not done it; nor has what somebody called himself.
        bench.agent.reply(Reply::ended("failed"));
        event("DOT-2", "INSERT INTO t VALUES (1)", "failed");
        bench.agent.reply(Reply::succeeded());
        bench.until(&bench.ask(&Ask { args: json!({"n": 1}), ..Ask::new("DOT-1", "apply") }), "succeeded");
        for code in ["DOT-1", "DOT-2"] {
            let run = tick(&mut *bench.session(), code);
            bench.until(&run, "succeeded");
        }
        let done = event("DOT-3", "UPDATE t SET v = 1", "succeeded");
        let covered = tick(&mut *bench.session(), "DOT-3");
        assert_eq!((covered.status(), covered.reason()), ("refused", "covered"), "{overlap}: {covered:?}");
        assert_eq!(bench.block(&covered, "request").0, "overlap");
        assert_eq!(covered.gate("overlap").unwrap()["inputs"]["run_id"], done.0["run_id"]);
        // Where the tool is not dual, another run is another matter; a refusal has not used the tick up.
        bench.exec("UPDATE dot_tools SET trigger_type = 'cron'");
        let run = tick(&mut *bench.session(), "DOT-3");
        bench.until(&run, "succeeded");
    }
}

/// A run for one row, in another mode or with other arguments is not what the schedule asks for; both syncs say so.
#[test]
fn an_event_that_does_less_than_a_tick_neither_refuses_it_nor_takes_its_place_and_the_sync_says_so() {
    let bench = scheduled("dual", "skip");
    watched(&bench, "DOT-1", "args, per", "'{\"n\": 1}', 'row'");
    watched(&bench, "DOT-2", "args", "'{\"n\": 1, \"only\": 2}'");
    watched(&bench, "DOT-3", "args, mode", "'{\"n\": 1}', 'verify'");
    watched(&bench, "DOT-4", "args", "'{\"n\": 1}'");
    let said: Vec<String> =
        bench.all("SELECT concat_ws('|', code, detail) FROM fn_dot_trigger_sync() ORDER BY code", &[]);
    let says = |code: &str, why: &str| format!("{code}|its events cover no tick of the tool's schedule: {why}");
    let expected = [
        says("DOT-1", "they are per row"),
        says("DOT-2", "their arguments are others"),
        says("DOT-3", "their mode is another"),
        "DOT-4".to_owned(),
    ];
    assert_eq!(said, expected);

    // The event comes first.
    bench.exec("INSERT INTO t VALUES (7)");
    let events: Vec<serde_json::Value> = bench.all("SELECT to_jsonb(r) FROM dot_wrapper.dot_run r", &[]);
    events.into_iter().for_each(|run| drop(bench.until(&Run(run), "succeeded")));
    for code in ["DOT-1", "DOT-2", "DOT-3"] {
        let run = tick(&mut *bench.session(), code);
        bench.until(&run, "succeeded");
    }
    assert_eq!(tick(&mut *bench.session(), "DOT-4").reason(), "covered");

    // The tick comes first, and is overtaken.
    bench.exec("UPDATE dot_wrapper.schedule SET schedule = '1 seconds', window_s = 86400 WHERE code < 'DOT-3'");
    let held = busy(&bench);
    let waiting = ["DOT-1", "DOT-2"].map(|code| tick(&mut *bench.session(), code));
    waiting.iter().for_each(|run| assert_eq!(run.status(), "queued", "{run:?}"));
    bench.exec("UPDATE t SET v = 2");
    bench.agent.release(&held, Reply::succeeded());
    waiting.iter().for_each(|run| drop(bench.until(run, "succeeded")));
}

#[test]
fn what_covers_a_tick_is_looked_for_among_the_runs_of_events_alone() {
    let bench = scheduled("dual", "skip");
    let looks = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'dot_run_event_asked'";
    let before: i64 = bench.one(looks, &[]);
    let mut session = bench.connect();
    // With so few rows any way is a good one.
    session.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").unwrap();
    tick(&mut session, "DOT-1");
    drop(session);
    until("the index was used", || (bench.one::<i64>(looks, &[]) > before).then_some(()));
}

#[test]
fn a_tick_of_a_tool_that_no_schedule_runs_is_an_error_that_says_so() {
    let bench = scheduled("event", "skip");
    bench.exec(
        "UPDATE dot_tools SET trigger_type = 'cron' WHERE code > 'DOT-1';
         DELETE FROM dot_wrapper.schedule WHERE code IN ('DOT-2', 'DOT-3');
         UPDATE dot_tools SET schedule = '61 * * * *' WHERE code = 'DOT-3';
         UPDATE dot_wrapper.schedule SET schedule = '0 0 30 2 *' WHERE code = 'DOT-4'",
    );
    let cases = [
        ("DOT-1", "neither cron nor dual"),
        ("DOT-2", "says when it is due"),
        ("DOT-3", "is no minute"),
        ("DOT-4", "never comes due"),
        ("DOT-9", "no such tool"),
    ];
    for (code, why) in cases {
        let error = bench.error(&format!("SELECT fn_dot_tick('{code}')"));
        assert_eq!((error.code().code(), error.message()), ("55000", &*format!("no schedule runs tool \"{code}\"")));
        assert!(error.detail().unwrap().contains(why), "{code}: {error:?}");
    }
    assert_eq!(bench.error("SELECT fn_dot_tick(NULL)").code().code(), "22004");
    // What is retired is a refusal in the ledger, as everywhere.
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-5'");
    assert_eq!(tick(&mut *bench.session(), "DOT-5").reason(), "inactive");
}

#[test]
fn a_tick_is_asked_for_with_the_caller_s_rights_and_under_his_name() {
    let bench = scheduled("cron", "skip");
    let role = bench.role("operator");
    let mut session = bench.connect_as(&role);
    let refused = |session: &mut postgres::Client| {
        db_error(session.batch_execute("SELECT fn_dot_tick('DOT-1')").unwrap_err()).message().to_owned()
    };
    assert_eq!(refused(&mut session), "permission denied for function fn_dot_tick");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_tick TO {role}"));
    assert_eq!(refused(&mut session), "permission denied for function fn_dot_run");
    bench.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run TO {role}"));
    let run = tick(&mut session, "DOT-1");
    assert_eq!(run.text("requested_by"), role);
    bench.until(&run, "succeeded");
}

#[test]
fn a_tick_passes_every_gate_that_a_call_passes_and_a_schedule_may_only_verify() {
    let bench = scheduled("cron", "skip");
    bench.exec("UPDATE dot_wrapper.schedule SET mode = 'verify' WHERE code = 'DOT-2'");
    bench.exec("UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'");
    let refused = tick(&mut *bench.session(), "DOT-1");
    assert_eq!((refused.status(), refused.reason()), ("refused", "toggle_off"));
    bench.open();
    // It is the same tick, and a refusal has not used it up; what changes until it is sent refuses it then.
    let held = busy(&bench);
    let queued = tick(&mut *bench.session(), "DOT-1");
    assert_eq!((queued.status(), queued.0["process_run_id"] == refused.0["process_run_id"]), ("queued", true));
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-1'");
    bench.agent.release(&held, Reply::succeeded());
    assert_eq!(bench.until(&queued, "refused").reason(), "inactive");

    let checked = tick(&mut *bench.session(), "DOT-2");
    bench.until(&checked, "succeeded");
    assert_eq!(bench.events(&checked), ["queued", "running", "succeeded"]);
    let seen: Vec<String> = bench.agent.requests().iter().map(|request| request.field("mode").to_owned()).collect();
    assert_eq!(seen, ["apply", "verify"]);
}

/// An event whose transaction was open when the tick looked, and that is there when the tick's run is to be sent.
#[test]
fn an_event_that_a_tick_could_not_see_yet_covers_it_before_it_is_sent() {
    let bench = scheduled("dual", "queue");
    bench.exec(
        "CREATE TABLE t (id int); INSERT INTO dot_wrapper.trigger_binding (code, relation, args) VALUES ('DOT-1', 'public.t', '{\"n\": 1}');
         SELECT * FROM fn_dot_trigger_sync()",
    );
    let held = busy(&bench);
    let mut writer = bench.connect();
    let mut writes = writer.transaction().unwrap();
    writes.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    let asked = tick(&mut *bench.session(), "DOT-1");
    assert_eq!(asked.status(), "queued", "{asked:?}");
    writes.commit().unwrap();
    bench.agent.release(&held, Reply::succeeded());
    assert_eq!(bench.until(&asked, "refused").reason(), "covered");
    assert_eq!(bench.block(&asked, "send").0, "overlap");
    let event = "SELECT to_jsonb(r) FROM dot_wrapper.dot_run r WHERE source = 'trigger'";
    bench.until(&Run(bench.one(event, &[])), "succeeded");
    assert_eq!(bench.agent.count(), 2);
}

#[test]
fn ticks_go_by_the_time_zone_that_pg_cron_goes_by() {
    let bench = scheduled("cron", "skip");
    let mut session = bench.connect();
    // Where pg_cron is not there, anybody may set what newer versions of it read from the server's configuration.
    session.batch_execute("SET cron.timezone = 'Asia/Kolkata'").unwrap();
    let run = tick(&mut session, "DOT-1");
    let midnight: String = bench.one(
        "SELECT to_char(date_trunc('day', now() AT TIME ZONE 'Asia/Kolkata') AT TIME ZONE 'Asia/Kolkata' AT TIME ZONE 'GMT',
                        '\"tick:\"YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        &[],
    );
    assert_eq!(run.text("idempotency_key"), midnight);
    assert!(midnight.ends_with("T18:30:00Z"), "{midnight}");
}
