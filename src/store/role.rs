//! Roles: whether those who requested runs are still there and may still request.

use pgrx::pg_sys;

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;

/// What is known of a requesting role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its name now; `None` when it is gone.
    pub name: Option<String>,
    /// True when it may call `fn_dot_run`: EXECUTE on it, and USAGE on its schema.
    pub may_call: bool,
    /// True when it may insert into `dot_run_request` and has been told so: the privilege of pg_write_all_data, to write every
    /// table, is not one to run tools.
    pub may_request: bool,
}

/// Looks roles up.
///
/// # Errors
/// XX000 only.
pub fn requesters(extension: &Extension, roles: &[pg_sys::Oid]) -> Result<Vec<Requester>, DotError> {
    let sql = "SELECT x.oid, r.rolname::text,
                      coalesce(has_schema_privilege(r.oid, $2, 'USAGE')
                           AND has_function_privilege(r.oid, (SELECT f.oid FROM pg_catalog.pg_proc f
                               WHERE f.pronamespace = $2 AND f.proname = 'fn_dot_run' AND f.pronargs = 5), 'EXECUTE'), false),
                      coalesce(has_schema_privilege(r.oid, $2, 'USAGE') AND EXISTS (
                          SELECT FROM pg_catalog.pg_class c
                          LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attname = 'code'
                          WHERE c.relnamespace = $2 AND c.relname = 'dot_run_request'
                            AND (pg_has_role(r.oid, c.relowner, 'USAGE') OR EXISTS (
                                SELECT FROM (SELECT * FROM aclexplode(c.relacl) UNION ALL SELECT * FROM aclexplode(t.attacl)) a
                                WHERE a.privilege_type = 'INSERT'
                                  AND (a.grantee = 0 OR pg_has_role(r.oid, a.grantee, 'USAGE'))))), false)
               FROM unnest($1) AS x (oid) LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.oid";
    // Once: for one role a plan of its own looks cheaper by more than what it costs to make one in every claim.
    spi::steady_rows(sql, &[roles.to_vec().into(), extension.schema_oid.into()], |row| {
        Ok(Requester {
            oid: spi::need(row, 1)?,
            name: row.get(2)?,
            may_call: spi::need(row, 3)?,
            may_request: spi::need(row, 4)?,
        })
    })
}

/// True when the role may call `fn_dot_resolve`.
///
/// # Errors
/// XX000 only.
pub fn may_resolve(extension: &Extension, role: pg_sys::Oid) -> Result<bool, DotError> {
    let sql = "SELECT has_function_privilege($1, f.oid, 'EXECUTE') FROM pg_catalog.pg_proc f
               WHERE f.pronamespace = $2 AND f.proname = 'fn_dot_resolve' AND f.pronargs = 3";
    Ok(spi::row(sql, &[role.into(), extension.schema_oid.into()], |row| spi::need(row, 1))?.unwrap_or(false))
}

/// True when the role in force may call this function of ours.
///
/// # Errors
/// XX000 only.
pub fn may_execute(extension: &Extension, function: &str, arguments: i16) -> Result<bool, DotError> {
    let sql = "SELECT pg_catalog.has_function_privilege(f.oid, 'EXECUTE') FROM pg_catalog.pg_proc f
               WHERE f.pronamespace = $1 AND f.proname = $2 AND f.pronargs = $3";
    let args = [extension.schema_oid.into(), function.into(), arguments.into()];
    Ok(spi::row(sql, &args, |row| spi::need(row, 1))?.unwrap_or(false))
}
