//! Lease functions of the substrate, asked about many leases in one statement: one call of the function for each, one
//! security context, time limit and subtransaction for all. What one call is, is `port`'s.

use serde_json::Value;

use super::port::{Function, Name, Ports, seconds};
use super::spi;

impl Ports {
    /// As [`Ports::acquire`] for each of key, holder, seconds. `None` where not all of them were answered; then nothing has
    /// happened, and each can be asked about by itself.
    pub fn acquire_all(&self, asked: &[(&str, &str, i64)]) -> Option<Vec<Value>> {
        let keys: Vec<&str> = asked.iter().map(|(key, ..)| *key).collect();
        let holders: Vec<&str> = asked.iter().map(|(_, holder, _)| *holder).collect();
        let ttls: Vec<i32> = asked.iter().map(|(.., ttl_s)| seconds(*ttl_s)).collect();
        let answered = self.guarded(Name::LeaseAcquire, |function| {
            let ttl = if function.wants_interval() { "pg_catalog.make_interval(secs => x.ttl_s)" } else { "x.ttl_s" };
            let from = "ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) WITH ORDINALITY AS x (key, holder, ttl_s, n)";
            let Some(sql) = statement(function, &format!("x.key, x.holder, {ttl}"), from) else { return Ok(Vec::new()) };
            let args = [function.oid.into(), keys.clone().into(), holders.clone().into(), ttls.clone().into()];
            spi::rows(&sql, &args, |row| Ok(row.get::<pgrx::JsonB>(1)?.map_or(Value::Null, |json| json.0)))
        });
        answered.ok().filter(|answers| answers.len() == asked.len())
    }

    /// As [`Ports::release`] for each of key, holder. False where not all of them were answered; then nothing has happened.
    pub fn release_all(&self, asked: &[(&str, &str)]) -> bool {
        let keys: Vec<&str> = asked.iter().map(|(key, _)| *key).collect();
        let holders: Vec<&str> = asked.iter().map(|(_, holder)| *holder).collect();
        let answered = self.guarded(Name::LeaseRelease, |function| {
            let from = "ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS x (key, holder, n)";
            let Some(sql) = statement(function, "x.key, x.holder", from) else { return Ok(0) };
            spi::run(&sql, &[function.oid.into(), keys.clone().into(), holders.clone().into()])
        });
        answered.is_ok_and(|count| count == asked.len())
    }
}

/// One row with one jsonb for each row of `from`, in their order; `None` for a function that returns a set or nothing, which
/// is asked one by one. Names are qualified and the function is the one that was checked: see `Function::statement`.
fn statement(function: &Function, parameters: &str, from: &str) -> Option<String> {
    if function.is_set || function.result == "void" {
        return None;
    }
    let same = function.is_same();
    Some(format!("SELECT pg_catalog.to_jsonb({}({parameters})) FROM {from} WHERE {same} ORDER BY x.n", function.call))
}
