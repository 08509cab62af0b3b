//! What the CHECK constraints of our tables call: columns, in the order of sql/20_ledger.sql, to the rules' words.
//!
//! Does not live here: a rule (`domain::fits`).

use crate::domain::fits;
use crate::pg::fits::{Columns, Rules};

/// Says what the rules are. From `_PG_init`.
pub fn install() {
    crate::pg::fits::install(Rules { run, event, queue });
}

fn run(row: Columns) -> Option<&'static std::ffi::CStr> {
    fits::run(&fits::Run {
        mode: row.text(0).unwrap_or_default(),
        status: row.text(1).unwrap_or_default(),
        attempts: row.integer(2),
        admitted: row.boolean(3),
        has_finished: row.has(4),
        has_started: row.has(5),
        has_request: row.has(6) && row.has(7) && row.has(8),
        has_reason: row.has(9) && row.has(10),
        has_token: row.has(11),
        has_lease_key: row.has(12),
        has_limits: row.has(13) && row.has(14),
        has_answer: row.has(15) || row.has(16),
        args_are_object: row.is_object(17),
        gates_are_array: row.is_array(18),
        code: row.characters(19),
        source: row.text(20).unwrap_or_default(),
        source_ref: row.characters(21),
        actor: row.characters(22),
        key: row.characters(23),
    })
}

fn event(row: Columns) -> Option<&'static std::ffi::CStr> {
    fits::event(row.text(0), row.text(1), row.is_object(2), row.length(3))
}

fn queue(row: Columns) -> Option<&'static std::ffi::CStr> {
    fits::queued(row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default(), row.has(2))
}
