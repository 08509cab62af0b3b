//! `fn_dot_bind`: which function stands behind a port.

use pgrx::pg_sys;

use crate::domain::error::{DotError, SqlState};
use crate::error;
use crate::pg::rows::Row;
use crate::pg::user;
use crate::store::extension::{self, Extension};
use crate::store::port::{self, Function, Name};

/// Binds, or with `None` unbinds; the port's row.
///
/// # Errors
/// 22004 for a NULL port, 22023 for one that does not exist or a function whose signature does not fit, 42501 for
/// callers who are not the extension's owner and for functions of untrusted owners, 42704 for no function.
pub fn bind(name: Option<String>, function: Option<pg_sys::Oid>) -> Result<Row, DotError> {
    let extension = extension::for_writing()?;
    require_owner(&extension, "bind a port")?;
    let name = parse(name)?;
    extension::as_owner(&extension, || {
        let function = match function {
            None => None,
            Some(oid) => {
                let found = port::function(oid)?.ok_or_else(|| {
                    DotError::new(SqlState::UndefinedObject, "there is no such function").detail(format!("OID {oid}"))
                })?;
                fits(name, &found)?;
                Some(found)
            }
        };
        port::bind(name, function.as_ref())?.ok_or_else(|| error::internal("the port was not written"))
    })
}

/// Only who owns the extension may decide what the worker runs.
///
/// # Errors
/// 42501.
pub fn require_owner(extension: &Extension, what: &str) -> Result<(), DotError> {
    if user::has_privileges_of(user::current(), extension.owner) {
        return Ok(());
    }
    Err(DotError::new(SqlState::InsufficientPrivilege, format!("only the owner of dot_wrapper may {what}"))
        .detail(format!("The extension belongs to role {}.", user::name_of(extension.owner))))
}

fn parse(name: Option<String>) -> Result<Name, DotError> {
    let hint = || format!("the ports are {}", Name::ALL.map(Name::as_str).join(", "));
    let name =
        name.ok_or_else(|| DotError::new(SqlState::NullValueNotAllowed, "port must not be null").hint(hint()))?;
    Name::ALL.into_iter().find(|port| port.as_str() == name).ok_or_else(|| {
        let shown = crate::domain::call::shorten(&name);
        DotError::new(SqlState::InvalidParameterValue, format!("there is no port \"{shown}\"")).hint(hint())
    })
}

fn fits(name: Name, function: &Function) -> Result<(), DotError> {
    if !function.is_trusted {
        return Err(DotError::new(SqlState::InsufficientPrivilege, "the function's owner is not trusted")
            .detail(format!("{} belongs to role {}.", function.call, user::name_of(function.owner)))
            .hint("Trusted are superusers, the extension's owner and the database's owner."));
    }
    let arguments_fit = name.fitting_arguments().is_none_or(|list| list.contains(&function.arguments.as_str()));
    let result_fits = name != Name::Toggle || (function.result == "boolean" && !function.is_set);
    if function.is_function && arguments_fit && result_fits {
        return Ok(());
    }
    let wanted = name.fitting_arguments().unwrap_or(&["..."]).iter().map(|a| format!("({a})")).collect::<Vec<_>>();
    let returning = if name == Name::Toggle { " returning boolean" } else { "" };
    Err(DotError::new(SqlState::InvalidParameterValue, format!("the function does not fit port {}", name.as_str()))
        .detail(format!("{}({}) returns {}.", function.call, function.arguments, function.result))
        .hint(format!("The port wants a function of {}{returning}.", wanted.join(" or "))))
}
