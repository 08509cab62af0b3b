//! The ledger as it is at the end, read into plain values.

use std::collections::HashMap;
use std::time::SystemTime;

use postgres::{Client, Error};
use uuid::Uuid;

/// One run.
#[derive(Clone)]
pub struct Run {
    pub code: String,
    pub mode: String,
    pub status: String,
    pub reason: String,
    pub attempts: i64,
    pub lease_key: Option<String>,
    pub finish_by: Option<SystemTime>,
    /// Intents, by attempt.
    pub intents: HashMap<i64, Intent>,
    pub events: Vec<Event>,
    /// The state in the queue, when it is there.
    pub queued: Option<String>,
}

/// One intent.
#[derive(Clone)]
pub struct Intent {
    pub at: SystemTime,
    pub token: Option<i64>,
}

/// One event.
#[derive(Clone)]
pub struct Event {
    pub event: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub at: SystemTime,
}

/// All runs.
pub type Ledger = HashMap<Uuid, Run>;

/// Reads it.
pub fn read(session: &mut Client) -> Result<Ledger, Error> {
    let mut ledger = Ledger::new();
    let runs = "SELECT r.run_id, r.code, r.mode, r.run_status, coalesce(r.reason, ''), r.attempts::bigint, r.lease_key, q.state,
                       r.finish_by
                FROM dot_wrapper.dot_run r LEFT JOIN dot_wrapper.dot_queue q USING (run_id)";
    for row in session.query(runs, &[])? {
        let run = Run {
            code: row.get(1),
            mode: row.get(2),
            status: row.get(3),
            reason: row.get(4),
            attempts: row.get(5),
            lease_key: row.get(6),
            finish_by: row.get(8),
            intents: HashMap::new(),
            events: Vec::new(),
            queued: row.get(7),
        };
        ledger.insert(row.get(0), run);
    }
    for row in session
        .query("SELECT run_id, attempt::bigint, intent_at, fencing_token FROM dot_wrapper.dot_run_attempt", &[])?
    {
        if let Some(run) = ledger.get_mut(&row.get(0)) {
            run.intents.insert(row.get(1), Intent { at: row.get(2), token: row.get(3) });
        }
    }
    let events = "SELECT run_id, event, from_status, to_status, at FROM dot_wrapper.dot_run_event ORDER BY event_id";
    for row in session.query(events, &[])? {
        if let Some(run) = ledger.get_mut(&row.get(0)) {
            run.events.push(Event { event: row.get(1), from: row.get(2), to: row.get(3), at: row.get(4) });
        }
    }
    Ok(ledger)
}

/// Runs that are not over and are not in doubt.
pub fn waiting(session: &mut Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT r.code || ' run ' || r.run_id || ' is ' || r.run_status || ' after ' || r.attempts
                      || ' attempts, in the queue ' || coalesce(to_jsonb(q) - 'permit', 'null')
               FROM dot_wrapper.dot_run r LEFT JOIN dot_wrapper.dot_queue q USING (run_id)
               WHERE r.run_status IN ('queued', 'running')";
    Ok(session.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Leases and grants of runs that are over or never were.
pub fn leftover_leases(session: &mut Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT 'lease ' || l.lease_key || ' is held by ' || l.holder || ', which is ' || coalesce(r.run_status, 'no run')
               FROM dot_iu_runtime_lease l
               LEFT JOIN dot_wrapper.dot_run r ON 'dot_run:' || r.run_id = l.holder
               WHERE l.expires_at > now() AND coalesce(r.finished_at IS NOT NULL, true)
               UNION ALL
               SELECT 'grant of ' || g.lease_key || ' is of run ' || g.run_id || ', which is ' || coalesce(r.run_status, 'no run')
               FROM dot_wrapper.lease_grant g LEFT JOIN dot_wrapper.dot_run r USING (run_id)
               WHERE coalesce(r.finished_at IS NOT NULL, true)";
    Ok(session.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Runs in doubt whose agent can be asked, and would tell.
pub fn unasked(session: &mut Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT r.code || ' run ' || r.run_id || ' is in doubt (' || r.reason || '), in the queue '
                      || coalesce(to_jsonb(q) - 'permit', 'null')
               FROM dot_wrapper.dot_run r JOIN dot_wrapper.dot_queue q USING (run_id)
               JOIN dot_wrapper.policy p ON p.scope = 'tool' AND p.name = r.code AND p.endpoint = 'agent'
               WHERE r.run_status = 'in_doubt' AND r.reason <> 'lease_lost'";
    Ok(session.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Runs in doubt for a while whose agent cannot be asked.
pub fn mute_doubts(session: &mut Client) -> Result<Vec<Uuid>, Error> {
    let sql = "SELECT r.run_id FROM dot_wrapper.dot_run r
               JOIN dot_wrapper.dot_run_attempt a ON a.run_id = r.run_id AND a.attempt = r.attempts
               JOIN dot_wrapper.policy p ON p.scope = 'tool' AND p.name = r.code
               WHERE r.run_status = 'in_doubt' AND (p.endpoint = 'mute' OR r.reason = 'lease_lost')
                 AND a.deadline < clock_timestamp()";
    Ok(session.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Runs that were set aside because a worker died over them.
pub fn quarantined(session: &mut Client) -> Result<Vec<Uuid>, Error> {
    let sql = "SELECT r.run_id FROM dot_wrapper.dot_run r WHERE r.run_status = 'queued' AND r.reason = 'quarantined'";
    Ok(session.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}
