//! `fn_dot_run_all`: which tools a filter selects, and a run for each of them, in one transaction.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::keys;
use super::plans;
use super::request::{self, Requested, Requester, WorkerFacts};
use super::session::Session;
use crate::domain::call::{self, Call, Raw};
use crate::domain::error::{DotError, SqlState};
use crate::domain::mode::Mode;
use crate::domain::via::Via;
use crate::store::extension;

/// A run for every tool that the filter selects, in one process run and in the order of their codes.
///
/// # Errors
/// As `request::one`; 22004 and 22023 for a filter that is no object or names a column that the catalogue has not.
pub fn all(filter: Option<Value>, raw: Raw, worker: WorkerFacts) -> Result<Vec<Requested>, DotError> {
    let filter = check_filter(filter)?;
    let mode = call::check_mode(raw.mode)?;
    let args = raw.args.ok_or_else(|| {
        DotError::new(SqlState::NullValueNotAllowed, "args must not be null").hint("pass '{}' for no arguments")
    })?;
    call::check_args(&args, crate::guc::max_args_bytes())?;
    let process_run_id = raw.process_run_id.unwrap_or_else(Uuid::now_v7);
    let requester = Requester::current();
    let extension = extension::for_writing()?;
    extension::as_owner(&extension, || {
        requester.must_be_allowed(&extension, "fn_dot_run_all")?;
        let mut session = Session::open(&extension, None)?;
        let codes = select(&session, &filter)?;
        let call = |code| Call {
            code,
            mode,
            process_run_id: Some(process_run_id),
            args: args.clone(),
            idempotency_key: String::new(),
        };
        if mode == Mode::Plan {
            return plans::all(&mut session, &requester, worker, &call(String::new()), &codes);
        }
        keys::lock_all(&mut session, process_run_id, codes.len());
        codes
            .into_iter()
            .map(|code| request::request(&mut session, &requester, worker, &Via::call(), &call(code)))
            .collect()
    })
}

fn check_filter(filter: Option<Value>) -> Result<Map<String, Value>, DotError> {
    const HINT: &str = "pass column values, for example '{\"execution_engine\": \"agent_api\"}', or '{}' for all tools";
    match filter {
        None => Err(DotError::new(SqlState::NullValueNotAllowed, "filter must not be null").hint(HINT)),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(DotError::new(SqlState::InvalidParameterValue, "filter must be a JSON object").hint(HINT)),
    }
}

fn select(session: &Session, filter: &Map<String, Value>) -> Result<Vec<String>, DotError> {
    let tools = session.all_tools().map_err(|why| {
        DotError::new(SqlState::ObjectNotInPrerequisiteState, "the catalogue cannot be read").detail(why)
    })?;
    let mut codes = Vec::new();
    for tool in tools {
        let matches = tool.matches(filter).map_err(|column| {
            DotError::new(
                SqlState::InvalidParameterValue,
                format!("the catalogue has no column \"{}\"", call::shorten(&column)),
            )
            .hint("the keys of filter are columns of dot_tools")
        })?;
        if matches {
            codes.push(tool.code.clone());
        }
    }
    codes.dedup();
    Ok(codes)
}
