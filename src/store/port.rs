//! The substrate's functions: which ones are bound, and calling them as their owner, never as more.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use serde_json::Value;

use super::kept::{self, Slot};
use super::spi;
use crate::domain::decide::PortAnswer;
use crate::domain::error::DotError;
use crate::pg::caught::{LOCK_NOT_AVAILABLE, QUERY_CANCELED};
use crate::pg::fresh::Class;
use crate::pg::user::{self, Trust};
use crate::pg::{limit, object, session, xact};

/// A function that has not answered within this blocks, as one that fails does.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a worker's transaction needs besides, to record what the functions said.
const RESERVE: Duration = Duration::from_secs(1);

/// The ports, by their names in `dot_wrapper.port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `fn_dot_iu_operator_runtime_enabled()`.
    Toggle,
    /// `fn_assert_safe_for_dot_action()`.
    Guard,
    /// `fn_dot_iu_runtime_lease_acquire(key, holder, ttl)`.
    LeaseAcquire,
    /// `fn_dot_iu_runtime_lease_release(key, holder)`.
    LeaseRelease,
    /// `fn_dot_iu_command_log(...)`.
    CommandLog,
}

impl Name {
    /// All ports.
    pub const ALL: [Name; 5] = [Name::Toggle, Name::Guard, Name::LeaseAcquire, Name::LeaseRelease, Name::CommandLog];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Toggle => "toggle",
            Name::Guard => "guard",
            Name::LeaseAcquire => "lease_acquire",
            Name::LeaseRelease => "lease_release",
            Name::CommandLog => "command_log",
        }
    }

    /// The argument types that can be called; `None`: any.
    pub fn fitting_arguments(self) -> Option<&'static [&'static str]> {
        match self {
            Name::Toggle | Name::Guard => Some(&[""]),
            Name::LeaseAcquire => Some(&["text, text, interval", "text, text, integer"]),
            Name::LeaseRelease => Some(&["text, text"]),
            Name::CommandLog => None,
        }
    }
}

/// A function that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its owner.
    pub owner: pg_sys::Oid,
    /// Its schema, quoted.
    pub schema: String,
    /// Its qualified name, quoted.
    pub call: String,
    /// Its argument types.
    pub arguments: String,
    /// Its result type.
    pub result: String,
    /// True when it returns a set.
    pub is_set: bool,
    /// True for a plain function, as opposed to a procedure or an aggregate.
    pub is_function: bool,
    /// True when its owner is trusted.
    pub is_trusted: bool,
}

/// All ports: a function, or why there is none.
#[derive(Clone, Debug)]
pub struct Ports(Rc<Found>);

type Found = Vec<(Name, Result<Function, String>)>;

thread_local! {
    static KEPT: Slot<Found> = const { RefCell::new(None) };
}

const FUNCTION_COLUMNS: &str = "f.oid, f.proowner, quote_ident(n.nspname), \
    quote_ident(n.nspname) || '.' || quote_ident(f.proname), oidvectortypes(f.proargtypes), \
    format_type(f.prorettype, NULL), f.proretset, f.prokind = 'f', \
    coalesce(o.rolsuper OR o.oid IN (e.extowner, d.datdba), false)";
const FUNCTION_JOINS: &str = "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace \
    LEFT JOIN pg_catalog.pg_roles o ON o.oid = f.proowner \
    LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'dot_wrapper' \
    LEFT JOIN pg_catalog.pg_database d ON d.datname = current_database()";

/// Looks the ports up, as they are bound now.
///
/// # Errors
/// XX000 only.
pub fn load() -> Result<Ports, DotError> {
    kept::read(&KEPT, Class::Settings, look, |_| true).map(Ports)
}

fn look() -> Result<Found, DotError> {
    // OFFSET 0 keeps the look by name a look by name: joined as a whole, all functions of the database would be spelled out,
    // which costs some milliseconds in every call.
    let sql = format!(
        "SELECT {FUNCTION_COLUMNS}, p.port, p.function, p.reason FROM dot_wrapper.port p \
         LEFT JOIN LATERAL (SELECT x.oid, x.proowner, x.pronamespace, x.proname, x.proargtypes, x.prorettype, x.proretset, x.prokind \
            FROM pg_catalog.pg_proc x JOIN pg_catalog.pg_namespace fn ON fn.oid = x.pronamespace \
            WHERE x.proname = (parse_ident(p.function, false))[2]::name AND fn.nspname = (parse_ident(p.function, false))[1]::name \
              AND p.function = format('%I.%I(%s)', fn.nspname, x.proname, oidvectortypes(x.proargtypes)) OFFSET 0) f ON true \
         {FUNCTION_JOINS}"
    );
    let rows = spi::steady_rows(&sql, &[], |row| {
        let port: String = spi::need(row, 10)?;
        let signature: Option<String> = row.get(11)?;
        let reason: Option<String> = row.get(12)?;
        let function = match row.get::<pg_sys::Oid>(1)? {
            Some(_) => Ok(read(row)?),
            None => Err(signature.map_or_else(|| reason.unwrap_or_default(), |s| format!("{s} does not exist"))),
        };
        Ok((port, function))
    })?;
    let find = |name: Name| {
        let row = rows.iter().find(|(port, _)| port == name.as_str());
        match row {
            Some((_, Ok(function))) if !function.is_trusted => {
                Err(format!("{} belongs to a role that is not trusted", function.call))
            }
            Some((_, function)) => function.clone(),
            None => Err("it was never bound".to_owned()),
        }
    };
    Ok(Name::ALL.into_iter().map(|name| (name, find(name))).collect())
}

/// Looks one function up.
///
/// # Errors
/// XX000 only; `None` when there is no such function.
pub fn function(oid: pg_sys::Oid) -> Result<Option<Function>, DotError> {
    let sql = format!("SELECT {FUNCTION_COLUMNS} FROM pg_catalog.pg_proc f {FUNCTION_JOINS} WHERE f.oid = $1");
    spi::row(&sql, &[oid.into()], read)
}

fn read(row: &pgrx::spi::SpiHeapTupleData<'_>) -> pgrx::spi::Result<Function> {
    Ok(Function {
        oid: spi::need(row, 1)?,
        owner: spi::need(row, 2)?,
        schema: spi::need(row, 3)?,
        call: spi::need(row, 4)?,
        arguments: spi::need(row, 5)?,
        result: spi::need(row, 6)?,
        is_set: spi::need(row, 7)?,
        is_function: spi::need(row, 8)?,
        is_trusted: spi::need(row, 9)?,
    })
}

/// Binds a port to a function, or with `None` unbinds it; the new row, as `fn_dot_bind` returns it.
///
/// # Errors
/// XX000 only.
pub fn bind(name: Name, function: Option<&Function>) -> Result<Option<crate::pg::rows::Row>, DotError> {
    let sql = "INSERT INTO dot_wrapper.port AS p (port, function, origin, reason)
               VALUES ($1, $2, CASE WHEN $2 IS NULL THEN 'unbound' ELSE 'bound' END,
                       CASE WHEN $2 IS NULL THEN 'unbound by fn_dot_bind' END)
               RETURNING p";
    let signature = function.map(|f| format!("{}({})", f.call, f.arguments));
    spi::row(sql, &[name.as_str().into(), signature.into()], |row| spi::need(row, 1))
}

impl Ports {
    /// The function of a port, or why there is none.
    ///
    /// # Errors
    /// The reason.
    pub fn get(&self, name: Name) -> Result<&Function, &str> {
        match self.0.iter().find(|(port, _)| *port == name) {
            Some((_, Ok(function))) => Ok(function),
            Some((_, Err(why))) => Err(why),
            None => Err("it was never bound"),
        }
    }

    /// Asks the master toggle.
    pub fn toggle(&self) -> PortAnswer {
        self.ask(Name::Toggle, "", vec![])
    }

    /// Asks the safety guard.
    pub fn guard(&self) -> PortAnswer {
        self.ask(Name::Guard, "", vec![])
    }

    /// Takes or renews a lease. `ttl_s` in seconds.
    pub fn acquire(&self, key: &str, holder: &str, ttl_s: i64) -> PortAnswer {
        let seconds = seconds(ttl_s);
        let is_interval = self.get(Name::LeaseAcquire).is_ok_and(Function::wants_interval);
        let parameters = if is_interval { "$2, $3, pg_catalog.make_interval(secs => $4)" } else { "$2, $3, $4" };
        self.ask(Name::LeaseAcquire, parameters, vec![key.into(), holder.into(), seconds.into()])
    }

    /// Lets a lease go.
    pub fn release(&self, key: &str, holder: &str) -> PortAnswer {
        self.ask(Name::LeaseRelease, "$2, $3", vec![key.into(), holder.into()])
    }

    /// Asks a port's function; its value. Errors become answers: see [`Ports::guarded`].
    fn ask(&self, name: Name, parameters: &str, mut args: Vec<DatumWithOid<'_>>) -> PortAnswer {
        let asked = self.guarded(name, |function| {
            let sql = function.statement(parameters);
            args.insert(0, function.oid.into());
            spi::row(&sql, &args, |row| Ok(row.get::<pgrx::JsonB>(1)?.map(|json| json.0)))
        });
        match asked {
            Ok(value) => PortAnswer::Value(value.flatten().unwrap_or(Value::Null)),
            Err(answer) => answer,
        }
    }

    /// Runs a statement that calls a port's function, as the function's owner, in a security-restricted subtransaction, for
    /// three seconds at most.
    ///
    /// Where a worker's transaction has no time left for that, the function is not asked, and the answer is that of a
    /// lock: not now. Errors become answers, except those that ask for a retry or a cancel of the whole transaction: they go on.
    pub(super) fn guarded<T>(
        &self,
        name: Name,
        body: impl FnOnce(&Function) -> Result<T, DotError>,
    ) -> Result<T, PortAnswer> {
        let function = self.get(name).map_err(|why| PortAnswer::Unbound(why.to_owned()))?;
        if object::lock_function(function.oid) != Some(function.owner) {
            return Err(PortAnswer::Unbound(format!("{} has changed hands", function.call)));
        }
        let path = format!("{}, pg_temp", function.schema);
        if session::time_left().is_some_and(|left| left < PATIENCE + RESERVE) {
            return Err(late(LOCK_NOT_AVAILABLE, "was not asked: others took too long".to_owned()));
        }
        let limit = limit::start(PATIENCE);
        let caught = xact::subtransaction_or_rollback(|| {
            let value = user::run_as(function.owner, Trust::Foreign, &path, || body(function));
            // An answer that comes too late is none, and leaves nothing behind.
            if limit.is_over() { Err(None) } else { value.map_err(Some) }
        });
        let is_late = limit.is_over();
        drop(limit);
        match caught {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Some(error))) => Err(PortAnswer::Failed { sqlstate: "XX000".into(), message: error.message }),
            Ok(Err(None)) => Err(too_late()),
            Err(caught) if is_late && caught.sqlstate == QUERY_CANCELED => Err(too_late()),
            Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
            Err(caught) => Err(PortAnswer::Failed { sqlstate: caught.sqlstate, message: caught.message }),
        }
    }
}

pub(super) fn seconds(ttl_s: i64) -> i32 {
    i32::try_from(ttl_s).unwrap_or(i32::MAX)
}

fn too_late() -> PortAnswer {
    late(QUERY_CANCELED, format!("did not answer within {} s", PATIENCE.as_secs()))
}

fn late(sqlstate: &str, message: String) -> PortAnswer {
    PortAnswer::Failed { sqlstate: sqlstate.to_owned(), message }
}

impl Function {
    /// Whether a lease's time to live is an interval; else it is seconds.
    pub(super) fn wants_interval(&self) -> bool {
        self.arguments.ends_with("interval")
    }

    /// One row with one jsonb: the value; true for void; an array for a set. Runs under the owner's search_path, in which
    /// anybody who may create there has functions: every name is qualified, and nothing is called unless the name still
    /// means the function that was checked ($1).
    fn statement(&self, parameters: &str) -> String {
        let call = format!("{}({parameters})", self.call);
        let same = self.is_same();
        match (self.is_set, self.result.as_str()) {
            (true, _) => format!("SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(x)) FROM {call} AS x WHERE {same}"),
            (false, "void") => format!("SELECT 'true'::pg_catalog.jsonb FROM {call} WHERE {same}"),
            (false, _) => format!("SELECT pg_catalog.to_jsonb({call}) WHERE {same}"),
        }
    }

    /// True while the name still means the function that was checked ($1).
    pub(super) fn is_same(&self) -> String {
        let signature = format!("{}({})", self.call, self.arguments).replace('\'', "''");
        format!("pg_catalog.to_regprocedure('{signature}') OPERATOR(pg_catalog.=) $1")
    }
}
