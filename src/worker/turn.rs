//! Transactions of the worker: each makes sure that its extension is still the one it serves, bounds its waits for
//! locks, and turns errors into values.

use std::ffi::CStr;
use std::time::Duration;

use super::context::Context;
use crate::domain::error::DotError;
use crate::pg::{session, xact};
use crate::store::extension::{self, Extension};

/// Nobody's lock holds the worker up longer than this; what waited is tried again.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// No transaction's statements, whoever's function is in them, hold the worker up longer than this.
const STATEMENT_WAIT: Duration = Duration::from_secs(10);

/// Why a turn did not go through.
#[derive(Debug)]
pub enum Trouble {
    /// The extension is gone, or is another one.
    NoExtension,
    /// The worker was asked to leave.
    Left,
    /// An error.
    Failed {
        /// Its SQLSTATE.
        sqlstate: String,
        /// In words.
        text: String,
    },
}

/// Runs `body` in a transaction, which commits when it returns `Ok` and leaves no trace otherwise. `what` is shown in
/// `pg_stat_activity`.
///
/// # Errors
/// See [`Trouble`].
pub fn transaction<T>(
    context: &Context,
    what: &CStr,
    body: impl FnOnce(&Extension) -> Result<T, DotError>,
) -> Result<T, Trouble> {
    session::report_running(what);
    session::force_settings();
    let result = xact::transaction_or_abort(|| {
        // Ends with the body: a commit that waits for a standby must not be cut short, see `xact`.
        let _armed = session::arm_timeout(STATEMENT_WAIT);
        session::set_local_lock_timeout(LOCK_WAIT);
        match extension::current() {
            Ok(extension) if extension.oid == context.extension => {
                body(&extension).map_err(|error| failed("XX000", &error.message, error.detail.as_deref()))
            }
            Ok(_) => Err(Trouble::NoExtension),
            // Its successor says what it may be.
            Err(_) if extension::fits().is_ok_and(|fits| fits == Some(false)) => Err(Trouble::Left),
            Err(_) => Err(Trouble::NoExtension),
        }
    });
    session::report_statistics(false);
    session::report_idle();
    match result {
        Ok(result) => result,
        Err(caught) => Err(failed(&caught.sqlstate, &caught.message, caught.detail.as_deref())),
    }
}

/// The sooner of two times in milliseconds from now; `None` when there is neither.
pub fn sooner(a: Option<f64>, b: Option<f64>) -> Option<Duration> {
    let soonest = match (a, b) {
        (Some(a), Some(b)) => a.min(b),
        (one, other) => one.or(other)?,
    };
    Some(Duration::try_from_secs_f64((soonest / 1000.0).max(0.0)).unwrap_or(Duration::MAX))
}

fn failed(sqlstate: &str, message: &str, detail: Option<&str>) -> Trouble {
    let text = match detail {
        Some(detail) => format!("{message} ({detail})"),
        None => message.to_owned(),
    };
    Trouble::Failed { sqlstate: sqlstate.to_owned(), text }
}
