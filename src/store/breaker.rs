//! `dot_wrapper.breaker` and `breaker_order`: circuit breakers as the worker left them, and what operators ordered.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::kept::{self, Slot};
use super::spi;
use crate::domain::breaker::{Breaker, Order, State};
use crate::domain::error::DotError;
use crate::pg::fresh::Class;
use crate::pg::rows::Row;

/// Notes an order; the endpoint's row of the view. `None` when there is no such endpoint.
///
/// # Errors
/// XX000 only.
pub fn order(schema: &str, endpoint: &str, order: Order, note: &str, by: &str) -> Result<Option<Row>, DotError> {
    let sql = "INSERT INTO dot_wrapper.breaker_order (endpoint, state, note, ordered_by)
               SELECT e.name, $2, $3, $4::name FROM dot_wrapper.endpoint e WHERE e.name = $1";
    if spi::run(sql, &[endpoint.into(), order.as_str().into(), note.into(), by.into()])? == 0 {
        return Ok(None);
    }
    let shown = format!("SELECT b FROM {schema}.dot_breaker b WHERE b.endpoint = $1");
    spi::row(&shown, &[endpoint.into()], |row| spi::need(row, 1))
}

/// Endpoint, number, order.
pub type Orders = Vec<(String, i64, Order)>;

/// The orders in force: endpoint, number, order.
///
/// # Errors
/// XX000 only.
pub fn orders() -> Result<Rc<Orders>, DotError> {
    kept::read(&ORDERS, Class::Breakers, read_orders, |_| true)
}

fn read_orders() -> Result<Orders, DotError> {
    let sql = "SELECT e.name, o.number, o.state FROM dot_wrapper.endpoint e
               CROSS JOIN LATERAL (SELECT r.number, r.state FROM dot_wrapper.breaker_order r
                                   WHERE r.endpoint = e.name ORDER BY r.number DESC LIMIT 1) o";
    let found = spi::steady_rows(sql, &[], |row| {
        Ok((spi::need::<String>(row, 1)?, spi::need::<i64>(row, 2)?, Order::parse(&spi::need::<String>(row, 3)?)))
    })?;
    Ok(found.into_iter().filter_map(|(endpoint, number, order)| Some((endpoint, number, order?))).collect())
}

/// The breakers as a worker left them.
///
/// # Errors
/// XX000 only.
pub fn load() -> Result<Vec<(String, Breaker)>, DotError> {
    let sql = "SELECT b.endpoint, b.failures, b.state = 'open',
                      (extract(epoch FROM b.open_until - clock_timestamp()) * 1000)::bigint, b.pause_s,
                      (extract(epoch FROM b.paused_until - clock_timestamp()) * 1000)::bigint,
                      b.forced, b.followed, b.reason
               FROM dot_wrapper.breaker b";
    let now = Instant::now();
    spi::rows(sql, &[], |row| {
        let until =
            |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok()).map(|ms| now + Duration::from_millis(ms));
        let open: bool = spi::need(row, 3)?;
        let mut breaker = Breaker {
            state: if open { State::Open(until(row.get(4)?).unwrap_or(now)) } else { State::Closed },
            failures: u32::try_from(spi::need::<i32>(row, 2)?).unwrap_or(0),
            pause: row.get::<i32>(5)?.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs),
            paused_until: until(row.get(6)?),
            ..Breaker::default()
        };
        (breaker.forced, breaker.order, breaker.reason) = (spi::need(row, 7)?, spi::need(row, 8)?, spi::need(row, 9)?);
        Ok((spi::need(row, 1)?, breaker))
    })
}

/// Writes a breaker down.
///
/// # Errors
/// XX000 only.
pub fn save(endpoint: &str, breaker: &Breaker) -> Result<(), DotError> {
    let sql = "INSERT INTO dot_wrapper.breaker AS b
                   (endpoint, state, failures, open_until, pause_s, paused_until, forced, followed, reason)
               VALUES ($1, CASE WHEN $3 IS NULL THEN 'closed' ELSE 'open' END, $2,
                       clock_timestamp() + $3 * interval '1 second', $4,
                       clock_timestamp() + $5 * interval '1 second', $6, $7, $8)
               ON CONFLICT (endpoint) DO UPDATE
               SET state = excluded.state, failures = excluded.failures, open_until = excluded.open_until,
                   pause_s = excluded.pause_s, paused_until = excluded.paused_until, forced = excluded.forced,
                   followed = excluded.followed, reason = excluded.reason, changed_at = excluded.changed_at";
    let now = Instant::now();
    // Negative for what is past.
    let wait = |at: Instant| {
        let ahead = at.saturating_duration_since(now).as_secs_f64();
        if ahead > 0.0 { ahead } else { -now.saturating_duration_since(at).as_secs_f64() }
    };
    let open = match breaker.state {
        State::Closed => None,
        State::Open(until) => Some(wait(until)),
    };
    let args = [
        endpoint.into(),
        i32::try_from(breaker.failures).unwrap_or(i32::MAX).into(),
        open.into(),
        breaker.pause.and_then(|pause| i32::try_from(pause.as_secs()).ok()).into(),
        breaker.paused_until.map(wait).into(),
        breaker.forced.into(),
        breaker.order.into(),
        breaker.reason.as_str().into(),
    ];
    spi::run(sql, &args).map(drop)
}

/// Why runs for an endpoint wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// The endpoint.
    pub endpoint: String,
    /// `open`, `half_open`, or `paused`.
    pub state: String,
    /// Until when, as PostgreSQL writes it; `None` when nobody can say.
    pub until: Option<String>,
    /// In words.
    pub says: String,
}

/// The endpoints to which runs do not go at once.
///
/// # Errors
/// XX000 only.
pub fn closures(schema: &str) -> Result<Rc<Vec<Closure>>, DotError> {
    // Time alone ends closures, and begins none.
    kept::read(&CLOSURES, Class::Breakers, || look(schema), Vec::is_empty)
}

thread_local! {
    static CLOSURES: Slot<Vec<Closure>> = const { RefCell::new(None) };
    static ORDERS: Slot<Orders> = const { RefCell::new(None) };
}

fn look(schema: &str) -> Result<Vec<Closure>, DotError> {
    let sql = format!(
        "SELECT b.endpoint, CASE b.state WHEN 'closed' THEN 'paused' ELSE b.state END,
                CASE WHEN NOT b.forced
                     THEN to_char(greatest(b.open_until, b.paused_until) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') END,
                b.says
         FROM {schema}.dot_breaker b WHERE b.state <> 'closed' OR b.paused_until > clock_timestamp()
         ORDER BY b.endpoint"
    );
    spi::steady_rows(&sql, &[], |row| {
        Ok(Closure {
            endpoint: spi::need(row, 1)?,
            state: spi::need(row, 2)?,
            until: row.get(3)?,
            says: spi::need(row, 4)?,
        })
    })
}
