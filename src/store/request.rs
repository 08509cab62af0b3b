//! `dot_run_request`: whether a row is there, and what of the ledger it shows. How it is kept up is `mirror`'s.

use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use uuid::Uuid;

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;

/// What a row shows of its run.
pub struct Shown {
    /// The process run.
    pub process_run_id: Uuid,
    /// Where the run stands.
    pub run_status: String,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// What the engine gave back.
    pub result: Option<JsonB>,
    /// When it was over.
    pub finished_at: Option<TimestampWithTimeZone>,
}

/// What the ledger has of a run; `None` when there is none.
///
/// # Errors
/// XX000 only.
pub fn shown(run_id: Uuid) -> Result<Option<Shown>, DotError> {
    let sql = "SELECT r.process_run_id, r.run_status, r.reason, r.message, r.result, r.finished_at
               FROM dot_wrapper.dot_run r WHERE r.run_id = $1";
    spi::row(sql, &[spi::uuid(run_id).into()], |row| {
        Ok(Shown {
            process_run_id: spi::need_uuid(row, 1)?,
            run_status: spi::need(row, 2)?,
            reason: row.get(3)?,
            message: row.get(4)?,
            result: row.get(5)?,
            finished_at: row.get(6)?,
        })
    })
}

/// True when a row of this id is there, whoever's it is.
///
/// # Errors
/// XX000 only.
pub fn exists(extension: &Extension, id: Uuid) -> Result<bool, DotError> {
    let sql = format!("SELECT true FROM {}.dot_run_request w WHERE w.id = $1", extension.schema);
    Ok(spi::row(&sql, &[spi::uuid(id).into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// The first of these requests whose run is in the ledger and whose row is not in the table, and whether another row has its
/// id. Runs that were rolled back are not looked for.
///
/// # Errors
/// XX000 only.
pub fn without_row(extension: &Extension, made: &[(Uuid, Uuid)]) -> Result<Option<(Uuid, bool)>, DotError> {
    let sql = format!(
        "SELECT x.id, EXISTS (SELECT FROM {0}.dot_run_request w WHERE w.id = x.id)
         FROM unnest($1::uuid[], $2::uuid[]) AS x (id, run_id)
         JOIN dot_wrapper.dot_run r ON r.run_id = x.run_id AND r.source = 'request' AND r.source_ref = x.id::text
         WHERE NOT EXISTS (SELECT FROM {0}.dot_run_request w WHERE w.id = x.id AND w.run_id = x.run_id)
         LIMIT 1",
        extension.schema
    );
    let (ids, runs): (Vec<_>, Vec<_>) = made.iter().map(|(id, run)| (spi::uuid(*id), spi::uuid(*run))).unzip();
    spi::row(&sql, &[ids.into(), runs.into()], |row| Ok((spi::need_uuid(row, 1)?, spi::need(row, 2)?)))
}
