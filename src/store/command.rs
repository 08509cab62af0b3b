//! `dot_iu_command_run`, the IU-command layer's ledger, shipped or adopted: looked for at each reading, and read with the
//! rights of its owner. Does not live here: what its columns mean (`domain::command`).

use serde_json::Value;

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;
use crate::pg::object::{self, Relation, Use};
use crate::pg::user::{self, Trust};
use crate::pg::xact;

/// The table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    relation: Relation,
    schema: String,
}

/// Finds and locks it; `None` when it is not there, its owner is not trusted, or the reader may not read all of it
/// himself: he needs SELECT, and row security must not be active for him. What a view shows depends on who asks, and it
/// is asked as its owner: it is for those who have his rights.
///
/// # Errors
/// XX000 only.
pub fn find(extension: &Extension, reader: pgrx::pg_sys::Oid) -> Result<Option<Commands>, DotError> {
    let Some(relation) = object::lock_relation(c"dot_iu_command_run", extension.schema_oid, Use::Read) else {
        return Ok(None);
    };
    let fits = match relation.kind {
        'r' | 'p' => true,
        'v' => user::has_privileges_of(reader, relation.owner),
        _ => false,
    };
    if !fits || !extension.trusts(relation.owner) {
        return Ok(None);
    }
    let sql = "SELECT pg_catalog.has_table_privilege($1, 'SELECT') AND NOT pg_catalog.row_security_active($1)";
    let may_read = spi::seen(sql, &[relation.oid.into()], |row| row.get::<bool>(1))?;
    let is_open = may_read == [Some(true)];
    Ok(is_open.then(|| Commands { relation, schema: extension.schema.clone() }))
}

// As for the catalogue: the statement runs under the owner's search_path, so every name and operator is qualified, and the
// table's name is compared with the OID that was checked.
impl Commands {
    /// All rows, as JSON.
    ///
    /// # Errors
    /// A line for people when the table, or its owner's code behind it, raises an error.
    pub fn read(&self) -> Result<Vec<Value>, String> {
        let sql = format!(
            "SELECT pg_catalog.to_jsonb(t)::pg_catalog.text FROM {0}.dot_iu_command_run t
             WHERE pg_catalog.to_regclass('{0}.dot_iu_command_run') OPERATOR(pg_catalog.=) $1",
            self.schema.replace('\'', "''")
        );
        let read = || spi::seen(&sql, &[self.relation.oid.into()], |row| row.get::<String>(1));
        let path = format!("{}, pg_temp", self.schema);
        let rows = xact::subtransaction(|| user::run_as(self.relation.owner, Trust::Foreign, &path, read));
        let rows = match rows {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Err(error.message),
            Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
            Err(caught) => return Err(caught.message),
        };
        rows.into_iter()
            .map(|row| serde_json::from_str(&row.unwrap_or_default()).map_err(|e| format!("a row is unreadable: {e}")))
            .collect()
    }
}
