//! T4: what a tenant learns of another tenant's runs: nothing that he could not say of runs that do not exist.
//!
//! Each question is asked twice, about a run that is another's and about one that nobody made; the answers are compared
//! word by word, after the ids that the asker brought along. Time is left out, and so are the counters that PostgreSQL
//! shows everybody (sequences that grow, sizes of tables).

use postgres::{Client, SimpleQueryMessage};
use serde_json::json;
use uuid::Uuid;

use crate::harness::run::Ask;
use crate::harness::{Bench, Reply, Run, figure};

/// RUN, PROCESS and KEY stand for those of the other's run, or for such as nobody has.
const QUESTIONS: [&str; 56] = [
    "SELECT * FROM dot_run WHERE run_id = 'RUN'",
    "SELECT * FROM dot_run WHERE process_run_id = 'PROCESS'",
    "SELECT * FROM dot_run WHERE idempotency_key = 'KEY'",
    "SELECT count(*), max(fencing_token), max(requested_at) FROM dot_run WHERE requested_by <> current_user",
    "SELECT count(*) FROM dot_run r WHERE r::text LIKE '%KEY%'",
    "SELECT count(*) FROM dot_run WHERE code = 'DOT-1' AND public.leaky(args::text)",
    "SELECT 1 / (CASE WHEN run_id = 'RUN' THEN 0 ELSE 1 END) FROM dot_run WHERE requested_by <> current_user",
    "SELECT requested_by, count(*) FROM dot_run WHERE requested_by <> current_user GROUP BY 1",
    "SELECT * FROM dot_run_event WHERE run_id = 'RUN'",
    "SELECT count(*) FROM dot_run_event WHERE run_id = 'RUN' AND public.leaky(detail::text)",
    "SELECT * FROM dot_run_attempt WHERE run_id = 'RUN'",
    "SELECT count(*) FROM dot_run_attempt WHERE run_id = 'RUN' AND public.leaky(worker::text)",
    "SELECT * FROM dot_run_gate WHERE run_id = 'RUN'",
    "SELECT count(*) FROM dot_run_gate WHERE run_id = 'RUN' AND public.leaky(inputs::text)",
    "SELECT e.* FROM dot_run_event e LEFT JOIN dot_run r USING (run_id) WHERE e.run_id = 'RUN'",
    "SELECT (SELECT count(*) FROM dot_run x WHERE x.process_run_id = r.process_run_id) FROM dot_run r WHERE r.run_id = 'RUN'",
    "SELECT * FROM dot_observation WHERE id = 'RUN'",
    "SELECT count(*) FROM dot_observation WHERE process_run_id = 'PROCESS' AND public.leaky(detail::text)",
    "SELECT count(*), max(at) FROM dot_observation WHERE requested_by <> current_user",
    "SELECT * FROM dot_process_run WHERE process_run_id = 'PROCESS'",
    "SELECT count(*) FROM dot_process_run WHERE public.leaky(codes::text)",
    "SELECT * FROM fn_dot_wait_all('PROCESS', '0 s')",
    "SELECT * FROM fn_dot_dry_run_report('PROCESS')",
    "SELECT * FROM fn_dot_dry_run_report('PROCESS', 'PROCESS')",
    "DECLARE c CURSOR FOR SELECT * FROM dot_run WHERE run_id = 'RUN'; FETCH ALL c",
    "SELECT run_id FROM dot_run WHERE run_id = 'RUN' FOR UPDATE",
    "UPDATE dot_run SET reason = 'x' WHERE run_id = 'RUN'",
    "DELETE FROM dot_run WHERE run_id = 'RUN'",
    "INSERT INTO dot_run (run_id) VALUES ('RUN') ON CONFLICT DO NOTHING",
    "INSERT INTO dot_wrapper.dot_run (run_id) VALUES ('RUN') ON CONFLICT (run_id) DO UPDATE SET reason = 'x' RETURNING *",
    "SELECT * FROM dot_wrapper.dot_run WHERE run_id = 'RUN'",
    "SELECT * FROM dot_wrapper.dot_queue WHERE run_id = 'RUN'",
    "DELETE FROM dot_wrapper.dot_queue WHERE run_id = 'RUN'",
    "SELECT * FROM dot_wrapper.lease_grant WHERE run_id = 'RUN'",
    "SELECT * FROM dot_wrapper.instance",
    "SELECT * FROM dot_iu_runtime_lease WHERE holder = 'dot_run:RUN'",
    "SELECT fn_dot_iu_runtime_lease_release('other', 'dot_run:RUN')",
    "SELECT fn_dot_iu_runtime_lease_acquire('other', 'dot_run:RUN', '1 h')",
    "SELECT * FROM fn_dot_wait('RUN', '0 s')",
    "SELECT * FROM fn_dot_wait('RUN', '10 ms')",
    "SELECT * FROM fn_dot_wait('RUN', '2 h')",
    "SELECT * FROM fn_dot_cancel('RUN', 'mine now')",
    "SELECT * FROM fn_dot_cancel('RUN', '')",
    "SELECT * FROM fn_dot_resolve('RUN', 'succeeded', 'mine now')",
    "SELECT * FROM fn_dot_resolve('RUN', 'retry', 'mine now')",
    "SELECT * FROM fn_dot_resolve('RUN', 'nonsense', 'mine now')",
    "SELECT fn_dot_resume(ARRAY['RUN']::uuid[])",
    "SELECT * FROM fn_dot_doctor()",
    "SELECT code, run_status, reason, message, gates FROM fn_dot_run('DOT-6', 'plan', 'PROCESS', '{}', 'KEY')",
    "SELECT code, run_status, reason FROM fn_dot_run('DOT-1', 'plan', 'PROCESS', '{\"secret\": \"x\"}', 'KEY')",
    "SELECT code, run_status, reason, idempotency_key FROM fn_dot_run('DOT-6', 'verify', 'PROCESS', '{}', 'KEY')",
    "SELECT code, run_status, reason FROM fn_dot_run('DOT-NONE', 'apply', 'PROCESS', '{}', 'KEY')",
    "SELECT code, run_status, reason, message FROM fn_dot_run_all('{\"code\": \"DOT-6\"}', 'plan', 'PROCESS')",
    "SELECT code, run_status, reason FROM fn_dot_run_all('{\"code\": \"DOT-6\"}', 'verify', 'PROCESS')",
    "SELECT query FROM pg_stat_activity WHERE query LIKE '%KEY%' AND usename <> current_user AND query <> '<insufficient privilege>'",
    "SELECT objid, description FROM pg_description WHERE description LIKE '%RUN%'",
];

/// What the victim's runs say, and nothing of the asker's may.
const SECRET: &str = "victims-argument";

fn answer(session: &mut Client, question: &str) -> String {
    match session.simple_query(question) {
        Ok(messages) => messages.iter().map(shown).collect::<Vec<_>>().join("\n"),
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?} for {question}"));
            format!("{} {} {:?} {:?}", error.code().code(), error.message(), error.detail(), error.hint())
        }
    }
}

fn shown(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => {
            (0..row.len()).map(|n| row.get(n).unwrap_or("NULL")).collect::<Vec<_>>().join(" | ")
        }
        SimpleQueryMessage::CommandComplete(rows) => format!("{rows} rows"),
        _ => String::new(),
    }
}

/// The question about these ids, and its answer with the ids taken out again.
fn about(session: &mut Client, question: &str, ids: &[(&str, String)]) -> String {
    let fill = |text: &str| ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id));
    let said = answer(session, &fill(question));
    ids.iter().fold(said, |said, (name, id)| said.replace(id, name))
}

/// Runs of the victim in every state that they can stay in, each with its process run and key.
fn victims(bench: &Bench, victim: &str) -> Vec<(Run, Uuid, String)> {
    let mut session = bench.connect_as(victim);
    let mut ask = |number: usize, code: &str, mode: &str| {
        let (process, key) = (Uuid::now_v7(), format!("victims-key-{number}"));
        let ask = Ask {
            process: Some(process),
            key: Some(&key),
            args: json!({"secret": SECRET, "n": number}),
            ..Ask::new(code, mode)
        };
        (ask.on(&mut session).unwrap(), process, key)
    };
    bench.agent.plan(|request| match request.body["args"]["n"].as_u64() {
        Some(1) => Reply::ended("failed"),
        Some(2) => Reply::Close,
        Some(3) => Reply::Hold,
        _ => Reply::succeeded(),
    });
    let over = ["succeeded", "failed", "in_doubt", "running"];
    let mut runs: Vec<_> =
        ["DOT-2", "DOT-3", "DOT-4", "DOT-1"].iter().enumerate().map(|(n, code)| ask(n, code, "apply")).collect();
    for ((run, ..), status) in runs.iter_mut().zip(over) {
        *run = bench.until(run, status);
    }
    runs.push(ask(5, "DOT-5", "plan"));
    runs.push(ask(6, "DOT-NONE", "apply"));
    // One that nobody takes up, and its lease.
    let (process, key) = (Uuid::now_v7(), "victims-key-7");
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute(&format!("SET LOCAL ROLE {victim}")).unwrap();
    let args = json!({"secret": SECRET, "n": 7});
    let queued = Ask { process: Some(process), key: Some(key), args, ..Ask::new("DOT-5", "apply") }
        .on(&mut transaction)
        .unwrap();
    let aside = format!(
        "RESET ROLE; UPDATE dot_wrapper.dot_queue SET available_at = 'infinity' WHERE run_id = '{}'",
        queued.id()
    );
    transaction.batch_execute(&aside).unwrap();
    transaction.commit().unwrap();
    runs.push((queued, process, key.to_owned()));
    runs
}

fn tenants() -> (Bench, String, String) {
    let bench = Bench::shared();
    let (victim, asker) = (bench.caller("victim"), bench.caller("asker"));
    bench.exec(&format!(
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {victim}, {asker};
         REVOKE ALL ON FUNCTION fn_dot_iu_runtime_lease_acquire(text, text, interval), fn_dot_iu_runtime_lease_release(text, text) FROM {asker};
         GRANT SELECT ON dot_run, dot_run_event, dot_run_attempt, dot_run_gate, dot_observation, dot_process_run TO {victim}, {asker};
         CREATE FUNCTION leaky(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE EXCEPTION 'saw %', $1; END $$;
         GRANT EXECUTE ON FUNCTION leaky(text) TO {asker};
         UPDATE dot_wrapper.policy SET total_timeout_ms = 3600000, idle_timeout_ms = 3600000 WHERE name = 'agent_api'"
    ));
    (bench, victim, asker)
}

#[test]
fn t4_another_tenants_run_is_as_one_that_does_not_exist() {
    let (bench, victim, asker) = tenants();
    let runs = victims(&bench, &victim);
    let before: Vec<Run> = runs.iter().map(|(run, ..)| bench.run(run.id())).collect();
    let mut session = bench.connect_as(&asker);
    let mut asked = 0;
    for question in QUESTIONS {
        for (run, process, key) in &runs {
            let theirs = [("RUN", run.id().to_string()), ("PROCESS", process.to_string()), ("KEY", key.clone())];
            let nobodys = [
                ("RUN", Uuid::now_v7().to_string()),
                ("PROCESS", Uuid::now_v7().to_string()),
                ("KEY", "no-such-key".to_owned()),
            ];
            // A run that the asker makes by asking is undone, so that the next question finds things as they were.
            session.batch_execute("BEGIN").unwrap();
            let said = about(&mut session, question, &theirs);
            session.batch_execute("ROLLBACK; BEGIN").unwrap();
            let unknown = about(&mut session, question, &nobodys);
            session.batch_execute("ROLLBACK").unwrap();
            assert_eq!(said, unknown, "{question} about the one that is {}", run.status());
            let secrets = [SECRET, victim.as_str(), &run.id().to_string(), key.as_str()];
            assert!(!secrets.iter().any(|secret| said.contains(secret)), "{question}: {said}");
            asked += 1;
        }
    }
    // Nor has any of it changed anything.
    assert_eq!(runs.iter().map(|(run, ..)| bench.run(run.id())).collect::<Vec<_>>(), before);
    figure(
        "T4",
        &format!(
            "{} questions about {} runs of another tenant, {asked} in all: 0 told from runs that do not exist",
            QUESTIONS.len(),
            runs.len()
        ),
    );
}

/// What tenants share, they notice: that a tool is taken, and that a key is in use. Who has it, they are not told.
#[test]
fn t4_what_is_shared_says_no_more_than_that_it_is_taken() {
    let (bench, victim, asker) = tenants();
    let runs = victims(&bench, &victim);
    let mut session = bench.connect_as(&asker);
    let (run, process, key) = &runs[3];
    let held = Ask::new("DOT-1", "apply").on(&mut session).unwrap();
    assert_eq!((held.status(), held.reason()), ("refused", "lease_held"));
    let taken = Ask { process: Some(*process), key: Some(key), ..Ask::new("DOT-1", "apply") };
    let error = taken.on(&mut session).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "23505", "{error:?}");
    // With other arguments or the same, the words are the same.
    let same = Ask { args: json!({"secret": SECRET, "n": 3}), ..taken.clone() };
    let again = same.on(&mut session).unwrap_err();
    let again = again.as_db_error().unwrap();
    assert_eq!((error.message(), error.detail(), error.hint()), (again.message(), again.detail(), again.hint()));
    let said = format!("{} {error:?}", held.0);
    for secret in [SECRET, victim.as_str(), &run.id().to_string()] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
    figure("T4.shared", "a lease that another has, a key that another uses: taken, and by nobody in particular");
}

/// Who may read all data may read; acting on another's run takes the rights of its role.
#[test]
fn t4_to_read_a_run_is_not_to_end_it() {
    let (bench, victim, reader) = tenants();
    let runs = victims(&bench, &victim);
    bench.exec(&format!("GRANT pg_read_all_data TO {reader}; REVOKE EXECUTE ON FUNCTION fn_dot_resolve FROM {reader}"));
    let mut session = bench.connect_as(&reader);
    for (run, ..) in &runs {
        let before = bench.run(run.id());
        session.batch_execute(&format!("SELECT fn_dot_wait('{}', '0 s')", run.id())).unwrap();
        for call in
            [format!("fn_dot_cancel('{}', 'x')", run.id()), format!("fn_dot_resolve('{}', 'failed', 'x')", run.id())]
        {
            let error = session.batch_execute(&format!("SELECT {call}")).expect_err(&call);
            assert_eq!(error.code().unwrap().code(), "42501", "{call}: {error:?}");
        }
        assert_eq!(bench.run(run.id()), before);
    }
    figure(
        "T4.readers",
        &format!("a member of pg_read_all_data and {} runs of another: read, 0 cancelled or resolved", runs.len()),
    );
}
