//! A process run: how its runs stand, by who requested them, and what a dry run of it came to. Does not live here: who may
//! see which of them (`run::wait`).

use uuid::Uuid;

use super::extension::Extension;
use super::spi;
use crate::domain::dry_run::Seen;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::state::RunStatus;
use crate::error;
use crate::pg::rows::Row;
use crate::pg::settings;

/// A role, as a run remembers who requested it: OID, and name of then.
pub type Requester = (pgrx::pg_sys::Oid, String);

/// The runs that one role has in a process run.
#[derive(Clone, Debug)]
pub struct Share {
    /// The role.
    pub requested_by: Requester,
    /// How many are queued or running.
    pub unfinished: i64,
    /// True when this very transaction made or moved one of those.
    pub is_own: bool,
}

/// Who has runs in a process run, and how they stand.
///
/// # Errors
/// XX000 only.
pub fn shares(process_run_id: Uuid) -> Result<Vec<Share>, DotError> {
    let sql = "SELECT r.requested_by_oid, r.requested_by::text, count(*) FILTER (WHERE r.run_status IN ('queued', 'running')),
                      array_agg(DISTINCT r.xmin::text::bigint) FILTER (WHERE r.run_status IN ('queued', 'running'))
               FROM dot_wrapper.dot_run r WHERE r.process_run_id = $1 GROUP BY 1, 2";
    spi::rows(sql, &[spi::uuid(process_run_id).into()], |row| {
        let ids: Vec<i64> = row.get(4)?.unwrap_or_default();
        Ok(Share {
            requested_by: (spi::need(row, 1)?, spi::need(row, 2)?),
            unfinished: spi::need(row, 3)?,
            is_own: ids.into_iter().any(|id| u32::try_from(id).is_ok_and(settings::is_own_transaction)),
        })
    })
}

/// True when the role may read the view of process runs, and call the function that it calls.
///
/// # Errors
/// XX000 only.
pub fn may_summarize(extension: &Extension, role: pgrx::pg_sys::Oid) -> Result<bool, DotError> {
    let sql = "SELECT has_table_privilege($1, v.oid, 'SELECT') AND has_function_privilege($1, f.oid, 'EXECUTE')
               FROM pg_catalog.pg_class v, pg_catalog.pg_proc f
               WHERE v.relnamespace = $2 AND v.relname = 'dot_process_run'
                 AND f.pronamespace = $2 AND f.proname = 'fn_dot_iu_commands' AND f.pronargs = 0";
    Ok(spi::row(sql, &[role.into(), extension.schema_oid.into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// A process run's row of the view, as the role in force sees it.
///
/// # Errors
/// XX000 only; PostgreSQL's own 42501 for who may not read the view.
pub fn summary(extension: &Extension, process_run_id: Uuid) -> Result<Option<Row>, DotError> {
    let sql = format!("SELECT p FROM {}.dot_process_run p WHERE p.process_run_id = $1", extension.schema);
    spi::row(&sql, &[spi::uuid(process_run_id).into()], |row| spi::need(row, 1))
}

/// A plan or verify of a process run.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Tool.
    pub code: String,
    /// Plan or verify.
    pub mode: Mode,
    /// How it stands.
    pub seen: Seen,
    /// See `domain::render::fingerprint`.
    pub fingerprint: Option<String>,
}

/// The newest plan and the newest verify of each tool, among the runs that these roles requested.
///
/// # Errors
/// XX000 only.
pub fn looked(process_run_id: Uuid, requesters: &[Requester]) -> Result<Vec<Looked>, DotError> {
    let sql = "SELECT DISTINCT ON (f.code, f.mode) f.code, f.mode, f.run_status, coalesce(f.first_gate, f.second_gate),
                      f.reason, f.message, f.fingerprint
               FROM dot_wrapper.run_facts f
               WHERE f.process_run_id = $1 AND f.mode IN ('plan', 'verify')
                 AND EXISTS (SELECT FROM unnest($2::oid[], $3::text[]) AS u (oid, name)
                             WHERE u.oid = f.requested_by_oid AND u.name = f.requested_by::text)
               ORDER BY f.code, f.mode, f.requested_at DESC, f.run_id DESC";
    let oids: Vec<pgrx::pg_sys::Oid> = requesters.iter().map(|(oid, _)| *oid).collect();
    let names: Vec<String> = requesters.iter().map(|(_, name)| name.clone()).collect();
    let rows = spi::rows(sql, &[spi::uuid(process_run_id).into(), oids.into(), names.into()], |row| {
        let words = (spi::need::<String>(row, 1)?, spi::need::<String>(row, 2)?, spi::need::<String>(row, 3)?);
        Ok((words, (row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?)))
    })?;
    rows.into_iter()
        .map(|((code, mode, status), (gate, reason, message, fingerprint))| {
            let status = RunStatus::parse(&status).ok_or_else(|| error::internal("unknown run status"))?;
            let mode = Mode::parse(&mode).ok_or_else(|| error::internal("unknown mode"))?;
            Ok(Looked { code, mode, seen: Seen { status, gate, reason, message }, fingerprint })
        })
        .collect()
}
