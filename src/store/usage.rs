//! `dot_wrapper.usage_debt`: executions that the catalogue's counters do not show yet.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ledger::list;
use super::spi;
use crate::domain::error::DotError;

/// Executions of one tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Debt {
    /// Tool code.
    pub code: String,
    /// How many.
    pub executions: i64,
    /// When the last one ended, as text.
    pub last_executed: String,
}

impl Debt {
    /// As an element of a list for a set-based statement.
    pub fn to_json(&self) -> Value {
        json!({"code": self.code, "executions": self.executions, "last_executed": self.last_executed})
    }
}

/// Notes executions, one per entry of `codes`, at this moment.
///
/// # Errors
/// XX000 only.
pub fn owe(codes: &[String]) -> Result<(), DotError> {
    let mut counts = BTreeMap::new();
    for code in codes {
        *counts.entry(code).or_insert(0_i64) += 1;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO dot_wrapper.usage_debt AS u (code, executions, last_executed)
               SELECT x.code, x.executions, clock_timestamp()
               FROM jsonb_to_recordset($1) AS x (code text, executions bigint)
               ON CONFLICT (code) DO UPDATE
               SET executions = u.executions + excluded.executions, last_executed = excluded.last_executed";
    let items = counts.into_iter().map(|(code, n)| json!({"code": code, "executions": n})).collect();
    spi::run(sql, &[list(items).into()]).map(drop)
}

/// Takes all debts off the books; the caller pays them in the same transaction.
///
/// # Errors
/// XX000 only.
pub fn collect() -> Result<Vec<Debt>, DotError> {
    let sql = "DELETE FROM dot_wrapper.usage_debt u RETURNING u.code, u.executions, u.last_executed::text";
    spi::rows(sql, &[], |row| {
        Ok(Debt { code: spi::need(row, 1)?, executions: spi::need(row, 2)?, last_executed: spi::need(row, 3)? })
    })
}
