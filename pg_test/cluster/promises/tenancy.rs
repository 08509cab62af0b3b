//! T1 to T5: roles, planted objects, other people's runs, secrets.
//!
//!     role     T1: what the worker's role may be             planted  T2: settings and shadows of a database's owner
//!     install  T3: what was there before CREATE EXTENSION    others   T4: what a tenant learns of another's runs
//!     secrets  T5: canaries

mod install;
mod others;
mod planted;
mod role;
mod secrets;
