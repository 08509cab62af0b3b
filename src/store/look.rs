//! A look at the queue: the first runs of each lane that are due, unlocked and untouched. Costs the same however deep a
//! lane is. Whose turn it is among them is `domain::lanes`'s.

use super::spi;
use crate::domain::error::DotError;
use crate::domain::lanes::{Look, Mark, Spot};
use crate::domain::limits::Full;

/// Rows of a lane of which nothing may go: looked at for those whose time is over.
const OF_FULL_LANES: i64 = 10;

/// From one lane to the next by the index, however many rows each has.
const ALL_LANES: &str = "WITH RECURSIVE heads AS (
        (SELECT q.lane, q.code, q.endpoint FROM dot_wrapper.dot_queue q
         WHERE q.state = 'queued' ORDER BY q.lane, q.available_at, q.seq LIMIT 1)
        UNION ALL
        SELECT n.lane, n.code, n.endpoint FROM heads h CROSS JOIN LATERAL (
            SELECT q.lane, q.code, q.endpoint FROM dot_wrapper.dot_queue q
            WHERE q.state = 'queued' AND q.lane > h.lane ORDER BY q.lane, q.available_at, q.seq LIMIT 1) n
    ), lanes AS MATERIALIZED (
        SELECT h.lane, h.code = ANY ($2) OR h.endpoint = ANY ($3) AS is_full,
               0::bigint AS seq, '-infinity'::timestamptz AS timed, 9223372036854775807 AS timed_seq
        FROM heads h
    )";

/// The lanes that the worker remembers, behind their marks.
const MARKED_LANES: &str = "WITH lanes AS MATERIALIZED (
        SELECT m.lane, false AS is_full, m.seq, m.timed::timestamptz AS timed, m.timed_seq
        FROM unnest($2::bigint[], $3::bigint[], $5::text[], $6::bigint[]) AS m (lane, seq, timed, timed_seq)
    )";

/// New runs by their number, and those that waited for a time by that. $1 is how many in all, $4 how many of a full lane.
const FIRST_OF_EACH: &str = ", k AS MATERIALIZED (
        SELECT greatest(2, ceil($1::float8 / greatest(count(*), 1)))::bigint AS n FROM lanes l WHERE NOT l.is_full
    )
    SELECT q.run_id, l.lane, q.code, q.endpoint, NULL::text, q.seq, l.is_full, (SELECT k.n FROM k), q.crashes,
           l.is_full AND EXISTS (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id AND r.run_status = 'queued'
               AND ((r.attempts = 0 AND r.start_by < clock_timestamp()) OR r.finish_by < clock_timestamp()))
    FROM lanes l CROSS JOIN LATERAL (
        SELECT q.run_id, q.code, q.endpoint, q.seq, q.crashes FROM dot_wrapper.dot_queue q
        WHERE q.state = 'queued' AND q.lane = l.lane AND q.available_at = '-infinity' AND q.seq > l.seq
        ORDER BY q.seq LIMIT CASE WHEN l.is_full THEN $4 ELSE (SELECT k.n FROM k) END) q
    UNION ALL
    SELECT q.run_id, l.lane, q.code, q.endpoint, q.available_at::text, q.seq, l.is_full, (SELECT k.n FROM k), q.crashes,
           l.is_full AND EXISTS (SELECT FROM dot_wrapper.dot_run r WHERE r.run_id = q.run_id AND r.run_status = 'queued'
               AND ((r.attempts = 0 AND r.start_by < clock_timestamp()) OR r.finish_by < clock_timestamp()))
    FROM lanes l CROSS JOIN LATERAL (
        SELECT q.run_id, q.code, q.endpoint, q.seq, q.crashes, q.available_at FROM dot_wrapper.dot_queue q
        WHERE q.state = 'queued' AND q.lane = l.lane AND (q.available_at, q.seq) > (l.timed, l.timed_seq)
          AND q.available_at <= now()
        ORDER BY q.available_at, q.seq LIMIT CASE WHEN l.is_full THEN $4 ELSE (SELECT k.n FROM k) END) q";

/// What is there, in the order of each lane: about as many as `limit` in all, and at least two of each lane.
///
/// # Errors
/// XX000 only.
pub fn look(look: &Look, full: &Full, limit: usize) -> Result<Vec<Spot>, DotError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    spi::in_index_order(|| match look {
        Look::Full => {
            let args = [limit.into(), full.codes.clone().into(), full.endpoints.clone().into(), OF_FULL_LANES.into()];
            read(&format!("{ALL_LANES}{FIRST_OF_EACH}"), &args)
        }
        Look::Behind(marks) => {
            let of = |part: fn(&Mark) -> i64| marks.iter().map(|(_, mark)| part(mark)).collect::<Vec<_>>();
            let args = [
                limit.into(),
                marks.iter().map(|(lane, _)| *lane).collect::<Vec<_>>().into(),
                of(|mark| mark.seq).into(),
                OF_FULL_LANES.into(),
                marks.iter().map(|(_, mark)| timed(mark).to_owned()).collect::<Vec<_>>().into(),
                of(|mark| mark.timed.as_ref().map_or(i64::MAX, |(_, seq)| *seq)).into(),
            ];
            read(&format!("{MARKED_LANES}{FIRST_OF_EACH}"), &args)
        }
    })
}

fn timed(mark: &Mark) -> &str {
    mark.timed.as_ref().map_or("-infinity", |(at, _)| at)
}

fn read(sql: &str, args: &[pgrx::datum::DatumWithOid<'_>]) -> Result<Vec<Spot>, DotError> {
    let rows = spi::rows(sql, args, |row| {
        let spot = Spot {
            run_id: spi::need_uuid(row, 1)?,
            lane: spi::need(row, 2)?,
            code: spi::need(row, 3)?,
            endpoint: spi::need(row, 4)?,
            at: row.get(5)?,
            seq: spi::need(row, 6)?,
            is_full: spi::need(row, 7)?,
            crashes: spi::need(row, 9)?,
            is_late: spi::need(row, 10)?,
            has_more: false,
        };
        Ok((spot, spi::need::<i64>(row, 8)?))
    })?;
    let mut counts = std::collections::HashMap::new();
    for (spot, _) in &rows {
        *counts.entry((spot.lane, spot.at.is_some())).or_insert(0i64) += 1;
    }
    let more = |spot: &Spot, most: i64| {
        let most = if spot.is_full { OF_FULL_LANES } else { most };
        counts.get(&(spot.lane, spot.at.is_some())).is_some_and(|count| *count >= most)
    };
    Ok(rows.into_iter().map(|(spot, most)| Spot { has_more: more(&spot, most), ..spot }).collect())
}
