//! The triggers of the request table; sql/56_request.sql declares them. Columns in, columns out.
//!
//! Does not live here: what a row means (`run::request_row`).

use pgrx::datum::datetime_support::clock_timestamp;
use pgrx::datum::{TimestampWithTimeZone, UnboxDatum};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pgbox::{AllocatedByPostgres, AllocatedByRust};
use pgrx::prelude::*;

use super::{read_json, report, uuid, wake_for, worker_facts};
use crate::domain::error::DotError;
use crate::domain::request_row::{INVALID, Words};
use crate::error;
use crate::pg::json::JsonText;
use crate::pg::user;
use crate::run::request_row::{self, Asked, Shown, Taken};

type Failed = pgrx::heap_tuple::PgHeapTupleError;

/// BEFORE INSERT, for each row: requests the run.
#[pg_trigger(sql = false)]
fn take_request<'a>(trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, Failed> {
    let mut row = Columns(new_row(trigger).into_owned());
    let Some(code) = row.get::<String>("code") else {
        // PostgreSQL says best that it is missing, once the policy lets the row through; nor may another trigger fill it in.
        row.own();
        row.refuse("no code was given".to_owned());
        return Ok(Some(row.0));
    };
    let now = clock_timestamp();
    let id = row.get::<pgrx::Uuid>("id").map_or_else(uuid::Uuid::new_v4, uuid);
    let words = Words {
        code,
        mode: row.get("mode").unwrap_or_else(|| "plan".to_owned()),
        idempotency_key: row.get("idempotency_key"),
        actor: row.get("actor"),
    };
    let args = row.get::<JsonText>("args").map(|text| text.0);
    let is_large = args.as_ref().is_some_and(|text| text.len() > crate::guc::max_args_bytes());
    let asked = Asked {
        id,
        words: words.clone(),
        process_run_id: row.get::<pgrx::Uuid>("process_run_id").map(uuid),
        args: args.as_deref().map(|text| read_json("args", text)),
        is_complete: row.get::<String>("run_status").is_some()
            && row.get::<String>("requested_by").is_some()
            && row.get::<TimestampWithTimeZone>("requested_at").is_some(),
    };
    let taken = unwrap(request_row::take(asked, worker_facts()));
    if matches!(taken, Taken::Back) {
        return Ok(Some(row.0));
    }
    row.own();
    row.keep(id, &words.cut());
    row.set("requested_at", Some(now));
    if args.is_none() {
        row.set("args", Some(JsonText("{}".to_owned())));
    }
    match taken {
        Taken::Back => {}
        // The old row may be going at this moment; then this one is inserted, and it has no run.
        Taken::Twice => row.refuse("another row has, or had a moment ago, this id; give a new one".to_owned()),
        Taken::Misuse { message } => {
            if is_large {
                row.set("args", None::<JsonText>);
            }
            row.refuse(message);
        }
        Taken::Run { requested, shown } => {
            wake_for(&requested);
            row.show(requested.run_id, shown);
        }
    }
    Ok(Some(row.0))
}

/// AFTER INSERT, for each statement.
#[pg_trigger(sql = false)]
fn check_requests<'a>(_trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, Failed> {
    unwrap(request_row::check());
    Ok(None)
}

/// BEFORE UPDATE, for each row.
#[pg_trigger(sql = false)]
fn keep_request<'a>(trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, Failed> {
    unwrap(request_row::keep());
    Ok(Some(new_row(trigger)))
}

fn new_row<'a>(trigger: &'a PgTrigger<'a>) -> PgHeapTuple<'a, AllocatedByPostgres> {
    unwrap(trigger.new().ok_or_else(|| error::internal("a trigger without a row")))
}

/// The value, or the error raised. A trigger's own Result would lose the SQLSTATE.
fn unwrap<T>(result: Result<T, DotError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            report(error).report(PgLogLevel::ERROR);
            unreachable!("an ERROR report does not return")
        }
    }
}

/// A row by the names of its columns.
struct Columns<'a>(PgHeapTuple<'a, AllocatedByRust>);

impl Columns<'_> {
    fn get<T: FromDatum + IntoDatum + for<'t> UnboxDatum<As<'t> = T> + 'static>(&self, column: &str) -> Option<T> {
        unwrap(self.0.get_by_name(column).map_err(|why| error::internal(format_args!("column {column}: {why}"))))
    }

    fn set<T: IntoDatum>(&mut self, column: &str, value: Option<T>) {
        let set = self.0.set_by_name(column, value);
        unwrap(set.map_err(|why| error::internal(format_args!("column {column}: {why}"))));
    }

    /// Who asks, whatever was in the columns.
    fn own(&mut self) {
        let caller = user::current();
        self.set("requested_by", Some(user::name_of(caller)));
        self.set("requested_by_oid", Some(caller));
    }

    /// What is asked for, as it is kept.
    fn keep(&mut self, id: uuid::Uuid, words: &Words) {
        self.set("id", Some(pgrx::Uuid::from_bytes(*id.as_bytes())));
        self.set("code", Some(words.code.clone()));
        self.set("mode", Some(words.mode.clone()));
        self.set("idempotency_key", words.idempotency_key.clone());
        self.set("actor", words.actor.clone());
    }

    /// What the ledger has of its run.
    fn show(&mut self, run_id: uuid::Uuid, shown: Shown) {
        self.set("process_run_id", Some(pgrx::Uuid::from_bytes(*shown.process_run_id.as_bytes())));
        self.set("run_id", Some(pgrx::Uuid::from_bytes(*run_id.as_bytes())));
        self.set("run_status", Some(shown.run_status));
        self.set("reason", shown.reason);
        self.set("message", shown.message);
        self.set("result", shown.result);
        self.set("finished_at", shown.finished_at);
    }

    /// It has no run, whatever was in the columns.
    fn refuse(&mut self, message: String) {
        self.set("run_id", None::<pgrx::Uuid>);
        self.set("run_status", Some("refused".to_owned()));
        self.set("reason", Some(INVALID.to_owned()));
        self.set("message", Some(message));
        self.set("result", None::<JsonText>);
        self.set("finished_at", Some(clock_timestamp()));
    }
}
