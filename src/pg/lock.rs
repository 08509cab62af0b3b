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

/// Whether everybody can know what this transaction has changed, of which a statement has seen a row: a commit is seen by others a
/// moment before its invalidation messages are sent, and whoever looks in between finds the new rows, and the old privileges,
/// definitions and configuration. A transaction lets the lock on its own id go after the messages.
///
/// `xid` is the id of the transaction itself, not one of its subtransactions, whose locks are gone sooner. One that is no transaction's
/// of this server's, as after a restore, counts as told.
pub fn is_told(xid: u64) -> bool {
    // SAFETY: reads shared memory.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    // Or so old that its number means another one.
    let is_recent = xid < next && next - xid < u64::from(u32::MAX / 2);
    !is_recent || u32::try_from(xid & u64::from(u32::MAX)).is_ok_and(|xid| has_told(xid.into()))
}

/// As [`is_told`], of all transactions that this statement may have seen. Looks through the server's table of locks.
pub fn are_all_told() -> bool {
    let is_own = |lock: &&pg_sys::LockInstanceData| {
        lock.locktag.locktag_type == pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8
            && lock.holdMask & (1 << pg_sys::ExclusiveLock) != 0
    };
    // SAFETY: the callee fills an array of that length in the current memory context, which is freed with it.
    let locks = unsafe {
        let data = &*pg_sys::GetLockStatusData();
        match usize::try_from(data.nelements) {
            Ok(length) if !data.locks.is_null() => std::slice::from_raw_parts(data.locks, length),
            _ => &[],
        }
    };
    locks.iter().filter(is_own).all(|lock| has_told(lock.locktag.locktag_field1.into()))
}

/// Takes in what others have told of so far.
pub fn hear() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// As [`xact_lock`], if nobody has it.
pub fn try_xact_lock(hash: i64) -> bool {
    acquire(key_tag(hash), pg_sys::ExclusiveLock, false, true)
}

/// As [`xact_lock_shared`], if nobody has it alone.
pub fn try_xact_lock_shared(hash: i64) -> bool {
    acquire(key_tag(hash), pg_sys::ShareLock, false, true)
}

fn has_told(xid: pg_sys::TransactionId) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: xid.into(),
        locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        ..pg_sys::LOCKTAG::default()
    };
    if acquire(tag, pg_sys::ShareLock, false, true) {
        // SAFETY: what was taken above.
        return unsafe { pg_sys::LockRelease(&tag, pg_sys::ShareLock.cast_signed(), false) };
    }
    // Somebody has it. Who goes on has shown nothing to anybody yet, and who rolls back has nothing to tell.
    // SAFETY: a transaction that has its lock is recent enough to be asked about.
    unsafe { pg_sys::TransactionIdIsInProgress(xid) || !pg_sys::TransactionIdDidCommit(xid) }
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
