//! dot_wrapper: governed execution of catalogued operations tools inside PostgreSQL.
//!
//! ```text
//! api     the SQL functions              worker  the background side
//! run     use cases, one transaction     engine  HTTP and programs; knows nothing of PostgreSQL
//! domain  decisions; pure                store   the only SQL
//! guc     settings                       pg      everything unsafe
//! error   errors as PostgreSQL's         host    what the file system says of programs
//! ```
//!
//! `api → run → {domain, store, pg, host}` · `worker → {run, domain, store, engine, pg}` · `store → {domain, pg}` ·
//! `engine → {domain, host}` · `host → domain`. `api` also asks `worker` for two plain things: a wake at commit, and the facts for the doctor.
#![deny(unsafe_code)]

pub mod api;
pub mod domain;
pub mod engine;
pub mod error;
pub mod guc;
pub mod host;
#[allow(unsafe_code)]
pub mod pg;
pub mod run;
pub mod store;
pub mod worker;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/in_db/mod.rs"]
pub mod in_db;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
pub mod pg_test;

pgrx::pg_module_magic!();

pgrx::extension_sql_file!("../sql/00_schema.sql", name = "schema", bootstrap);
pgrx::extension_sql_file!("../sql/10_substrate.sql", name = "substrate", requires = ["schema"]);
pgrx::extension_sql_file!("../sql/20_ledger.sql", name = "ledger", requires = ["substrate"]);
pgrx::extension_sql_file!("../sql/25_seal.sql", name = "seal", requires = ["ledger"]);
pgrx::extension_sql_file!("../sql/30_config.sql", name = "config", requires = ["seal"]);
pgrx::extension_sql_file!("../sql/32_breaker.sql", name = "breaker", requires = ["config"]);
pgrx::extension_sql_file!("../sql/34_schedules.sql", name = "schedules", requires = ["breaker"]);
pgrx::extension_sql_file!("../sql/35_triggers.sql", name = "triggers", requires = ["schedules"]);
pgrx::extension_sql_file!("../sql/40_views.sql", name = "views", requires = ["triggers"]);
pgrx::extension_sql_file!("../sql/50_api.sql", name = "api", requires = ["views"]);
pgrx::extension_sql_file!("../sql/52_jobs.sql", name = "jobs", requires = ["api"]);
pgrx::extension_sql_file!("../sql/54_schedules.sql", name = "schedule_functions", requires = ["jobs"]);
pgrx::extension_sql_file!("../sql/55_triggers.sql", name = "trigger_functions", requires = ["schedule_functions"]);
pgrx::extension_sql_file!("../sql/56_request.sql", name = "request", requires = ["trigger_functions"]);
pgrx::extension_sql_file!("../sql/57_observe.sql", name = "observe", requires = ["request"]);
pgrx::extension_sql_file!("../sql/58_kept.sql", name = "kept", requires = ["observe"]);
pgrx::extension_sql_file!("../sql/60_acl.sql", name = "acl", requires = ["kept"], finalize);

/// Called when the library is loaded, by the postmaster or by a session.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    run::uninstall::install();
    pg::on_change::install(worker::wake::request_wake);
    api::install();
    worker::preload();
}
