//! The chain as it grows: what comes late, what is restored, who rewrites it all, and who may look.

use std::time::Instant;

use postgres::Client;
use uuid::Uuid;

use super::ledger::{Finding, all_sealed, found, furnish, verify};
use crate::harness::run::Ask;
use crate::harness::{Bench, figure, os, rounds, until};

/// As a superuser who gets past the triggers; committed.
fn forge(bench: &Bench, sql: &str) {
    bench.exec(&format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT"));
}

fn head(bench: &Bench) -> (i64, String) {
    let sql = "SELECT format('%s %s', seal_id, encode(hash, 'hex')) FROM fn_dot_seal_head()";
    let text: String = bench.one(sql, &[]);
    let (id, hash) = text.split_once(' ').unwrap();
    (id.parse().unwrap(), hash.to_owned())
}

fn anchored(bench: &Bench, (id, hash): &(i64, String)) -> Vec<Finding> {
    found(&mut *bench.session(), &format!("NULL, {id}, '\\x{hash}'"))
}

/// The findings without the summary, in short.
fn short(found: &[Finding]) -> Vec<String> {
    found[1..].iter().map(|f| format!("{} {} {}", f.kind, f.item.unwrap_or(0), f.verdict)).collect()
}

/// Ends the worker, and with it all that it remembers.
fn restart_worker(bench: &Bench) {
    let worker = bench.worker();
    bench.session().query("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    until("there is another worker", || bench.worker_now().filter(|pid| *pid != worker));
}

/// Who rewrites everything, the second record included, is found out by what was kept elsewhere, and by nothing else.
#[test]
fn d4_an_anchor_outlives_a_chain_that_was_made_anew() {
    let bench = Bench::shared();
    for code in ["DOT-1", "DOT-2"] {
        bench.until(&bench.apply(code), "succeeded");
    }
    all_sealed(&bench);
    let anchor = head(&bench);
    // The log has one as well, the first that this worker made.
    let line = format!("the newest seal of database \"{}\" is ", bench.name);
    let said = until("the log tells", || {
        bench.cluster.log().split(&line).nth(1).and_then(|rest| Some(rest.lines().next()?.to_owned()))
    });
    let said: Vec<&str> = said.split(" with hash ").collect();
    assert_eq!(anchored(&bench, &(said[0].parse().unwrap(), said[1].to_owned()))[0].verdict, "OK");
    bench.until(&bench.apply("DOT-3"), "succeeded");
    all_sealed(&bench);
    assert_eq!(anchored(&bench, &anchor)[0].verdict, "OK");
    let past = "UPDATE dot_wrapper.dot_run_event SET at = at - interval '1 second' WHERE event_id = 1";
    forge(&bench, &format!("{past}; TRUNCATE dot_wrapper.dot_seal, dot_wrapper.seal_head"));
    restart_worker(&bench);
    all_sealed(&bench);
    assert_ne!(head(&bench), anchor);
    assert_eq!(short(&anchored(&bench, &anchor)), [format!("anchor {} changed", anchor.0)]);
    let later = (anchor.0 + 1000, anchor.1);
    assert_eq!(short(&anchored(&bench, &later)), [format!("anchor {} removed", later.0)]);
}

/// While the worker lives it goes on from where it was, and so the chain does not close over what was taken from it.
#[test]
fn d4_the_worker_does_not_seal_over_a_change_of_the_chain() {
    let bench = Bench::shared();
    for code in ["DOT-1", "DOT-2", "DOT-3"] {
        bench.until(&bench.apply(code), "succeeded");
        all_sealed(&bench);
    }
    let (newest, _) = head(&bench);
    forge(
        &bench,
        "DELETE FROM dot_wrapper.dot_seal WHERE seal_id = (SELECT max(seal_id) FROM dot_wrapper.dot_seal);
                   DELETE FROM dot_wrapper.seal_head",
    );
    bench.until(&bench.apply("DOT-4"), "succeeded");
    let gap = format!("seal {newest} removed");
    until("the next seal is there", || (head(&bench).0 > newest).then_some(()));
    let findings = verify(&mut *bench.session());
    assert!(short(&findings).contains(&gap), "{findings:#?}");
    assert!(bench.cluster.log().contains("somebody has changed the seals"), "the log tells");
    // A seal that somebody has put there is not followed on either.
    let (newest, _) = head(&bench);
    forge(&bench, "INSERT INTO dot_wrapper.dot_seal SELECT (jsonb_populate_record(s, jsonb_build_object('seal_id', s.seal_id + 1))).*
                   FROM dot_wrapper.dot_seal s WHERE s.seal_id = (SELECT max(seal_id) FROM dot_wrapper.dot_seal)");
    bench.until(&bench.apply("DOT-5"), "succeeded");
    until("the next seal is there", || (head(&bench).0 > newest + 1).then_some(()));
    let findings = short(&verify(&mut *bench.session()));
    for broken in [format!("seal {} changed", newest + 1), format!("seal {} chain_broken", newest + 1)] {
        assert!(findings.contains(&broken), "{findings:?}");
    }
}

/// Nobody's number is skipped: transactions that drew theirs early and commit late, prepared ones among them, with
/// rollbacks between and workers that start anew.
#[test]
fn d4_what_is_committed_late_is_sealed() {
    let bench = Bench::own(&["max_prepared_transactions = 60"]);
    let count = rounds(12, 50);
    let ask = |session: &mut Client, n: usize| {
        session.batch_execute("BEGIN").unwrap();
        session.query("SELECT fn_dot_run($1, 'plan')", &[&format!("DOT-{}", n % 6 + 1)]).unwrap();
    };
    let mut slow = Vec::new();
    for n in 0..count {
        // One that is slow, one that is prepared, one that is rolled back, one that commits.
        let mut session = bench.connect();
        ask(&mut session, n);
        slow.push(session);
        let mut session = bench.connect();
        ask(&mut session, n);
        session.batch_execute(&format!("PREPARE TRANSACTION 'p{n}'")).unwrap();
        ask(&mut session, n);
        session.batch_execute("ROLLBACK").unwrap();
        ask(&mut session, n);
        session.batch_execute("COMMIT").unwrap();
        if n % 4 == 0 {
            all_sealed(&bench);
        }
    }
    all_sealed(&bench);
    restart_worker(&bench);
    // In an order that has nothing to do with their numbers.
    let order = |n: usize| (n * 7 + 3) % count;
    for n in 0..count {
        slow[order(n)].batch_execute("COMMIT").unwrap();
        bench.exec(&format!("COMMIT PREPARED 'p{}'", order(count - 1 - n)));
        if n == count / 2 {
            bench.look();
            all_sealed(&bench);
            restart_worker(&bench);
        }
    }
    bench.look();
    all_sealed(&bench);
    // What the last batch found out is written down with the next.
    bench.ask(&Ask::new("DOT-1", "plan"));
    all_sealed(&bench);
    let events: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_run_event", &[]);
    let sealed: Vec<i64> = bench.all("SELECT unnest(event_ids) FROM dot_wrapper.dot_seal ORDER BY 1", &[]);
    assert_eq!((events, sealed.len()), (3 * count as i64 + 1, 3 * count + 1));
    assert!(sealed.windows(2).all(|pair| pair[0] < pair[1]), "each once");
    let open: i64 = bench.one("SELECT high - low FROM dot_wrapper.seal_head", &[]);
    assert_eq!(open, 0, "nothing is waited for any more");
    figure(
        "D4-late",
        &format!("{count} slow and {count} prepared transactions, committed in any order: all sealed, once"),
    );
}

/// Events that are too large to be read with the others are sealed as they are, too, and those behind them.
#[test]
fn d4_an_event_of_any_size_is_sealed() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    all_sealed(&bench);
    // Text that does not shrink, in the middle of a batch: 9 MB end one.
    for kilobytes in [7, 9, 9_000, 1, 300] {
        forge(
            &bench,
            &format!(
                "INSERT INTO dot_wrapper.dot_run_event (run_id, event, detail)
                 SELECT r.run_id, 'late_answer', jsonb_build_object('b', 1.50, 'aa', (
                     SELECT string_agg(md5(n::text), '\"') FROM generate_series(1, {kilobytes} * 1000 / 33) n))
                 FROM dot_wrapper.dot_run r"
            ),
        );
    }
    bench.ask(&Ask::new("DOT-1", "plan"));
    let open = "SELECT count(*) FROM dot_wrapper.dot_run_event e
                WHERE NOT EXISTS (SELECT FROM dot_wrapper.dot_seal s WHERE e.event_id = ANY (s.event_ids))";
    until("everything is sealed", || (bench.one::<i64>(open, &[]) == 0).then_some(()));
    let findings = verify(&mut *bench.session());
    // What nobody has marked is told, and nothing differs from its digest.
    let told: Vec<&str> = findings[1..].iter().map(|finding| finding.verdict.as_str()).collect();
    assert_eq!(told, ["inserted"; 5], "{findings:#?}");
}

/// Callers do not wait for the sealing, and the sealing takes up what it could not do.
#[test]
fn d4_nobody_waits_for_a_seal() {
    let bench = Bench::shared();
    let mut holder = bench.connect();
    holder.batch_execute("BEGIN; LOCK TABLE dot_wrapper.dot_seal IN ACCESS EXCLUSIVE MODE").unwrap();
    for code in ["DOT-1", "DOT-2", "DOT-3"] {
        bench.until(&bench.apply(code), "succeeded");
    }
    bench.ask(&Ask::new("DOT-1", "plan"));
    let failed = "sealing failed";
    until("the sealing has been held up", || bench.cluster.log().contains(failed).then_some(()));
    bench.until(&bench.apply("DOT-4"), "succeeded");
    holder.batch_execute("COMMIT").unwrap();
    all_sealed(&bench);
}

/// A plan wakes the worker for nothing but its seal, and does not wait for the poll, which comes once a minute.
#[test]
fn d4_a_plan_is_sealed_soon() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    all_sealed(&bench);
    for _ in 0..3 {
        bench.ask(&Ask::new("DOT-1", "plan"));
        all_sealed(&bench);
    }
    // And then there is nothing to do, not even to look.
    let rests = "SELECT now() - state_change > interval '3 s' FROM pg_stat_activity WHERE pid = $1";
    let worker = bench.worker();
    until("the worker rests", || bench.one::<bool>(rests, &[&worker]).then_some(()));
    let sql = "SELECT max(extract(epoch FROM s.sealed_at - e.at))::float8
               FROM dot_wrapper.dot_seal s JOIN dot_wrapper.dot_run_event e ON e.event_id = ANY (s.event_ids)";
    figure(
        "D4-lag",
        &format!("idle worker: an event is sealed within {:.1} s of being written", bench.one::<f64>(sql, &[])),
    );
}

#[test]
fn d4_a_restored_ledger_is_verified_as_before() {
    let bench = Bench::shared();
    furnish(&bench);
    all_sealed(&bench);
    let anchor = head(&bench);
    // What is not sealed when the dump is made cannot be vouched for, and is told as that.
    let mut holder = bench.connect();
    holder.batch_execute("BEGIN; LOCK TABLE dot_wrapper.dot_seal IN SHARE MODE").unwrap();
    let loose = bench.ask(&Ask::new("DOT-1", "plan"));
    let restored = Bench::empty(bench.cluster.clone());
    let file = bench.cluster.dir().join(format!("{}.seals.dump", bench.name));
    os::run(bench.cluster.client("pg_dump", &bench.name).args(["-Fc", "-f"]).arg(&file));
    os::run(bench.cluster.client("pg_restore", &restored.name).args(["-e", "-d", &restored.name]).arg(&file));
    holder.batch_execute("COMMIT").unwrap();
    let told = |bench: &Bench| {
        let findings = anchored(bench, &anchor);
        let items: Vec<_> = findings[1..].iter().map(|f| (f.kind.clone(), f.run_id, f.verdict.clone())).collect();
        assert_eq!(items, [("event".to_owned(), Some(loose.id()), "unknown_origin".to_owned())], "{findings:#?}");
        assert_eq!(findings[0].verdict, "WARN");
    };
    told(&restored);
    restored.open();
    restored.exec("SELECT fn_dot_resume()");
    restored.drain();
    until("the chain has gone on", || (head(&restored).0 > anchor.0).then_some(()));
    until("all is sealed", || (!anchored(&restored, &anchor)[0].detail.contains("not sealed yet")).then_some(()));
    told(&restored);
    // Under its own key now: what is put there is told as that.
    forge(
        &restored,
        "INSERT INTO dot_wrapper.dot_run_event (run_id, event) SELECT run_id, 'late_answer' FROM dot_wrapper.dot_run LIMIT 1",
    );
    assert_eq!(verify(&mut *restored.session())[0].verdict, "BROKEN");
    all_sealed(&bench);
}

/// Of a process run in which others have runs, everybody verifies his own.
#[test]
fn d4_who_verifies_what() {
    let bench = Bench::shared();
    let [alice, bob, auditor] = ["alice", "bob", "auditor"].map(|name| bench.role(name));
    bench.exec(&format!(
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {alice}, {bob}, {auditor}; GRANT pg_read_all_data TO {auditor}"
    ));
    let (shared, own) = (Uuid::now_v7(), Uuid::now_v7());
    let ask = |role: &str, process: Uuid, key| {
        Ask { process: Some(process), key: Some(key), ..Ask::new("DOT-1", "plan") }
            .on(&mut bench.connect_as(role))
            .unwrap()
    };
    let hers = [ask(&alice, shared, "a"), ask(&alice, own, "a"), ask(&alice, own, "b")];
    let his = ask(&bob, shared, "b");
    all_sealed(&bench);
    let summary = |role: &str, arguments: &str| -> Result<(String, usize), String> {
        let sql = format!("SELECT verdict, detail, count(*) OVER () FROM fn_dot_verify({arguments})");
        match bench.connect_as(role).query(&sql, &[]) {
            Ok(rows) => Ok((format!("{} {}", rows[0].get::<_, String>(0), rows[0].get::<_, String>(1)), rows.len())),
            Err(error) => Err(error.code().unwrap().code().to_owned()),
        }
    };
    let fine = |n: usize| Ok((format!("OK runs: {n}, events: {n}, attempts: 0, seals: {n}"), 1));
    for (role, process, seen) in [
        (&alice, shared, fine(1)),
        (&alice, own, fine(2)),
        (&bob, shared, fine(1)),
        (&bob, own, Err("42704".to_owned())),
        (&bob, Uuid::now_v7(), Err("42704".to_owned())),
        (&auditor, shared, fine(2)),
        (&auditor, Uuid::now_v7(), Err("42704".to_owned())),
    ] {
        assert_eq!(summary(role, &format!("'{process}'")), seen, "{role} {process}");
    }
    assert_eq!(summary(&alice, ""), Err("42501".to_owned()));
    assert!(summary(&auditor, "").is_ok());
    assert!(bench.connect_as(&alice).query("SELECT fn_dot_seal_head()", &[]).is_err());
    assert!(bench.connect_as(&auditor).query("SELECT fn_dot_seal_head()", &[]).is_ok());

    // What happened to hers she is told, what happened to his she is not; nor that there was a run that is not hers.
    forge(&bench, &format!("UPDATE dot_wrapper.dot_run SET args = '{{\"n\": 1}}' WHERE run_id = '{}'", his.id()));
    assert_eq!(summary(&alice, &format!("'{shared}'")), fine(1));
    forge(&bench, &format!("DELETE FROM dot_wrapper.dot_run WHERE run_id = '{}'", hers[1].id()));
    let findings = found(&mut bench.connect_as(&alice), &format!("'{own}'"));
    assert!(
        findings.iter().any(|f| f.run_id == Some(hers[1].id()) && f.kind == "run" && f.verdict == "removed"),
        "{findings:#?}"
    );
    forge(&bench, &format!("DELETE FROM dot_wrapper.dot_run WHERE run_id = '{}'", hers[0].id()));
    assert_eq!(summary(&alice, &format!("'{shared}'")), Err("42704".to_owned()), "nothing of hers is left in it");
}

/// What sealing and verifying cost.
#[test]
fn d4_what_it_costs() {
    let bench = Bench::shared();
    let runs = rounds(200, 2_000) as i64;
    let free = "INSERT INTO dot_wrapper.policy (scope, name, lease) SELECT 'tool', 'DOT-' || n, 'none' FROM generate_series(1, 6) n";
    bench.exec(free);
    bench.worker();
    let ask = "SELECT count(fn_dot_run('DOT-' || n % 6 + 1, 'apply')) FROM generate_series(1, $1::bigint) n";
    bench.session().query(ask, &[&runs]).unwrap();
    let over = "SELECT count(*) FROM dot_wrapper.dot_run WHERE run_status = 'succeeded'";
    // Longer than one deadline in the full round.
    for share in [4, 2, 1] {
        until("the runs are over", || {
            // In the midst of it all, whatever is sealed and whatever is not yet.
            let found = verify(&mut *bench.session());
            assert_eq!((found.len(), found[0].verdict.as_str()), (1, "OK"), "{found:#?}");
            (bench.one::<i64>(over, &[]) >= runs / share).then_some(())
        });
    }
    all_sealed(&bench);
    let (seals, bytes, ledger) = sizes(&bench, runs);
    let lag: Vec<f64> = bench.all(
        "SELECT extract(epoch FROM s.sealed_at - e.at)::float8 FROM dot_wrapper.dot_seal s
         JOIN dot_wrapper.dot_run_event e ON e.run_id = s.run_id AND e.event_id = ANY (s.event_ids)
         WHERE e.from_status IS NOT NULL ORDER BY 1",
        &[],
    );
    let started = Instant::now();
    verify(&mut *bench.session());
    let took = started.elapsed().as_secs_f64();
    // All of it once more, at one go, for the time that the worker spends on it.
    forge(&bench, "TRUNCATE dot_wrapper.dot_seal, dot_wrapper.seal_head");
    restart_worker(&bench);
    all_sealed(&bench);
    let spent = os::cpu_ms(bench.worker()) * 1000 / u128::from(runs.unsigned_abs());
    figure(
        "D4-cost",
        &format!(
            "{runs} runs: {seals:.2} seals and {bytes:.0} bytes of seals a run (ledger: {ledger:.0}); sealed {:.1} s (median) to \
             {:.1} s (longest) after it was written; at one go {spent} ms of the worker for 1,000 runs; verified in {took:.2} s",
            lag[lag.len() / 2],
            lag[lag.len() - 1]
        ),
    );
}

/// Seals, bytes of seals with their indexes, and bytes of the ledger, per run.
fn sizes(bench: &Bench, runs: i64) -> (f64, f64, f64) {
    let size = |tables: &[&str]| -> i64 {
        let sizes = tables.iter().map(|table| format!("pg_total_relation_size('dot_wrapper.{table}')"));
        bench.one(&format!("SELECT {}", sizes.collect::<Vec<_>>().join(" + ")), &[])
    };
    let seals: i64 = bench.one("SELECT count(*) FROM dot_wrapper.dot_seal", &[]);
    let each = |total: i64| total as f64 / runs as f64;
    (each(seals), each(size(&["dot_seal"])), each(size(&["dot_run", "dot_run_event", "dot_run_attempt"])))
}
