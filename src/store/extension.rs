//! Which extension this is: its owner, its schema, its instance row. How to act as its owner.

use std::cell::RefCell;

use pgrx::pg_sys;
use serde_json::json;

use super::kept::{self, Slot};
use super::spi;
use crate::domain::error::{DotError, SqlState};
use crate::pg::fresh::Class;
use crate::pg::session;
use crate::pg::user::{self, Trust};
use crate::pg::{lock, object};

/// The installed extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its OID, new after each CREATE EXTENSION.
    pub oid: pg_sys::Oid,
    /// Its owner, who owns the ledger.
    pub owner: pg_sys::Oid,
    /// The schema of the functions, views and substrate, quoted as an identifier.
    pub schema: String,
    /// Its OID.
    pub schema_oid: pg_sys::Oid,
}

/// Which database the permits are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// True when the row was made, or resumed, in this very database.
    pub is_here: bool,
    /// The permits' key.
    pub permit_key: Vec<u8>,
}

/// What our own SQL runs under.
const OWN_PATH: &str = "pg_catalog, pg_temp";

/// The schemas that this library can work with, by the extension's version.
const VERSIONS: [&str; 1] = [env!("CARGO_PKG_VERSION")];

/// Looks the extension up. Reads catalogs only, with the rights of whoever calls.
///
/// # Errors
/// 55000 when it is not installed in this database, or as a version that this library does not know, or when a function of the
/// substrate calls back; 25006 on a standby.
pub fn current() -> Result<Extension, DotError> {
    if session::in_recovery() {
        return Err(DotError::new(SqlState::ReadOnlySqlTransaction, "this server is a standby")
            .detail("Every call leaves a row in the ledger, and nothing can be written here.")
            .hint("Call it on the primary; the views can be read here."));
    }
    if user::is_restricted() {
        return Err(DotError::new(SqlState::ObjectNotInPrerequisiteState, "dot_wrapper cannot be called from here")
            .detail("A toggle, guard, lease function or catalogue is being asked, and it called back: that would never end.")
            .hint("Let it answer from its own tables."));
    }
    let (extension, version) =
        installed()?.filter(|(found, _)| lock::keep_extension(c"dot_wrapper", found.oid)).ok_or_else(|| {
            DotError::new(SqlState::ObjectNotInPrerequisiteState, "the extension dot_wrapper is not installed here")
                .hint("CREATE EXTENSION dot_wrapper;")
        })?;
    if is_known(&version) {
        return Ok(extension);
    }
    let shown = crate::domain::call::shorten(&version);
    Err(DotError::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!("this library cannot work with version {shown} of dot_wrapper"),
    )
    .detail(format!("The library is version {}; it knows: {}.", env!("CARGO_PKG_VERSION"), VERSIONS.join(", ")))
    .hint("ALTER EXTENSION dot_wrapper UPDATE; where the library is the older one, restart the server first."))
}

/// As [`current`], for what is going to write.
///
/// # Errors
/// As [`current`]; 25006 in a transaction that was begun, or is by default, read-only.
pub fn for_writing() -> Result<Extension, DotError> {
    let extension = current()?;
    if !session::is_read_only() {
        return Ok(extension);
    }
    Err(DotError::new(SqlState::ReadOnlySqlTransaction, "this transaction is read-only")
        .detail("What is asked for leaves rows in the tables of dot_wrapper, a plan and a refusal too.")
        .hint("Begin it with START TRANSACTION READ WRITE, or SET default_transaction_read_only = off."))
}

/// Whether the extension is here and this library can work with it; `None` when it is not here.
///
/// # Errors
/// XX000 only.
pub fn fits() -> Result<Option<bool>, DotError> {
    Ok(installed()?.map(|(_, version)| is_known(&version)))
}

fn is_known(version: &str) -> bool {
    VERSIONS.contains(&version)
}

/// The extension, whoever asks and whatever its version; `None` when it is not here.
///
/// # Errors
/// XX000 only.
pub fn find() -> Result<Option<Extension>, DotError> {
    Ok(installed()?.map(|(extension, _)| extension))
}

const INSTALLED: &str = "SELECT e.oid, e.extowner, pg_catalog.quote_ident(n.nspname), n.oid, e.extversion
               FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
               WHERE e.extname = 'dot_wrapper'";

/// What is installed, and its version: as it is now, whatever the transaction's snapshot shows.
fn installed() -> Result<Option<(Extension, String)>, DotError> {
    let Some(row) = object::find_extension(c"dot_wrapper") else { return Ok(None) };
    let Some(schema) = object::schema_name(row.schema) else { return Ok(None) };
    let extension = Extension {
        oid: row.oid,
        owner: row.owner,
        schema: pgrx::spi::quote_identifier(schema),
        schema_oid: row.schema,
    };
    Ok(Some((extension, row.version)))
}

/// What is installed, for a function that only reads: also on a standby. `None` when it is not here.
///
/// # Errors
/// XX000 only.
pub fn for_reading() -> Result<Option<Extension>, DotError> {
    Ok(spi::seen(INSTALLED, &[], found)?.pop().map(|(extension, _)| extension))
}

fn found(row: &pgrx::spi::SpiHeapTupleData<'_>) -> pgrx::spi::Result<(Extension, String)> {
    let extension = Extension {
        oid: spi::need(row, 1)?,
        owner: spi::need(row, 2)?,
        schema: spi::need(row, 3)?,
        schema_oid: spi::need(row, 4)?,
    };
    Ok((extension, spi::need(row, 5)?))
}

impl Extension {
    /// True for a role whose tables and functions are used: a superuser, the extension's owner, the database's owner.
    /// Looked up as things are now, whatever the transaction's snapshot shows.
    ///
    /// REASSIGN OWNED gives the extension and what is in it away at once. Who learnt the extension's owner just before it
    /// committed finds its tables with the new one: before somebody is taken for a stranger, the extension is looked at again.
    pub fn trusts(&self, owner: pg_sys::Oid) -> bool {
        let is_owner_now =
            || object::find_extension(c"dot_wrapper").is_some_and(|now| now.oid == self.oid && now.owner == owner);
        user::is_superuser(owner) || owner == self.owner || object::database_owner() == Some(owner) || is_owner_now()
    }
}

/// Runs our own SQL as the extension's owner.
pub fn as_owner<T>(extension: &Extension, body: impl FnOnce() -> T) -> T {
    user::run_as(extension.owner, Trust::Own, OWN_PATH, body)
}

/// The instance row, compared with the server that runs.
///
/// # Errors
/// 55000 when there is none.
pub fn instance(system_identifier: u64) -> Result<Instance, DotError> {
    find_instance(system_identifier)?.ok_or_else(|| {
        DotError::new(SqlState::ObjectNotInPrerequisiteState, "dot_wrapper.instance is empty")
            .hint("SELECT fn_dot_resume() makes a new one.")
    })
}

/// As [`instance`]; `None` when there is no row.
///
/// # Errors
/// XX000 only.
pub fn find_instance(system_identifier: u64) -> Result<Option<Instance>, DotError> {
    let found = kept::read(&INSTANCE, Class::Settings, || read_instance(system_identifier), |_| true)?;
    Ok(Option::clone(&found))
}

thread_local! {
    /// There is one system identifier in a server.
    static INSTANCE: Slot<Option<Instance>> = const { RefCell::new(None) };
}

fn read_instance(system_identifier: u64) -> Result<Option<Instance>, DotError> {
    let sql = "SELECT i.system_identifier = $1::numeric
                      AND i.database_oid = (SELECT d.oid FROM pg_catalog.pg_database d
                                            WHERE d.datname = pg_catalog.current_database())
                      AND NOT EXISTS (SELECT FROM dot_wrapper.ancestry l
                                      WHERE l.system_identifier <> i.system_identifier OR l.database_oid <> i.database_oid),
                      i.permit_key
               FROM dot_wrapper.instance i";
    spi::steady_row(sql, &[system_identifier.to_string().into()], |row| {
        Ok(Instance { is_here: spi::need(row, 1)?, permit_key: spi::need(row, 2)? })
    })
}

/// Stamps this database as the one that may execute; the key is kept when there is one.
///
/// # Errors
/// XX000 only.
pub fn stamp(system_identifier: u64) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.instance AS i (system_identifier, database_oid, permit_key)
               SELECT $1::numeric, d.oid, pg_catalog.decode(replace(pg_catalog.gen_random_uuid()::text
                      || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex')
               FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
               ON CONFLICT (only_row) DO UPDATE
               SET system_identifier = excluded.system_identifier, database_oid = excluded.database_oid,
                   permit_key = CASE WHEN i.database_oid = excluded.database_oid
                                          AND i.system_identifier = excluded.system_identifier
                                     THEN i.permit_key ELSE excluded.permit_key END";
    spi::run(sql, &[system_identifier.to_string().into()])?;
    spi::run("DELETE FROM dot_wrapper.ancestry", &[])?;
    let own = "INSERT INTO dot_wrapper.ancestry SELECT i.system_identifier, i.database_oid FROM dot_wrapper.instance i";
    spi::run(own, &[]).map(drop)
}

/// The inputs of a decision about the instance, for the ledger.
pub fn describe(instance: &Instance) -> serde_json::Value {
    json!({"same_database": instance.is_here})
}
