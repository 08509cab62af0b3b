//! Permits of real runs: they verify for what the ledger says after its way through jsonb, and for nothing else.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::domain::mode::Mode;
    use crate::domain::permit::{self, Claims};
    use crate::in_db::fixture::{admit, open_gates, run, text};
    use crate::pg::session;
    use crate::store::candidate::{self, Candidate, QueuedRun};
    use crate::store::extension;

    fn key() -> Vec<u8> {
        extension::instance(session::system_identifier()).unwrap().permit_key
    }

    fn only() -> Candidate {
        let waiting = text("SELECT run_id::text FROM dot_wrapper.dot_queue WHERE state = 'queued'").parse().unwrap();
        let mut candidates = candidate::take(&[waiting]).unwrap();
        assert_eq!(candidates.len(), 1);
        candidates.remove(0)
    }

    fn claims<'a>(candidate: &Candidate, run: &'a QueuedRun) -> Claims<'a> {
        Claims {
            run_id: candidate.run_id,
            process_run_id: run.process_run_id,
            code: &run.code,
            mode: run.mode,
            args: &run.args,
            requested_by: run.requested_by_oid.to_u32(),
            lease_key: run.lease_key.as_deref(),
            source: run.source,
            decided: run.decided.as_deref(),
        }
    }

    fn verifies() -> bool {
        let candidate = only();
        let run = candidate.run.as_ref().expect("a run of the ledger");
        permit::verify(&key(), &claims(&candidate, run), &candidate.permit)
    }

    #[pg_test]
    fn a_permit_verifies_after_the_way_through_the_tables() {
        open_gates();
        for args in [
            "{}",
            r#"{"n": 12345678901234567890.123456789, "tail": 1.100, "huge": 1e400, "tiny": 1e-30, "zero": -0.0}"#,
            r#"{"z": 1, "aa": 2, "b": {"y": [], "x": {}}, "": null, "é": "\u0001 \ud83d\udd27 \"q\" \\ /"}"#,
        ] {
            admit(&format!("'A', 'apply', NULL, $json${args}$json$"));
            assert!(verifies(), "{args}");
            run("DELETE FROM dot_wrapper.dot_queue; DELETE FROM dot_iu_runtime_lease");
        }
    }

    #[pg_test]
    fn a_permit_covers_what_is_executed_and_for_whom() {
        open_gates();
        let id = admit("'A', 'verify', NULL, '{\"n\": 1}'");
        assert!(verifies());
        for change in [
            "args = '{\"n\": 1.0}'",
            "args = '{\"n\": 1, \"m\": 2}'",
            "code = 'B'",
            "mode = 'apply'",
            "process_run_id = gen_random_uuid()",
            "requested_by_oid = 3373",
            "lease_key = 'tool:B'",
            "source = 'request'",
        ] {
            run(&format!("CREATE TEMP TABLE in_db_kept AS SELECT * FROM dot_wrapper.dot_run WHERE run_id = '{id}'"));
            run(&format!("UPDATE dot_wrapper.dot_run SET {change} WHERE run_id = '{id}'"));
            assert!(!verifies(), "{change}");
            let column = change.split(' ').next().unwrap();
            run(&format!(
                "UPDATE dot_wrapper.dot_run r SET {column} = k.{column} FROM in_db_kept k WHERE r.run_id = k.run_id;
                 DROP TABLE in_db_kept"
            ));
            assert!(verifies(), "{column} as it was");
        }
    }

    #[pg_test]
    fn a_permit_of_another_run_or_key_does_not_do() {
        open_gates();
        admit("'B', 'apply', NULL, '{}'");
        let (first, key) = (only(), key());
        let run_of = first.run.clone().unwrap();
        let good = claims(&first, &run_of);
        assert_eq!(permit::issue(&key, &good), first.permit);
        assert!(!permit::verify(&key[1..], &good, &first.permit));
        assert!(!permit::verify(&[], &good, &first.permit));
        assert!(!permit::verify(&key, &good, &first.permit[1..]));
        assert!(!permit::verify(&key, &Claims { mode: Mode::Verify, ..good.clone() }, &first.permit));
        assert!(!permit::verify(&key, &Claims { run_id: uuid::Uuid::nil(), ..good }, &first.permit));
        run("UPDATE dot_wrapper.instance SET permit_key = sha256(permit_key)");
        assert!(!verifies());
    }
}
