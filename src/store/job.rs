//! The table of jobs, which is somebody else's: found, read and written with the rights of its owner. Whose columns mean
//! what is `dot_wrapper.job_source`'s. Which jobs wait for the end of a run is `store::job_link`'s.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use serde_json::Value;

use super::extension::Extension;
use super::foreign::{self, Refused};
use super::spi;
use crate::domain::call::shorten;
use crate::domain::error::{DotError, SqlState};
use crate::domain::job::{Job, Standing, Words};
use crate::pg::object::{self, Relation, Use};

/// The row of `dot_wrapper.job_source`.
#[derive(Clone, Debug)]
pub struct Source {
    /// The role by which runs are requested, if there is one of that name.
    pub run_as: (String, Option<pg_sys::Oid>),
    /// The table's name with its schema, quoted: the same however it is spelled there.
    pub relation: String,
    /// Its schema, if there is one of that name, and its own name.
    place: (Option<pg_sys::Oid>, String),
    /// Its schema, quoted.
    schema: String,
    /// Families whose jobs are taken.
    pub families: Vec<String>,
    /// Names of columns, in the order of [`COLUMNS`]; empty: there is none.
    columns: Vec<String>,
    words: Value,
    /// Jobs in one transaction.
    pub batch: i64,
}

/// What the columns mean, and in which order they are kept.
const COLUMNS: [&str; 9] =
    ["id", "family", "payload", "status", "run_id", "idempotency_key", "actor", "result", "finished_at"];
const ID: usize = 0;
const FAMILY: usize = 1;
const PAYLOAD: usize = 2;
const STATUS: usize = 3;
const RUN_ID: usize = 4;
const KEY: usize = 5;
const ACTOR: usize = 6;
const RESULT: usize = 7;
const FINISHED_AT: usize = 8;

/// The source, if there is one.
///
/// # Errors
/// XX000 only.
pub fn source() -> Result<Option<Source>, DotError> {
    let columns: Vec<String> = COLUMNS.iter().map(|column| format!("coalesce(j.{column}_column::text, '')")).collect();
    let sql = format!(
        "SELECT j.run_as::text, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = j.run_as),
                quote_ident(p.name[1]) || '.' || quote_ident(p.name[2]),
                (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = p.name[1]), p.name[2],
                quote_ident(p.name[1]), j.families, ARRAY[{}], j.status_words, j.batch::bigint
         FROM dot_wrapper.job_source j, LATERAL (SELECT parse_ident(j.relation) AS name) p",
        columns.join(", ")
    );
    spi::row(&sql, &[], |row| {
        Ok(Source {
            run_as: (spi::need(row, 1)?, row.get(2)?),
            relation: spi::need(row, 3)?,
            place: (row.get(4)?, spi::need(row, 5)?),
            schema: spi::need(row, 6)?,
            families: spi::need(row, 7)?,
            columns: spi::need(row, 8)?,
            words: spi::need_json(row, 9)?,
            batch: spi::need(row, 10)?,
        })
    })
}

/// Whether `queue.worker.enabled` is the word true in `dot_config`. What could be a slip is a no.
///
/// # Errors
/// Why it cannot be read, which is a no as well.
pub fn is_enabled(extension: &Extension) -> Result<bool, String> {
    let relation = object::lock_relation(c"dot_config", extension.schema_oid, Use::Read)
        .filter(|relation| matches!(relation.kind, 'r' | 'p' | 'v') && extension.trusts(relation.owner))
        .ok_or("there is no table dot_config of a trusted owner")?;
    let name = format!("{}.dot_config", extension.schema);
    // Every row of that key: a table without a primary key may have two, and one no is enough.
    let sql = format!(
        "SELECT pg_catalog.bool_and((c.value::pg_catalog.text OPERATOR(pg_catalog.=) 'true') IS TRUE)
         FROM {name} c
         WHERE {} AND c.key::pg_catalog.text OPERATOR(pg_catalog.=) 'queue.worker.enabled'",
        still_is(&name)
    );
    let ask = || spi::row(&sql, &[relation.oid.into()], |row| row.get::<bool>(1));
    match foreign::as_owner(relation.owner, &extension.schema, ask) {
        Ok(answer) => Ok(answer.flatten() == Some(true)),
        Err(refused) => Err(format!("dot_config: {}", refused.text())),
    }
}

/// Whether a name still means the relation that was checked, which is $1. Evaluated under its owner's search_path: every
/// name and operator is qualified.
fn still_is(name: &str) -> String {
    format!("pg_catalog.to_regclass('{}') OPERATOR(pg_catalog.=) $1", name.replace('\'', "''"))
}

/// The table of jobs, locked until the end of the transaction.
#[derive(Clone, Debug)]
pub struct Table {
    relation: Relation,
    schema: String,
    /// Its qualified name, quoted.
    name: String,
    columns: Vec<Option<Column>>,
    /// Jobs of other families are not looked at, whatever they are asked for by.
    families: Vec<String>,
    /// Its words.
    pub words: Words,
}

#[derive(Clone, Debug)]
struct Column {
    /// Quoted.
    name: String,
    /// Quoted and qualified.
    type_name: String,
}

/// Whether a job is there and can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Locked for us.
    Locked,
    /// Somebody has it locked.
    Busy,
    /// There is none.
    Gone,
}

/// Finds and locks the table that the source names.
///
/// # Errors
/// A line for people: what is missing, or whom it belongs to.
pub fn open(extension: &Extension, source: &Source, usage: Use) -> Result<Table, String> {
    let words = Words::parse(source.words.clone())?;
    let name = CString::new(source.place.1.as_str()).unwrap_or_default();
    let found = source.place.0.and_then(|schema| object::lock_relation(&name, schema, usage));
    let relation = found.ok_or_else(|| format!("there is no table {}", source.relation))?;
    if !matches!(relation.kind, 'r' | 'p') {
        return Err(format!("{} is no table", source.relation));
    }
    if !extension.trusts(relation.owner) {
        return Err(format!("{} belongs to a role that is not trusted", source.relation));
    }
    if is_reserved(extension, relation.oid).map_err(|error| error.message)? {
        return Err(format!(
            "{} cannot be a table of jobs: it belongs to PostgreSQL or to dot_wrapper",
            source.relation
        ));
    }
    let columns = columns(relation.oid, &source.columns).map_err(|error| error.message)?;
    let missing: Vec<&str> = source
        .columns
        .iter()
        .zip(&columns)
        .filter(|(wanted, column)| !wanted.is_empty() && column.is_none())
        .map(|(wanted, _)| wanted.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(format!("{} has no column {}", source.relation, missing.join(", ")));
    }
    Ok(Table {
        relation,
        schema: source.schema.clone(),
        name: source.relation.clone(),
        columns,
        families: source.families.clone(),
        words,
    })
}

/// Whether it is a catalogue, or one of our own tables other than the shipped job_queue. What is written there with its
/// owner's rights would be more than the state of a job.
fn is_reserved(extension: &Extension, relation: pg_sys::Oid) -> Result<bool, DotError> {
    let sql = "SELECT c.oid < 16384::oid OR n.nspname IN ('pg_catalog', 'information_schema', 'dot_wrapper')
                      OR starts_with(n.nspname::text, 'pg_')
                      OR (EXISTS (SELECT FROM pg_catalog.pg_depend d
                                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                                    AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = $2)
                          AND NOT (c.relname = 'job_queue' AND c.relnamespace = $3))
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let args = [relation.into(), extension.oid.into(), extension.schema_oid.into()];
    Ok(spi::row(sql, &args, |row| spi::need(row, 1))?.unwrap_or(true))
}

fn columns(relation: pg_sys::Oid, names: &[String]) -> Result<Vec<Option<Column>>, DotError> {
    let sql = "SELECT quote_ident(a.attname), quote_ident(n.nspname) || '.' || quote_ident(t.typname)
               FROM unnest($2) WITH ORDINALITY x (name, place)
               LEFT JOIN (pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                          JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace)
                    ON a.attrelid = $1 AND a.attname = x.name AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY x.place";
    spi::rows(sql, &[relation.into(), names.to_vec().into()], |row| {
        let (name, type_name): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
        Ok(name.zip(type_name).map(|(name, type_name)| Column { name, type_name }))
    })
}

impl Table {
    /// Locks and reads jobs of these families that wait, in the order of their keys, without those that somebody has
    /// locked and those that are named in `but`. No other row is locked.
    ///
    /// # Errors
    /// What the table's owner's code raised, or a word that its column cannot have.
    pub fn waiting(&self, but: &[String], max_payload: usize, limit: i64) -> Result<Vec<Job>, Refused> {
        let (id, status) = (self.need(ID)?, self.need(STATUS)?);
        let text = |place: usize| match self.column(place) {
            Some(column) => format!("t.{}::pg_catalog.text", column.name),
            None => "NULL::pg_catalog.text".to_owned(),
        };
        let payload = text(PAYLOAD);
        let sql = format!(
            "SELECT {id_text},
                    CASE WHEN pg_catalog.octet_length({payload}) OPERATOR(pg_catalog.<=) $5 THEN {payload} END,
                    pg_catalog.octet_length({payload})::pg_catalog.int8, {key}, {actor}
             FROM {name} t
             WHERE {same} AND {family} OPERATOR(pg_catalog.=) ANY ($2)
               AND t.{status} OPERATOR(pg_catalog.=) $3::pg_catalog.text::{status_type}
               AND {id_text} OPERATOR(pg_catalog.<>) ALL ($4)
             ORDER BY t.{id} LIMIT $6 FOR UPDATE OF t SKIP LOCKED",
            id_text = text(ID),
            key = text(KEY),
            actor = text(ACTOR),
            name = self.name,
            same = still_is(&self.name),
            family = text(FAMILY),
            status = status.name,
            status_type = status.type_name,
            id = id.name,
        );
        let args: [DatumWithOid<'_>; 6] = [
            self.relation.oid.into(),
            self.families.clone().into(),
            self.words.queued.as_str().into(),
            but.to_vec().into(),
            i32::try_from(max_payload).unwrap_or(i32::MAX).into(),
            limit.into(),
        ];
        self.as_owner(|| {
            spi::rows(&sql, &args, |row| {
                Ok(Job {
                    id: spi::need(row, 1)?,
                    payload: row.get(2)?,
                    payload_bytes: row.get(3)?.unwrap_or_default(),
                    idempotency_key: row.get(4)?,
                    actor: row.get(5)?,
                })
            })
        })
    }

    /// Locks one job, without waiting for whoever has it.
    ///
    /// # Errors
    /// As [`Table::waiting`].
    pub fn lock(&self, id: &str) -> Result<Found, Refused> {
        let this = self.this()?;
        let sql = |lock: &str| format!("SELECT true FROM {} t WHERE {this} {lock}", self.name);
        let args: [DatumWithOid<'_>; 3] = [self.relation.oid.into(), id.into(), self.families.clone().into()];
        let ask = |sql: String| self.as_owner(|| Ok(!spi::rows(&sql, &args, |row| row.get::<bool>(1))?.is_empty()));
        Ok(match ask(sql("FOR UPDATE OF t SKIP LOCKED"))? {
            true => Found::Locked,
            false if ask(sql(""))? => Found::Busy,
            false => Found::Gone,
        })
    }

    /// Writes where a job's run stands. The job is locked.
    ///
    /// # Errors
    /// As [`Table::waiting`]; also when the row then says something else, as after a trigger that does not want it.
    pub fn write(&self, id: &str, standing: &Standing) -> Result<(), Refused> {
        let word = self.words.of(standing.status);
        let run_id = standing.run_id.map(|id| id.to_string());
        let report = standing.report().map(|report| report.to_string());
        self.update(id, word, vec![(RUN_ID, run_id), (RESULT, report)], standing.is_over())
    }

    /// Lets a job wait again whose run was refused before anything was sent. The job is locked; it keeps that run's id until
    /// it gets another.
    ///
    /// # Errors
    /// As [`Table::write`].
    pub fn put_back(&self, id: &str) -> Result<(), Refused> {
        self.update(id, &self.words.queued, Vec::new(), false)
    }

    fn update(&self, id: &str, word: &str, more: Vec<(usize, Option<String>)>, ends: bool) -> Result<(), Refused> {
        let mut args: Vec<DatumWithOid<'_>> = vec![self.relation.oid.into(), id.into(), self.families.clone().into()];
        let mut sets = Vec::new();
        for (place, value) in std::iter::once((STATUS, Some(word.to_owned()))).chain(more) {
            if let (Some(column), Some(value)) = (self.column(place), value) {
                args.push(value.into());
                sets.push(format!("{} = ${}::pg_catalog.text::{}", column.name, args.len(), column.type_name));
            }
        }
        if let Some(column) = self.column(FINISHED_AT).filter(|_| ends) {
            sets.push(format!("{} = pg_catalog.clock_timestamp()", column.name));
        }
        let (sets, this, status) = (sets.join(", "), self.this()?, &self.need(STATUS)?.name);
        let sql = format!("UPDATE {} t SET {sets} WHERE {this} RETURNING t.{status}::pg_catalog.text", self.name);
        self.as_owner(|| match spi::rows(&sql, &args, |row| row.get::<String>(1))?.as_slice() {
            [Some(now)] if now == word => Ok(()),
            [now] => Err(odd(format!(
                "its status became \"{}\" instead of \"{}\"",
                shorten(now.as_deref().unwrap_or("NULL")),
                shorten(word)
            ))),
            [] => Err(odd("the row was not written".to_owned())),
            rows => Err(odd(format!("{} rows have its key", rows.len()))),
        })
    }

    /// The words that its status column cannot have.
    pub fn unknown_words(&self) -> Vec<String> {
        let Some(column) = self.column(STATUS) else { return Vec::new() };
        let sql = format!("SELECT $1::pg_catalog.text::{} IS NULL", column.type_name);
        let fits = |word: &str| self.as_owner(|| spi::row(&sql, &[word.into()], |row| row.get::<bool>(1))).is_ok();
        self.words.all().into_iter().filter(|word| !fits(word)).map(str::to_owned).collect()
    }

    /// The job with the key $2, in a family of $3: a key may be unique only within its family.
    fn this(&self) -> Result<String, Refused> {
        let (id, family) = (self.need(ID)?, self.need(FAMILY)?);
        Ok(format!(
            "{} AND t.{} OPERATOR(pg_catalog.=) $2::pg_catalog.text::{}
             AND t.{}::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($3)",
            still_is(&self.name),
            id.name,
            id.type_name,
            family.name
        ))
    }

    fn column(&self, place: usize) -> Option<&Column> {
        self.columns.get(place).and_then(Option::as_ref)
    }

    fn need(&self, place: usize) -> Result<&Column, Refused> {
        self.column(place).ok_or_else(|| Refused::Failed(format!("there is no column for {}", COLUMNS[place])))
    }

    fn as_owner<T>(&self, body: impl FnOnce() -> Result<T, DotError>) -> Result<T, Refused> {
        foreign::as_owner(self.relation.owner, &self.schema, body)
    }
}

fn odd(message: String) -> DotError {
    DotError::new(SqlState::ObjectNotInPrerequisiteState, message)
}
