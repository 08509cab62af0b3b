//! Two callers with one idempotency key come one after the other; the second then finds the first one's run.
//!
//! Each call locks its key, and shares a lock on its process run. Who asks for many runs of one process run in one transaction has
//! that lock for himself instead, and locks no keys: the server's table of locks is small (max_locks_per_transaction), and
//! full for everybody. The process run always comes before its keys; two transactions that have it shared, and then want it for
//! themselves, wait in a circle all the same, which the server ends (40P01).
//!
//! Nobody asks here whose process run it is. So the worker, which takes jobs that name any, waits for none.
//!
//! Does not live here: looking for the earlier run (`request`).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::session::Session;
use crate::domain::call::Call;
use crate::domain::canonical;
use crate::domain::error::{DotError, SqlState};
use crate::pg::lock;

/// Up to so many runs have a key each. Of more, and until their transaction ends, other calls of the process run wait.
const MANY: usize = 32;

/// Locks what the next `runs` calls of a process run need beforehand, where one lock is to do for all of them.
pub(super) fn lock_all(session: &mut Session, process_run_id: Uuid, runs: usize) {
    if runs > MANY {
        lock::xact_lock(hash(&json!([process_run_id])));
        session.locked = Some(process_run_id);
    }
}

/// Locks the key of a call until the transaction ends.
///
/// # Errors
/// 55P03 when somebody has it, for a call that does not wait.
pub(super) fn lock(session: &Session, waits: bool, process_run_id: Uuid, call: &Call) -> Result<(), DotError> {
    if session.locked == Some(process_run_id) {
        return Ok(());
    }
    let process = hash(&json!([process_run_id]));
    let key = hash(&json!([process_run_id, call.code, call.mode, call.idempotency_key]));
    if waits {
        lock::xact_lock_shared(process);
        lock::xact_lock(key);
    } else if !lock::try_xact_lock_shared(process) || !lock::try_xact_lock(key) {
        return Err(DotError::new(SqlState::LockNotAvailable, "somebody is requesting runs of the same process run"));
    }
    Ok(())
}

fn hash(what: &Value) -> i64 {
    let digest = Sha256::digest(canonical::text(what).as_bytes());
    i64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}
