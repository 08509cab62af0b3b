//! `dot_wrapper.trigger_binding`, and the triggers that stand on tables because of it.
//!
//! Bindings are read as the extension's owner; triggers are looked at, made and dropped with the rights in force, which are
//! the caller's.

use pgrx::pg_sys::Oid;
use pgrx::spi::{Result as SpiResult, SpiHeapTupleData};

use super::extension::Extension;
use super::spi;
use crate::domain::binding::Binding;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::pg::caught::Caught;
use crate::pg::xact;

macro_rules! bindings {
    ($where:literal) => {
        concat!(
            "SELECT b.code, b.relation, b.events, coalesce(b.columns, '{}'), b.per = 'row', b.\"coalesce\", b.mode, b.args,
                    b.run_as::text
             FROM dot_wrapper.trigger_binding b ",
            $where,
            " ORDER BY b.code, b.relation"
        )
    };
}

/// All bindings.
///
/// # Errors
/// XX000 only.
pub fn all() -> Result<Vec<Binding>, DotError> {
    spi::rows(bindings!(""), &[], read)
}

/// One binding.
///
/// # Errors
/// XX000 only.
pub fn find(code: &str, relation: &str) -> Result<Option<Binding>, DotError> {
    spi::row(bindings!("WHERE b.code = $1 AND b.relation = $2"), &[code.into(), relation.into()], read)
}

fn read(row: &SpiHeapTupleData<'_>) -> SpiResult<Binding> {
    Ok(Binding {
        code: spi::need(row, 1)?,
        relation: spi::need(row, 2)?,
        events: spi::need(row, 3)?,
        columns: spi::need(row, 4)?,
        per_row: spi::need(row, 5)?,
        coalesce: spi::need(row, 6)?,
        // The schema's CHECK lets nothing else in.
        mode: Mode::parse(&spi::need::<String>(row, 7)?).unwrap_or(Mode::Verify),
        args: spi::need_json(row, 8)?,
        run_as: spi::need(row, 9)?,
    })
}

/// A table that is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its OID.
    pub oid: Oid,
    /// `r` for a table, `p` for a partitioned one.
    pub kind: String,
    /// Whether it has a primary key that holds at every moment.
    pub has_key: bool,
    /// Whether it is one of dot_wrapper's own, to which runs lead again: not the substrate that it may have brought along.
    pub is_ours: bool,
}

/// The table of a binding; `None` when there is none of that name.
///
/// # Errors
/// XX000 only.
pub fn table(extension: &Extension, relation: &str) -> Result<Option<Table>, DotError> {
    let sql = "SELECT c.oid, c.relkind::text,
                      EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate),
                      c.relnamespace = 'dot_wrapper'::pg_catalog.regnamespace
                      OR (c.relnamespace = $2 AND c.relname = 'dot_run_request')
               FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";
    spi::row(sql, &[relation.into(), extension.schema_oid.into()], |row| {
        Ok(Table {
            oid: spi::need(row, 1)?,
            kind: spi::need(row, 2)?,
            has_key: spi::need(row, 3)?,
            is_ours: spi::need(row, 4)?,
        })
    })
}

/// A trigger that calls `dot_wrapper.fire()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The table.
    pub table: Oid,
    /// Its name, with the schema.
    pub relation: String,
    /// The trigger's name.
    pub name: String,
    /// The command that would make it, as PostgreSQL writes it.
    pub definition: String,
    /// Whether it fires in ordinary sessions, and only there.
    pub is_enabled: bool,
}

/// All of them, without those that a partition has from its parent.
///
/// # Errors
/// XX000 only.
pub fn standing() -> Result<Vec<Standing>, DotError> {
    let sql = "SELECT t.tgrelid, pg_catalog.format('%I.%I', n.nspname, c.relname), t.tgname::text,
                      pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled = 'O'
               FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE t.tgparentid = 0 AND NOT t.tgisinternal
                 AND t.tgfoid = (SELECT f.oid FROM pg_catalog.pg_proc f
                                 WHERE f.pronamespace = 'dot_wrapper'::pg_catalog.regnamespace AND f.proname = 'fire')
               ORDER BY 2, 3";
    spi::rows(sql, &[], |row| {
        Ok(Standing {
            table: spi::need(row, 1)?,
            relation: spi::need(row, 2)?,
            name: spi::need(row, 3)?,
            definition: spi::need(row, 4)?,
            is_enabled: spi::need(row, 5)?,
        })
    })
}

/// The command that makes a binding's trigger, in PostgreSQL's own words, so that it can be compared with what stands.
///
/// # Errors
/// XX000 only.
pub fn definition(binding: &Binding, name: &str) -> Result<String, DotError> {
    let sql = "SELECT pg_catalog.format('CREATE TRIGGER %I AFTER %s ON %s FOR EACH %s EXECUTE FUNCTION dot_wrapper.fire(%L, %L)',
        $1, pg_catalog.array_to_string(ARRAY[
            CASE WHEN 'insert' = ANY ($2) THEN 'INSERT' END,
            CASE WHEN 'delete' = ANY ($2) THEN 'DELETE' END,
            CASE WHEN 'update' = ANY ($2)
                 THEN 'UPDATE' || coalesce(' OF ' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(x.name), ', ' ORDER BY x.at)
                                                      FROM pg_catalog.unnest($3) WITH ORDINALITY x (name, at)), '') END], ' OR '),
        $4, CASE WHEN $5 THEN 'ROW' ELSE 'STATEMENT' END, $6, $4)";
    let args = [
        name.into(),
        binding.events.clone().into(),
        binding.columns.clone().into(),
        binding.relation.as_str().into(),
        binding.per_row.into(),
        binding.code.as_str().into(),
    ];
    let found = spi::row(sql, &args, |row| spi::need(row, 1))?;
    found.ok_or_else(|| crate::error::internal("no definition"))
}

/// Makes a trigger, or puts it in the place of the one of its name.
///
/// # Errors
/// What PostgreSQL says against it, as a value inside.
pub fn create(definition: &str) -> Result<Result<(), Caught>, DotError> {
    attempt(&definition.replacen("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1))
}

/// Drops a trigger.
///
/// # Errors
/// What PostgreSQL says against it, as a value inside.
pub fn drop(trigger: &Standing) -> Result<Result<(), Caught>, DotError> {
    let sql = "SELECT pg_catalog.format('DROP TRIGGER %I ON %s', $1, $2)";
    let found =
        spi::row(sql, &[trigger.name.as_str().into(), trigger.relation.as_str().into()], |row| spi::need(row, 1))?;
    attempt(&found.unwrap_or_else(String::new))
}

fn attempt(sql: &str) -> Result<Result<(), Caught>, DotError> {
    match xact::subtransaction(|| spi::once(sql)) {
        Ok(done) => done.map(Ok),
        Err(caught) if caught.is_retryable_or_cancel() => caught.raise(),
        Err(caught) => Ok(Err(caught)),
    }
}
