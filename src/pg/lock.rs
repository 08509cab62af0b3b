//! Heavyweight locks: those of our own, that no SQL function can reach, and the extension's.
//!
//! Lives here: the two lock tags and taking them. Does not live here: row locks, and the meaning of a key.
//!
//! They share the advisory lock space of the database, but carry a `field4` that pg_advisory_lock() cannot produce (it
//! uses 1 and 2): an ordinary role can neither block the worker nor guess its way into an idempotency key.
//! In pg_locks they show as locktype advisory with that number as objsubid.

use std::ffi::CStr;

use pgrx::pg_sys;

const FIELD4_WORKER: u16 = 0x0D07;
const FIELD4_KEY: u16 = 0x0D08;

/// What a session lock stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SessionLock {
    /// Being the one worker of this database.
    Worker = 1,
}

/// Takes the lock for the life of this process, if nobody in this database has it. Not to be called twice.
pub fn try_session_lock(kind: SessionLock) -> bool {
    acquire(tag(kind as u32, 0, FIELD4_WORKER), pg_sys::ExclusiveLock, true, true)
}

/// Makes sure that the lock is still held, and takes it again where somebody's pg_advisory_unlock_all() in this very
/// process has let it go. False when another process has it now.
pub fn hold_session_lock(kind: SessionLock) -> bool {
    let tag = tag(kind as u32, 0, FIELD4_WORKER);
    let mode = pg_sys::ExclusiveLock.cast_signed();
    // SAFETY: looks at this process's own lock table; the tag is fully initialised.
    #[cfg(not(feature = "pg18"))]
    let held = unsafe { pg_sys::LockHeldByMe(&tag, mode) };
    // SAFETY: as above.
    #[cfg(feature = "pg18")]
    let held = unsafe { pg_sys::LockHeldByMe(&tag, mode, false) };
    held || try_session_lock(kind)
}

/// Waits for the lock on `hash` in this database and keeps it until the transaction ends.
///
/// Honours lock_timeout (55P03), cancel (57014) and deadlock detection (40P01): each is raised as an error.
pub fn xact_lock(hash: i64) {
    acquire(key_tag(hash), pg_sys::ExclusiveLock, false, false);
}

/// As [`xact_lock`], but others may share it; who takes it alone waits for all of them, and they for him.
pub fn xact_lock_shared(hash: i64) {
    acquire(key_tag(hash), pg_sys::ShareLock, false, false);
}

/// Returns once everybody can know what the transactions have changed that the statements so far have seen the end of: a commit
/// is seen by others a moment before its invalidation messages are sent, and whoever looks in between finds the new rows, and the
/// old privileges, definitions and configuration. A transaction lets the lock on its own id go after the messages.
///
/// Not by the ids in the rows: they may be of subtransactions, whose locks are gone by then, or so old that they count as the
/// future.
///
/// Honours lock_timeout (55P03) and cancel (57014): each is raised as an error.
pub fn wait_until_told() {
    let (relation, row) = (std::ptr::null_mut(), std::ptr::null_mut());
    for xid in transactions_with_locks() {
        // SAFETY: inside a transaction; the callee takes a lock and lets it go. It would wait for this very transaction for ever,
        // and for those that go on until they end; nobody has seen these.
        unsafe {
            if !pg_sys::TransactionIdIsCurrentTransactionId(xid) && !pg_sys::TransactionIdIsInProgress(xid) {
                pg_sys::XactLockTableWait(xid, relation, row, pg_sys::XLTW_Oper::XLTW_None);
            }
        }
    }
    // SAFETY: inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Those that have the lock on their own id: all that go on and have one, and those that have ended and are not through with it.
fn transactions_with_locks() -> Vec<pg_sys::TransactionId> {
    let is_own = |lock: &&pg_sys::LockInstanceData| {
        lock.locktag.locktag_type == pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8
            && lock.holdMask & (1 << pg_sys::ExclusiveLock) != 0
    };
    // SAFETY: the callee fills an array of that length in the current memory context, which is freed with it.
    unsafe {
        let data = &*pg_sys::GetLockStatusData();
        let locks = match usize::try_from(data.nelements) {
            Ok(length) if !data.locks.is_null() => std::slice::from_raw_parts(data.locks, length),
            _ => &[],
        };
        locks.iter().filter(is_own).map(|lock| lock.locktag.locktag_field1.into()).collect()
    }
}

/// Keeps the extension `oid` of this name from being dropped until the transaction ends. False when it is gone.
///
/// DROP EXTENSION locks the extension before anything in it. Who does the same first cannot meet it half way, each waiting for
/// a table that the other has. Honours lock_timeout and cancel as [`xact_lock`] does.
pub fn keep_extension(name: &CStr, oid: pg_sys::Oid) -> bool {
    // SAFETY: plain values; called inside a transaction, whose resource owner keeps the lock.
    unsafe {
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, oid, 0, pg_sys::AccessShareLock.cast_signed());
        pg_sys::get_extension_oid(name.as_ptr(), true) == oid
    }
}

fn key_tag(hash: i64) -> pg_sys::LOCKTAG {
    let bits = hash.cast_unsigned();
    tag((bits >> 32) as u32, bits as u32, FIELD4_KEY)
}

fn tag(field2: u32, field3: u32, field4: u16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: a process-global that is set once, when the process connects.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: field2,
        locktag_field3: field3,
        locktag_field4: field4,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn acquire(tag: pg_sys::LOCKTAG, mode: u32, for_session: bool, dont_wait: bool) -> bool {
    // SAFETY: the tag is fully initialised and copied by the callee; a resource owner exists where a transaction lock
    // is asked for, since SQL called us, and a session lock needs none.
    let result = unsafe { pg_sys::LockAcquire(&tag, mode.cast_signed(), for_session, dont_wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
