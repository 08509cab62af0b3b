//! The ledger held against its seals and against itself, for `fn_dot_verify`.
//!
//! What belongs together is read in one statement, and so in one snapshot: the worker goes on sealing meanwhile.

use pgrx::datum::DatumWithOid;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::seal::{ATTEMPT, BIRTH, EVENT, STATE, hash};
use super::spi;
use crate::domain::error::DotError;
use crate::domain::seal::chain::Head;
use crate::error;

/// What is to be verified.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Everything.
    Ledger,
    /// These runs of a process run.
    Runs {
        /// The process run.
        process_run_id: Uuid,
        /// Runs of it that are there, and that are gone.
        run_ids: Vec<Uuid>,
    },
}

impl Scope {
    /// A statement for this scope: `{r}`, `{e}`, `{a}` and `{s}` stand for the condition on an alias of a run, an event, an
    /// attempt or a seal. $1 and $2 are taken.
    pub(super) fn statement(&self, sql: &str) -> String {
        let is_all = matches!(self, Scope::Ledger);
        let rows = |alias: &str| if is_all { "true".to_owned() } else { format!("{alias}.run_id = ANY ($1)") };
        let seals = if is_all { "true" } else { "s.process_run_id = $2 AND s.run_id = ANY ($1)" };
        let fill = |sql: String, alias: &&str| sql.replace(&format!("{{{alias}}}"), &rows(alias));
        ["r", "e", "a"].iter().fold(sql.to_owned(), fill).replace("{s}", seals)
    }

    pub(super) fn args<'a>(&self) -> Vec<DatumWithOid<'a>> {
        let (run_ids, process) = match self {
            Scope::Ledger => (Vec::new(), None),
            Scope::Runs { process_run_id, run_ids } => {
                (run_ids.iter().copied().map(spi::uuid).collect(), Some(spi::uuid(*process_run_id)))
            }
        };
        vec![run_ids.into(), process.into()]
    }
}

/// A run of a process run and who requested it.
#[derive(Clone, Debug)]
pub struct Requested {
    /// The run.
    pub run_id: Uuid,
    /// Who requested it; `None` for a run that is gone: the role's OID, and its name of then.
    pub by: Option<(pgrx::pg_sys::Oid, String)>,
}

/// The runs of a process run, and those that only its seals know of.
///
/// # Errors
/// XX000 only.
pub fn runs_of(process_run_id: Uuid) -> Result<Vec<Requested>, DotError> {
    let sql = "SELECT r.run_id, r.requested_by_oid, r.requested_by::text FROM dot_wrapper.dot_run r WHERE r.process_run_id = $1
               UNION ALL
               SELECT DISTINCT s.run_id, NULL::oid, NULL::text FROM dot_wrapper.dot_seal s
               WHERE s.process_run_id = $1
                 AND NOT EXISTS (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = s.run_id)";
    spi::rows(sql, &[spi::uuid(process_run_id).into()], |row| {
        let name: Option<String> = row.get(3)?;
        Ok(Requested { run_id: spi::need_uuid(row, 1)?, by: row.get(2)?.zip(name) })
    })
}

/// Something that is not as it was, or not as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: run, event, attempt, seal, head, anchor.
    pub kind: &'static str,
    /// The run.
    pub run_id: Option<Uuid>,
    /// The number of the event, attempt or seal.
    pub item: Option<i64>,
    /// In one word.
    pub verdict: String,
    /// In more words.
    pub detail: String,
}

/// What one look at rows and seals gave.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What is wrong, at most [`MOST`] of each kind of comparison.
    pub findings: Vec<Finding>,
    /// How much there was.
    pub totals: Totals,
}

/// What was looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Totals {
    /// Events that no seal covers, in order.
    pub open: Vec<i64>,
    /// Seconds since the oldest of them was written.
    pub oldest_open_s: Option<i64>,
    /// Runs.
    pub runs: i64,
    /// Events.
    pub events: i64,
    /// Attempts.
    pub attempts: i64,
    /// Seals.
    pub seals: i64,
    /// The newest of them; 0 for none.
    pub newest: i64,
    /// The head row of the whole ledger.
    pub head: Option<HeadRow>,
}

/// The head row; bytes are in hexadecimal digits.
#[derive(Clone, Debug, Deserialize)]
pub struct HeadRow {
    seal_id: i64,
    hash: String,
    low: i64,
    high: i64,
    since: i64,
    foreign_to: i64,
    key_id: String,
    mark: String,
}

impl HeadRow {
    /// The head.
    pub fn head(&self) -> Head {
        Head {
            seal_id: self.seal_id,
            hash: hash(bytes(&self.hash)),
            low: self.low,
            high: self.high,
            since: self.since,
            foreign_to: self.foreign_to,
            key_id: bytes(&self.key_id),
        }
    }

    /// Its mark.
    pub fn mark(&self) -> Vec<u8> {
        bytes(&self.mark)
    }
}

/// What `encode(…, 'hex')` has made.
fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).filter_map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()).collect()
}

/// Findings of one kind that are told at most.
pub const MOST: i64 = 1000;

/// What is compared, as common table expressions. `busy`: runs with events that are not sealed yet, whose rows may
/// therefore differ from the last seal.
const PARTS: &str = "
    seal AS MATERIALIZED (
        SELECT s.seal_id, s.run_id, s.event_ids, s.attempts, s.digests, s.origins FROM dot_wrapper.dot_seal s WHERE {s}
    ), item AS MATERIALIZED (
        SELECT s.seal_id, s.run_id, u.id AS event_id, substring(s.digests FROM 32 * u.n::integer + 1 FOR 32) AS digest,
               substring(s.origins FROM u.n::integer FOR 1) AS origin
        FROM seal s CROSS JOIN LATERAL unnest(s.event_ids) WITH ORDINALITY AS u (id, n)
    ), open AS MATERIALIZED (
        SELECT e.event_id, e.run_id, e.at FROM dot_wrapper.dot_run_event e
        WHERE {e} AND NOT EXISTS (SELECT FROM item i WHERE i.event_id = e.event_id)
    ), busy AS MATERIALIZED (
        SELECT DISTINCT o.run_id FROM open o
    ), begun AS (
        SELECT s.seal_id, s.run_id, u.attempt,
               substring(s.digests FROM 32 * (cardinality(s.event_ids) + u.n::integer) + 1 FOR 32) AS digest
        FROM seal s CROSS JOIN LATERAL unnest(s.attempts) WITH ORDINALITY AS u (attempt, n)
    ), newest AS (
        SELECT DISTINCT ON (s.run_id) s.run_id, s.seal_id, substring(s.digests FROM 1 FOR 32) AS digest
        FROM seal s ORDER BY s.run_id, s.seal_id DESC
    ), birth AS (
        SELECT DISTINCT ON (s.run_id) s.run_id, s.seal_id, substring(s.digests FROM length(s.digests) - 31) AS digest
        FROM seal s WHERE length(s.digests) = 32 * (2 + cardinality(s.event_ids) + cardinality(s.attempts))
        ORDER BY s.run_id, s.seal_id
    ), step AS MATERIALIZED (
        SELECT e.run_id, e.event_id, e.from_status, e.to_status, lag(e.to_status) OVER w AS before,
               lead(e.event_id) OVER w IS NULL AS is_last
        FROM dot_wrapper.dot_run_event e WHERE {e} AND coalesce(e.to_status, e.from_status) IS NOT NULL
        WINDOW w AS (PARTITION BY e.run_id ORDER BY e.event_id)
    )";

/// Rows that are not what was sealed. Every branch gives kind, run, item, verdict and detail.
fn altered() -> String {
    format!(
        "(SELECT 'event' AS kind, i.run_id, i.event_id AS item,
            CASE WHEN e.event_id IS NULL THEN 'removed' WHEN {EVENT} <> i.digest THEN 'changed'
                 WHEN i.origin = 'u' THEN 'inserted' ELSE 'unknown_origin' END AS verdict,
            CASE WHEN e.event_id IS NULL OR {EVENT} <> i.digest THEN format('sealed by seal %s', i.seal_id)
                 WHEN i.origin = 'u' THEN format('it did not come through dot_wrapper; sealed by seal %s', i.seal_id)
                 ELSE 'it has no mark of this database, as what was not sealed before a restore' END AS detail
          FROM item i LEFT JOIN dot_wrapper.dot_run_event e ON e.event_id = i.event_id
          WHERE e.event_id IS NULL OR i.origin <> 'm' OR {EVENT} <> i.digest
          ORDER BY i.event_id LIMIT {MOST})
        UNION ALL
         (SELECT 'event', e.run_id, e.event_id, 'inconsistent', 'its run is not there'
          FROM dot_wrapper.dot_run_event e
          WHERE {{e}} AND NOT EXISTS (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = e.run_id)
            AND NOT EXISTS (SELECT FROM item i WHERE i.event_id = e.event_id)
          ORDER BY e.event_id LIMIT {MOST})
        UNION ALL
         (SELECT 'event', e.run_id, max(e.event_id), 'inserted', format('it has the mark of event %s', min(e.event_id))
          FROM dot_wrapper.dot_run_event e WHERE {{e}} AND e.mark IS NOT NULL
          GROUP BY e.run_id, e.mark HAVING count(*) > 1 LIMIT {MOST})
        UNION ALL
         (SELECT 'attempt', coalesce(a.run_id, b.run_id), coalesce(a.attempt, b.attempt),
            CASE WHEN a.run_id IS NULL THEN 'removed' WHEN b.run_id IS NULL THEN 'inserted' ELSE 'changed' END,
            coalesce(format('sealed by seal %s', b.seal_id), 'no seal covers it')
          FROM (SELECT * FROM dot_wrapper.dot_run_attempt a WHERE {{a}}) a
          FULL JOIN begun b ON b.run_id = a.run_id AND b.attempt = a.attempt
          WHERE CASE WHEN b.run_id IS NULL THEN a.run_id NOT IN (SELECT y.run_id FROM busy y)
                     ELSE a.run_id IS NULL OR {ATTEMPT} <> b.digest END
          ORDER BY 2, 3 LIMIT {MOST})
        UNION ALL
         (SELECT 'run', coalesce(r.run_id, n.run_id), NULL,
            CASE WHEN r.run_id IS NULL THEN 'removed' WHEN b.run_id IS NULL THEN 'inserted' ELSE 'changed' END,
            CASE WHEN r.run_id IS NULL THEN format('last sealed by seal %s', n.seal_id)
                 WHEN b.run_id IS NULL THEN 'no seal covers what was requested'
                 WHEN {BIRTH} <> b.digest THEN format('what was requested is not what seal %s covers', b.seal_id)
                 ELSE format('its state is not what seal %s covers', n.seal_id) END
          FROM (SELECT * FROM dot_wrapper.dot_run r WHERE {{r}}) r
          FULL JOIN newest n ON n.run_id = r.run_id
          LEFT JOIN birth b ON b.run_id = n.run_id
          LEFT JOIN busy y ON y.run_id = r.run_id
          WHERE r.run_id IS NULL OR (b.run_id IS NULL AND y.run_id IS NULL) OR {BIRTH} <> b.digest
             OR (y.run_id IS NULL AND {STATE} <> n.digest)
          ORDER BY 2 LIMIT {MOST})"
    )
}

/// Rows that do not fit each other, sealed or not.
fn inconsistent() -> String {
    format!(
        "(SELECT 'event', s.run_id, s.event_id, 'inconsistent',
            format('a run that is %s does not become %s', coalesce(s.before, 'not there'), coalesce(s.to_status, 'nothing'))
            || CASE WHEN s.from_status IS DISTINCT FROM s.before THEN format('; the event says from %s', coalesce(s.from_status, 'nothing')) ELSE '' END
          FROM step s JOIN dot_wrapper.dot_run r ON r.run_id = s.run_id
          WHERE s.from_status IS DISTINCT FROM s.before
             OR s.to_status IS NULL OR NOT concat_ws('|', r.mode, coalesce(s.from_status, ''), s.to_status) = ANY ($3)
          ORDER BY s.event_id LIMIT {MOST})
        UNION ALL
         (SELECT 'run', r.run_id, NULL, 'inconsistent',
            CASE WHEN l.to_status IS DISTINCT FROM r.run_status
                 THEN format('it is %s, and its last event says %s', r.run_status, coalesce(l.to_status, 'nothing'))
                 ELSE format('it counts %s attempts; there are %s, and %s events that begin one', r.attempts,
                             coalesce(n.attempts, 0), coalesce(d.begun, 0)) END
          FROM dot_wrapper.dot_run r
          LEFT JOIN step l ON l.run_id = r.run_id AND l.is_last
          LEFT JOIN (SELECT a.run_id, count(*) AS attempts FROM dot_wrapper.dot_run_attempt a WHERE {{a}} GROUP BY a.run_id) n
              ON n.run_id = r.run_id
          LEFT JOIN (SELECT s.run_id, count(*) AS begun FROM step s WHERE s.to_status = 'running' GROUP BY s.run_id) d
              ON d.run_id = r.run_id
          WHERE {{r}} AND (l.to_status IS DISTINCT FROM r.run_status
                OR r.attempts <> coalesce(n.attempts, 0) OR r.attempts <> coalesce(d.begun, 0))
          ORDER BY r.run_id LIMIT {MOST})"
    )
}

/// Compares. `steps`: see `domain::seal::steps`.
///
/// # Errors
/// XX000 only.
pub fn compare(scope: &Scope, steps: Vec<String>) -> Result<Compared, DotError> {
    let sql = format!(
        "WITH {PARTS}
         SELECT f.kind, f.run_id, f.item::bigint, f.verdict, f.detail, NULL::jsonb FROM ({} UNION ALL {}) f
         UNION ALL
         SELECT NULL, NULL, NULL, NULL, NULL, jsonb_build_object(
             'open', coalesce((SELECT jsonb_agg(o.event_id ORDER BY o.event_id) FROM open o), '[]'),
             'oldest_open_s', (SELECT extract(epoch FROM clock_timestamp() - min(o.at) FILTER (WHERE isfinite(o.at)))::bigint FROM open o),
             'runs', (SELECT count(*) FROM dot_wrapper.dot_run r WHERE {{r}}),
             'events', (SELECT count(*) FROM dot_wrapper.dot_run_event e WHERE {{e}}),
             'attempts', (SELECT count(*) FROM dot_wrapper.dot_run_attempt a WHERE {{a}}),
             'seals', (SELECT count(*) FROM seal),
             'newest', (SELECT coalesce(max(s.seal_id), 0) FROM seal s),
             'head', (SELECT jsonb_build_object('seal_id', h.seal_id, 'hash', encode(h.hash, 'hex'), 'low', h.low,
                          'high', h.high, 'since', h.since, 'foreign_to', h.foreign_to, 'key_id', encode(h.key_id, 'hex'),
                          'mark', encode(h.mark, 'hex')) FROM dot_wrapper.seal_head h WHERE h.only_row))",
        altered(),
        inconsistent()
    );
    let mut args = scope.args();
    args.push(steps.into());
    let rows = spi::rows(&scope.statement(&sql), &args, |row| {
        let Some(kind) = row.get::<String>(1)? else { return Ok(Err(spi::need_json(row, 6)?)) };
        let kind = ["event", "attempt", "run"].into_iter().find(|known| *known == kind).unwrap_or("row");
        let run_id = row.get::<pgrx::Uuid>(2)?.map(|id| Uuid::from_bytes(*id.as_bytes()));
        Ok(Ok(Finding { kind, run_id, item: row.get(3)?, verdict: spi::need(row, 4)?, detail: spi::need(row, 5)? }))
    })?;
    let mut findings = Vec::new();
    let mut totals = None;
    for row in rows {
        match row {
            Ok(finding) => findings.push(finding),
            Err(value) => totals = Some(serde_json::from_value(value).map_err(error::internal)?),
        }
    }
    let totals = totals.ok_or_else(|| error::internal("no totals"))?;
    Ok(Compared { findings, totals })
}

/// An event that no seal covers, and its mark.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its number.
    pub event_id: i64,
    /// The run.
    pub run_id: Uuid,
    /// What happened.
    pub event: String,
    /// The attempt.
    pub attempt: Option<i32>,
    /// The state that it left.
    pub from_status: Option<String>,
    /// The state that it led to.
    pub to_status: Option<String>,
    /// The facts.
    pub detail: Value,
    /// The mark.
    pub mark: Option<Vec<u8>>,
}

/// These events.
///
/// # Errors
/// XX000 only.
pub fn events(ids: &[i64]) -> Result<Vec<Open>, DotError> {
    let sql = "SELECT e.event_id, e.run_id, coalesce(e.event, ''), e.attempt, e.from_status, e.to_status,
                      coalesce(e.detail, 'null'), e.mark
               FROM dot_wrapper.dot_run_event e WHERE e.event_id = ANY ($1) ORDER BY e.event_id";
    spi::rows(sql, &[ids.to_vec().into()], |row| {
        Ok(Open {
            event_id: spi::need(row, 1)?,
            run_id: spi::need_uuid(row, 2)?,
            event: spi::need(row, 3)?,
            attempt: row.get(4)?,
            from_status: row.get(5)?,
            to_status: row.get(6)?,
            detail: spi::need_json(row, 7)?,
            mark: row.get(8)?,
        })
    })
}
