//! The queue gate: whether one more run may wait. No lock, and rarely a count: see `domain::depth`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use pgrx::pg_sys;

use crate::domain::decide;
use crate::domain::depth::{self, Count, Known};
use crate::domain::error::DotError;
use crate::domain::gate::Decision;
use crate::domain::lane;
use crate::domain::policy::Policy;
use crate::guc;
use crate::pg::settings;
use crate::store::depth::{self as store, Of};

/// What a count was about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum About {
    All,
    Tool(String),
    Role(u32),
}

thread_local! {
    /// What this session has counted last, of which extension. Few: tools with a limit that it calls, roles that it has been.
    static COUNTS: RefCell<HashMap<(pg_sys::Oid, About), Count>> = RefCell::new(HashMap::new());
}

/// More than this is forgotten.
const MAX_COUNTS: usize = 1000;

/// The decision that refuses, or `None` while there is room for one more run of this role and tool.
///
/// # Errors
/// XX000 only.
pub fn ask(extension: pg_sys::Oid, policy: &Policy, role: u32, code: &str) -> Result<Option<Decision>, DotError> {
    let limit = guc::max_queued();
    let is_full = |about, of, limit, pushed| is_full((extension, about), of, limit, pushed);
    if limit == 0 && policy.max_queued.is_none() {
        return Ok(None);
    }
    let pushed = store::pushed()?;
    if let Some(most) = policy.max_queued
        && is_full(About::Tool(code.to_owned()), Of::Tool(code), most, pushed)?
    {
        return Ok(Some(decide::queue_full(code, Some(most))));
    }
    if limit == 0 || !is_full(About::All, Of::All, limit, pushed)? {
        return Ok(None);
    }
    // Full; but not for those who have little in it.
    let (first, last) = lane::of_role(role);
    let has_share = is_full(About::Role(role), Of::Lanes(first, last), depth::share(limit), pushed)?;
    Ok(has_share.then(|| decide::queue_full(code, None)))
}

fn is_full(about: (pg_sys::Oid, About), of: Of<'_>, limit: i64, pushed: i64) -> Result<bool, DotError> {
    let last = COUNTS.with_borrow(|counts| counts.get(&about).copied());
    match depth::known(last, limit, pushed, Instant::now()) {
        Known::Room => return Ok(false),
        Known::Full => return Ok(true),
        Known::Unknown => {}
    }
    let begun = Instant::now();
    let found = store::count(of, limit)?;
    let at = Instant::now();
    // With one snapshot for the whole transaction the count may be old, and is good for this call alone.
    if !settings::has_one_snapshot() {
        let count = Count { found, limit, pushed, at, took: at - begun };
        COUNTS.with_borrow_mut(|counts| {
            if counts.len() >= MAX_COUNTS {
                counts.clear();
            }
            counts.insert(about, count)
        });
    }
    Ok(found >= limit)
}
