//! L1 to L4: one holder, growing tokens, clocks that step, holders that die.
//!
//!     history  who held what and when, and what must never be in it
//!     live     L1: contention, function by function and run by run      stale  L2: a holder that slept too long
//!     clock    L3: a clock that steps                                   dead   L4: a holder that was killed

mod clock;
mod dead;
mod history;
mod live;
mod stale;
mod waiting;
