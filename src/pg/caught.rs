//! A PostgreSQL error or a Rust panic, once caught, as plain data.
//!
//! Lives here: the type, its making from pgrx's own, and raising it again. Does not live here: the clean-up that has to
//! go with catching (`pg::xact`), or any judgement about what an error means for a run.
//!
//! pgrx keeps message, SQLSTATE, DETAIL and HINT of an error that crosses it; CONTEXT, table and constraint names are
//! gone by then, and a SQLSTATE that PostgreSQL 12 did not know has become XX000.

use std::panic::AssertUnwindSafe;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::PgLogLevel;

/// What was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// DETAIL, where the error had one.
    pub detail: Option<String>,
    /// HINT, where the error had one.
    pub hint: Option<String>,
}

/// SQLSTATE of a lock that could not be had in time.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";

/// SQLSTATE of a statement that was cancelled, by whomever.
pub const QUERY_CANCELED: &str = "57014";

impl Caught {
    /// A defect of this extension, in the shape of a caught error.
    pub fn internal(message: impl Into<String>) -> Self {
        Caught { sqlstate: "XX000".to_owned(), message: message.into(), detail: None, hint: None }
    }

    /// Whether this says nothing about the statement that failed, only that the whole transaction has to end:
    /// serialization, deadlock, cancel, shutdown, crash, no memory, no disk. Raise it again; never record it as a verdict.
    ///
    /// Listed one by one: anybody's function can raise any code, and one that chose 57000 must not stop a batch.
    pub fn is_retryable_or_cancel(&self) -> bool {
        const END: [&str; 8] = ["40001", "40P01", "57014", "57P01", "57P02", "57P03", "53100", "53200"];
        END.contains(&self.sqlstate.as_str())
    }

    /// Whether somebody else's work was in the way, or a function has said so: serialization (40001), deadlock (40P01).
    pub fn is_conflict(&self) -> bool {
        matches!(self.sqlstate.as_str(), "40001" | "40P01")
    }

    /// Whether somebody's lock was in the way: not now, but perhaps in a moment (55P03).
    pub fn is_lock_timeout(&self) -> bool {
        self.sqlstate == LOCK_NOT_AVAILABLE
    }

    /// Raises it again as an ERROR with its SQLSTATE, DETAIL and HINT.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(pack(&self.sqlstate), self.message, "dot_wrapper");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }
}

impl std::fmt::Display for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for Caught {}

impl From<CaughtError> for Caught {
    fn from(error: CaughtError) -> Self {
        let report: &ErrorReportWithLevel = match &error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        };
        Caught {
            sqlstate: unpack(report.sql_error_code()),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
        }
    }
}

/// Runs `body`; a PostgreSQL ERROR or a Rust panic in it comes back as a value.
///
/// On its own this is poison: the (sub)transaction it happened in must be rolled back by the caller before anything
/// else is done, which is why only `pg::xact` uses it. FATAL does not come by here; the process ends.
pub(super) fn catching<T>(body: impl FnOnce() -> T) -> Result<T, Caught> {
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(body()))).catch_others(|error| Err(Caught::from(error))).execute()
}

/// PostgreSQL keeps a SQLSTATE as five characters of six bits, the first one lowest.
fn unpack(code: PgSqlErrorCode) -> String {
    let packed = code as isize;
    (0..5u32).map(|i| char::from(((packed >> (6 * i)) & 0x3F) as u8 + b'0')).collect()
}

fn pack(sqlstate: &str) -> PgSqlErrorCode {
    let packed: isize =
        sqlstate.bytes().take(5).enumerate().map(|(i, c)| (isize::from(c.wrapping_sub(b'0')) & 0x3F) << (6 * i)).sum();
    PgSqlErrorCode::from(packed)
}
