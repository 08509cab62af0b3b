//! O2, O3, O5: databases that are dropped, renamed and copied, starts that fail, DROP EXTENSION, REASSIGN OWNED.

mod commands;
mod dropping;
mod owners;
mod starts;
