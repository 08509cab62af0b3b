//! The trigger function that tells of a change and does nothing else.
//!
//! Lives here: the symbol and its protocol. Does not live here: who is told; that is handed in when the library is loaded.

use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

static TELL: OnceLock<fn()> = OnceLock::new();

/// Says whom to tell. Once, from `_PG_init`.
pub fn install(tell: fn()) {
    let _ = TELL.set(tell);
}

/// For AFTER triggers, whose result is not looked at.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn dot_wrapper_wake_on_change(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes its call information; the context is NULL or a node, and a TriggerData node where the
    // function is called by a trigger.
    let is_after = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            pgrx::error!("dot_wrapper: this function is for a trigger");
        }
        (*context.cast::<pg_sys::TriggerData>()).tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK
            == pg_sys::TRIGGER_EVENT_AFTER
    };
    if !is_after {
        // A BEFORE trigger that returns nothing would undo every change of the table.
        pgrx::error!("dot_wrapper: wake_on_change is for AFTER triggers");
    }
    if let Some(tell) = TELL.get() {
        tell();
    }
    pg_sys::Datum::from(0)
}

/// What PostgreSQL looks for before it calls the function above.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_finfo_dot_wrapper_wake_on_change() -> *const pg_sys::Pg_finfo_record {
    static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION_1
}
