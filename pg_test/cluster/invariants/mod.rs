//! The thirteen invariants of the design, a file each. Every test here fails when its invariant is broken.

mod i01_before_commit;
mod i02_no_row_no_run;
mod i03_every_decision;
mod i04_fail_closed;
mod i05_never_twice;
mod i06_never_blind;
mod i07_gated_twice;
mod i08_compare_and_set;
mod i09_no_transaction;
mod i10_secrets;
mod i11_not_a_permit;
mod i12_terminal;
mod i13_nothing_for_public;
mod i13_other_peoples_code;
mod i13_planted;
