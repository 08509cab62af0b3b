//! The catalogue, `dot_tools`: read tolerantly, and its counters moved, both with the rights of its owner.

use pgrx::pg_sys;

use super::extension::Extension;
use super::spi;
use crate::domain::error::DotError;
use crate::domain::tool::Tool;
use crate::pg::user::{self, Trust};
use crate::pg::xact;

/// The catalogue table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    owner: pg_sys::Oid,
    schema: String,
    counts: bool,
    dates: bool,
}

/// Finds the catalogue.
///
/// # Errors
/// XX000 only; `None` when there is no table or view `dot_tools`, or when its owner is not trusted any more.
pub fn find(extension: &Extension) -> Result<Option<Catalogue>, DotError> {
    let sql = "SELECT c.relowner,
                      EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'usage_count' AND NOT a.attisdropped),
                      EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'last_executed' AND NOT a.attisdropped)
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_extension e ON e.extnamespace = c.relnamespace AND e.extname = 'dot_wrapper'
               JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
               JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
               WHERE c.relname = 'dot_tools' AND c.relkind IN ('r', 'p', 'v')
                 AND (o.rolsuper OR o.oid IN (e.extowner, d.datdba))";
    spi::row(sql, &[], |row| {
        Ok(Catalogue {
            owner: spi::need(row, 1)?,
            schema: extension.schema.clone(),
            counts: spi::need(row, 2)?,
            dates: spi::need(row, 3)?,
        })
    })
}

impl Catalogue {
    /// The rows with one of these codes; all rows for `None`. In the order of their codes.
    ///
    /// # Errors
    /// A line for people when the catalogue, or its owner's code behind it, raises an error.
    pub fn read(&self, codes: Option<&[String]>) -> Result<Vec<Tool>, String> {
        let sql = format!(
            "SELECT to_jsonb(t) FROM {}.dot_tools t WHERE $1::text[] IS NULL OR t.code::text = ANY ($1) ORDER BY t.code::text",
            self.schema
        );
        let rows =
            self.as_owner(|| spi::rows(&sql, &[codes.map(<[String]>::to_vec).into()], |row| spi::need_json(row, 1)));
        match rows {
            Ok(Ok(rows)) => rows.into_iter().map(Tool::from_row).collect(),
            Ok(Err(error)) => Err(error.message),
            Err(caught) => Err(caught.message),
        }
    }

    /// Adds executions to the counters, as an ordinary UPDATE under the owner's rights: its triggers fire.
    ///
    /// # Errors
    /// What the UPDATE or a trigger raised.
    pub fn count(&self, debts: &[super::usage::Debt]) -> Result<(), String> {
        let mut sets = Vec::new();
        if self.counts {
            sets.push("usage_count = coalesce(t.usage_count, 0) + x.executions");
        }
        if self.dates {
            sets.push("last_executed = greatest(t.last_executed, x.last_executed)");
        }
        if sets.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "UPDATE {}.dot_tools t SET {}
             FROM jsonb_to_recordset($1) AS x (code text, executions bigint, last_executed timestamptz)
             WHERE t.code::text = x.code",
            self.schema,
            sets.join(", ")
        );
        let list = serde_json::Value::from(debts.iter().map(super::usage::Debt::to_json).collect::<Vec<_>>());
        match self.as_owner(|| spi::run(&sql, &[pgrx::JsonB(list).into()])) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.message),
            Err(caught) => Err(caught.message),
        }
    }

    /// In a subtransaction and as the owner, so that neither an error nor a right of ours gets to his code.
    fn as_owner<T>(&self, body: impl FnOnce() -> T) -> Result<T, crate::pg::caught::Caught> {
        let path = format!("{}, pg_temp", self.schema);
        let result = xact::subtransaction(|| user::run_as(self.owner, Trust::Foreign, &path, body));
        match result {
            Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
            other => other,
        }
    }
}
