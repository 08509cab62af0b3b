//! The catalogue, `dot_tools`: read tolerantly, and its counters moved, both with the rights of its owner.

use std::collections::HashMap;

use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiHeapTupleData;

use super::extension::Extension;
use super::spi;
use crate::domain::error::{DotError, SqlState};
use crate::domain::tool::Tool;
use crate::pg::object::{self, Relation, Use};
use crate::pg::user::{self, Trust};
use crate::pg::xact;

/// The catalogue table or view, locked until the end of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    relation: Relation,
    schema: String,
}

/// What was read: tools, and the codes of rows that make none, with the reason.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// In the order of their codes.
    pub tools: Vec<Tool>,
    /// Codes and why.
    pub unreadable: Vec<(String, String)>,
}

/// Finds and locks the catalogue; `None` when there is no table or view `dot_tools`, or its owner is not trusted.
pub fn find(extension: &Extension, usage: Use) -> Option<Catalogue> {
    let relation = object::lock_relation(c"dot_tools", extension.schema_oid, usage)?;
    let fits = matches!(relation.kind, 'r' | 'p' | 'v') && extension.trusts(relation.owner);
    fits.then(|| Catalogue { relation, schema: extension.schema.clone() })
}

/// All tools by their codes; of two with one code, which no gate lets past, the last.
///
/// # Errors
/// 55000 when there is no catalogue, or it cannot be read.
pub fn by_code(extension: &Extension) -> Result<HashMap<String, Tool>, DotError> {
    let unreadable =
        |why: String| DotError::new(SqlState::ObjectNotInPrerequisiteState, "the catalogue cannot be read").detail(why);
    let catalogue = find(extension, Use::Read)
        .ok_or_else(|| unreadable("There is no table dot_tools of a trusted owner.".to_owned()))?;
    let rows = catalogue.read(None).map_err(unreadable)?;
    Ok(rows.tools.into_iter().map(|tool| (tool.code.clone(), tool)).collect())
}

// Statements here run under the owner's search_path, in which anybody who may create there has functions and operators:
// every name and operator is qualified. The name of the table is compared with the OID that was checked.
impl Catalogue {
    /// The rows with one of these codes; all rows for `None`.
    ///
    /// # Errors
    /// A line for people when the catalogue, or its owner's code behind it, raises an error.
    pub fn read(&self, codes: Option<&[String]>) -> Result<Rows, String> {
        let (which, wanted) = match codes {
            None => ("$1 IS NULL", None::<String>.into()),
            // Of a single one, which has an index as a rule; and in one plan for all of them.
            Some([code]) => ("t.code::pg_catalog.text OPERATOR(pg_catalog.=) $1", code.as_str().into()),
            Some(codes) => ("t.code::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)", codes.to_vec().into()),
        };
        let sql = format!(
            "SELECT t.code::pg_catalog.text, pg_catalog.to_jsonb(t)::pg_catalog.text
             FROM {0}.dot_tools t
             WHERE pg_catalog.to_regclass('{0}.dot_tools') OPERATOR(pg_catalog.=) $2 AND {which}
             ORDER BY 1",
            self.schema.replace('\'', "''")
        );
        let args: [DatumWithOid<'_>; 2] = [wanted, self.relation.oid.into()];
        let cells = |row: &SpiHeapTupleData<'_>| Ok((row.get::<String>(1)?, row.get::<String>(2)?));
        let one = codes.is_some_and(|codes| codes.len() == 1);
        let read = || if one { spi::steady_rows(&sql, &args, cells) } else { spi::rows(&sql, &args, cells) };
        let rows = match self.as_owner(read) {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Err(error.message),
            Err(caught) => return Err(caught.message),
        };
        let mut found = Rows::default();
        for (code, text) in rows {
            let parsed =
                serde_json::from_str(&text.unwrap_or_default()).map_err(|e| format!("the row is unreadable: {e}"));
            match parsed.and_then(Tool::from_row) {
                Ok(tool) => found.tools.push(tool),
                Err(why) => found.unreadable.push((code.unwrap_or_default(), why)),
            }
        }
        Ok(found)
    }

    /// Adds executions to the counters, as an ordinary UPDATE under the owner's rights: its triggers fire.
    ///
    /// # Errors
    /// What the UPDATE or a trigger raised.
    pub fn count(&self, debts: &[super::usage::Debt]) -> Result<(), String> {
        let mut sets = Vec::new();
        if self.has_column("usage_count")? {
            sets.push("usage_count = coalesce(t.usage_count, 0) OPERATOR(pg_catalog.+) x.executions");
        }
        if self.has_column("last_executed")? {
            sets.push("last_executed = greatest(t.last_executed, x.last_executed)");
        }
        if sets.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "UPDATE {0}.dot_tools t SET {1}
             FROM pg_catalog.jsonb_to_recordset($1)
                  AS x (code pg_catalog.text, executions pg_catalog.int8, last_executed pg_catalog.timestamptz)
             WHERE pg_catalog.to_regclass('{0}.dot_tools') OPERATOR(pg_catalog.=) $2
               AND t.code::pg_catalog.text OPERATOR(pg_catalog.=) x.code",
            self.schema.replace('\'', "''"),
            sets.join(", ")
        );
        let list = serde_json::Value::from(debts.iter().map(super::usage::Debt::to_json).collect::<Vec<_>>());
        match self.as_owner(|| spi::run(&sql, &[pgrx::JsonB(list).into(), self.relation.oid.into()])) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.message),
            Err(caught) => Err(caught.message),
        }
    }

    fn has_column(&self, name: &str) -> Result<bool, String> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                  WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped)";
        let found = spi::row(sql, &[self.relation.oid.into(), name.into()], |row| spi::need(row, 1));
        found.map(|has| has.unwrap_or(false)).map_err(|error| error.message)
    }

    /// In a subtransaction and as the owner, so that neither an error nor a right of ours gets to his code.
    fn as_owner<T>(&self, body: impl FnOnce() -> T) -> Result<T, crate::pg::caught::Caught> {
        let path = format!("{}, pg_temp", self.schema);
        let result = xact::subtransaction(|| user::run_as(self.relation.owner, Trust::Foreign, &path, body));
        match result {
            Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
            other => other,
        }
    }
}
