//! The second gates, asked by hand: what a worker would do with a queued run, and what it would not.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;
    use uuid::Uuid;

    use crate::in_db::fixture::{admit, holds, open_gates, run, text};
    use crate::run::claim::{self, Claimed};
    use crate::run::pick::Memory;
    use crate::store::extension;

    fn claim() -> Claimed {
        let extension = extension::current().unwrap();
        let (mut memory, pick) = (Memory::default(), claim::Pick::UpTo(10));
        extension::as_owner(&extension, || claim::claim(&extension, &mut memory, Uuid::from_u128(7), pick).unwrap())
    }

    fn state_of(id: &str) -> String {
        text(&format!("SELECT concat_ws(' ', run_status, reason) FROM dot_wrapper.dot_run WHERE run_id = '{id}'"))
    }

    /// Nothing is sent, the run ends as said, its lease and its key are free.
    fn refused_after(change: &str, want: &str) {
        let id = admit("'A', 'apply', NULL, '{\"n\": 1}', 'k'");
        run(change);
        let claimed = claim();
        assert_eq!((claimed.deliveries.len(), claimed.seen), (0, 1), "{change}");
        assert_eq!(state_of(&id), want, "{change}");
        assert!(holds("SELECT NOT EXISTS (SELECT FROM dot_wrapper.dot_queue)"), "{change}");
        assert!(holds("SELECT NOT EXISTS (SELECT FROM dot_wrapper.lease_grant)"), "{change}");
        assert!(holds("SELECT NOT EXISTS (SELECT FROM dot_wrapper.dot_run_attempt)"), "{change}");
        let gates = format!(
            "SELECT count(*) > 0 FROM dot_run_gate WHERE run_id = '{id}' AND stage = 'send' AND verdict = 'BLOCK'"
        );
        assert!(holds(&gates), "{change}");
    }

    #[pg_test]
    fn a_claimed_run_has_its_intent_on_record_and_is_told_apart() {
        open_gates();
        let id = admit("'A', 'apply', NULL, '{\"n\": 1.10}'");
        let claimed = claim();
        assert_eq!(claimed.deliveries.len(), 1);
        let delivery = &claimed.deliveries[0];
        assert_eq!((delivery.run_id.to_string(), delivery.attempt), (id.clone(), 1));
        let body = &delivery.request.http().expect("an HTTP request").body;
        assert_eq!(body["args"].to_string(), r#"{"n":1.10}"#);
        assert_eq!(body["fencing_token"].as_i64(), delivery.terms.fencing_token);
        assert!(delivery.terms.fencing_token.is_some() && body["deadline"].is_string());
        assert_eq!(state_of(&id), "running");
        assert!(holds("SELECT count(*) = 1 FROM dot_wrapper.dot_run_attempt WHERE attempt = 1"));
        assert!(holds("SELECT bool_and(verdict <> 'BLOCK') FROM dot_run_gate WHERE stage = 'send'"));
        assert_eq!(claim().seen, 0, "claimed once");
    }

    #[pg_test]
    fn a_gate_that_closed_meanwhile_refuses() {
        open_gates();
        refused_after("UPDATE dot_config SET value = 'off' WHERE key LIKE 'iu_core%'", "refused toggle_off");
    }

    #[pg_test]
    fn a_guard_that_blocks_meanwhile_refuses() {
        open_gates();
        refused_after("UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present'", "refused guard_error");
    }

    #[pg_test]
    fn a_tool_that_was_retired_meanwhile_refuses() {
        open_gates();
        refused_after("UPDATE dot_tools SET status = 'retired'", "refused inactive");
    }

    #[pg_test]
    fn a_target_that_moved_meanwhile_refuses() {
        open_gates();
        let moved = "UPDATE dot_wrapper.endpoint SET path = '/elsewhere/{code}'";
        refused_after(moved, "refused endpoint_changed");
    }

    #[pg_test]
    fn an_egress_rule_that_went_meanwhile_refuses() {
        open_gates();
        refused_after("DELETE FROM dot_wrapper.egress_rule", "refused no_egress_rule");
    }

    #[pg_test]
    fn a_run_that_waited_too_long_expires() {
        open_gates();
        let late = "UPDATE dot_wrapper.dot_run SET start_by = requested_at WHERE run_status = 'queued'";
        refused_after(late, "expired start_by_passed");
    }

    #[pg_test]
    fn a_role_that_lost_its_right_or_its_life_refuses() {
        open_gates();
        for (change, want) in [
            ("REVOKE EXECUTE ON FUNCTION fn_dot_run FROM in_db_requester", "refused privilege_revoked"),
            ("DROP OWNED BY in_db_requester; DROP ROLE in_db_requester", "refused role_gone"),
        ] {
            run("DO $$ BEGIN CREATE ROLE in_db_requester; EXCEPTION WHEN duplicate_object THEN END $$;
                 GRANT EXECUTE ON FUNCTION fn_dot_run TO in_db_requester; SET LOCAL ROLE in_db_requester");
            let id = text("SELECT run_id::text FROM fn_dot_run('A', 'apply')");
            run("RESET ROLE; UPDATE dot_wrapper.dot_queue SET available_at = now()");
            run(change);
            assert!(claim().deliveries.is_empty(), "{change}");
            assert_eq!(state_of(&id), want);
        }
    }

    #[pg_test]
    fn a_row_that_did_not_come_through_the_front_door_is_set_aside() {
        open_gates();
        let id = admit("'B', 'apply'");
        run("UPDATE dot_wrapper.dot_run SET args = '{\"all\": true}' WHERE run_status = 'queued';
             INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit)
             VALUES ('00000000-0000-7000-8000-00000000dead', 'queued', 1, 'B', 'agent', '\\x00')");
        let claimed = claim();
        assert_eq!((claimed.deliveries.len(), claimed.seen), (0, 2));
        assert_eq!(state_of(&id), "queued", "nobody may end it either");
        assert!(holds("SELECT count(*) = 2 FROM dot_wrapper.dot_queue WHERE available_at = 'infinity'"));
        assert!(holds(&format!(
            "SELECT count(*) = 1 FROM dot_run_event WHERE run_id = '{id}' AND event = 'no_permit'"
        )));
        assert_eq!(claim().seen, 0, "set aside");
    }

    #[pg_test]
    fn a_copy_of_the_database_claims_nothing() {
        open_gates();
        let id = admit("'B', 'apply'");
        run("UPDATE dot_wrapper.instance SET database_oid = 1");
        let claimed = claim();
        assert!(claimed.suspended && claimed.deliveries.is_empty());
        assert_eq!(state_of(&id), "queued");
        run("SELECT fn_dot_resume(); UPDATE dot_wrapper.dot_queue SET available_at = now()");
        assert_eq!(claim().deliveries.len(), 1);
    }

    #[pg_test]
    fn a_lease_that_was_lost_in_the_queue_is_not_stolen_back() {
        open_gates();
        let id = admit("'A', 'apply'");
        run("UPDATE dot_iu_runtime_lease SET holder = 'somebody else'");
        assert!(claim().deliveries.is_empty());
        assert_eq!(state_of(&id), "refused lease_held");
        assert_eq!(text("SELECT holder FROM dot_iu_runtime_lease"), "somebody else");
    }

    #[pg_test]
    fn a_lease_that_ran_out_in_the_queue_is_taken_again_with_a_new_token() {
        open_gates();
        let id = admit("'A', 'apply'");
        let before = text(&format!("SELECT fencing_token::text FROM dot_wrapper.dot_run WHERE run_id = '{id}'"));
        run("UPDATE dot_iu_runtime_lease SET expires_at = now() - interval '1 s';
             UPDATE dot_wrapper.lease_grant SET expires_at = now() - interval '1 s'");
        let token = claim().deliveries[0].terms.fencing_token.unwrap();
        assert!(token > before.parse::<i64>().unwrap());
        let now = text(&format!("SELECT fencing_token::text FROM dot_wrapper.dot_run WHERE run_id = '{id}'"));
        assert_eq!(now, token.to_string());
    }
}
