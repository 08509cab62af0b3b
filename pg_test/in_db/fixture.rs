//! What the tests share: SQL in one line, where the session stands, and an extension with every gate open.

use pgrx::prelude::*;

use crate::pg::caught::Caught;
use crate::pg::xact;

/// Runs statements.
pub(super) fn run(sql: &str) {
    Spi::run(sql).expect(sql);
}

/// One text; any type is cast by the caller.
pub(super) fn text(sql: &str) -> String {
    Spi::get_one::<String>(sql).expect(sql).unwrap_or_else(|| panic!("NULL from {sql}"))
}

/// One truth value.
pub(super) fn holds(sql: &str) -> bool {
    Spi::get_one::<bool>(sql).expect(sql).unwrap_or(false)
}

/// The error that statements end with, which is undone.
pub(super) fn error_of(sql: &str) -> Caught {
    xact::subtransaction(|| run(sql)).expect_err(sql)
}

/// Who and where the session is: what everything that switches it has to bring back.
pub(super) fn standing() -> String {
    text(
        "SELECT concat_ws(' ', session_user, current_user, current_setting('search_path'), current_setting('work_mem'))",
    )
}

/// Tests run side by side in one database. Most use the extension's tables together; one that drops or alters them
/// would deadlock with those. To be called before anything else is.
pub(super) fn beside_others() {
    run("SELECT pg_advisory_xact_lock_shared(hashtext('in_db'))");
}

/// For a test that drops or alters what the others use; see [`beside_others`].
pub(super) fn alone() {
    run("SELECT pg_advisory_xact_lock(hashtext('in_db'))");
}

/// A tool `A` with a lease and a tool `B` without, an agent that is allowed, toggle and guard open.
pub(super) fn open_gates() {
    beside_others();
    run("INSERT INTO dot_tools (code, name, execution_engine)
             VALUES ('A', 'Tool A', 'agent_api'), ('B', 'Tool B', 'agent_api');
         INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'https://agent.invalid');
         INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes, lease)
             VALUES ('engine', 'agent_api', 'agent', '{verify,apply}', NULL), ('tool', 'B', NULL, NULL, 'none');
         UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
         UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';");
}

/// Admits a run and makes it due within this very transaction; its id.
pub(super) fn admit(call: &str) -> String {
    let id = text(&format!("SELECT run_id::text FROM fn_dot_run({call}) WHERE run_status = 'queued'"));
    run("UPDATE dot_wrapper.dot_queue SET available_at = now()");
    id
}
