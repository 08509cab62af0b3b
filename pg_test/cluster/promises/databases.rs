//! O2, O3, O5: databases that are dropped, renamed and copied, starts that fail, DROP EXTENSION.

mod commands;
mod dropping;
mod starts;
