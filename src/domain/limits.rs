//! How many calls may be out at the same time, to whom, and how fast: what the worker keeps in memory of them.
//!
//! Lives here: counts per endpoint, tool and key, the tokens and the breakers of the endpoints, and the answer to "may
//! this run be sent now". Does not live here: the order in which runs are looked at (`lanes`), the breaker's own rules
//! (`breaker`), clocks: every question brings its moment along.
//!
//! Who has no `max_in_flight` of its own may have three times as many calls out as are then left free: three quarters of
//! `dot_wrapper.max_in_flight` while it is alone, less beside others that are as busy. So a slow agent, or two or three,
//! never hold all of them. It goes for tools, and for endpoints where there are several.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::breaker::{Breaker, Effect, Order, Settings};
use super::bucket::Bucket;
use super::render::Endpoint;

/// A delivery: run and attempt.
pub type Call = (Uuid, i32);

/// What stands in a run's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `dot_wrapper.max_in_flight`.
    All,
    /// Calls to its endpoint.
    Endpoint,
    /// Its endpoint's rate.
    Rate,
    /// Its endpoint's breaker, or a pause that the agent asked for.
    Breaker,
    /// Calls of its tool.
    Tool,
    /// Calls of its key.
    Key,
}

/// A run has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// For what.
    pub by: By,
    /// How long; `None`: until a call has ended, or an operator has said otherwise.
    pub retry_in: Option<Duration>,
}

/// A run that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Which delivery.
    pub call: Call,
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// Tool code.
    pub code: &'a str,
    /// The tool's `max_in_flight`.
    pub max_in_flight: Option<i64>,
    /// Its key, and how many calls of that there may be.
    pub key: Option<(&'a str, i64)>,
}

/// What need not be looked at in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// Endpoints to which nothing may go now.
    pub endpoints: Vec<String>,
    /// Tools of which nothing may go now.
    pub codes: Vec<String>,
}

#[derive(Debug, Default)]
struct Far {
    out: usize,
    limit: Option<usize>,
    bucket: Option<Bucket>,
    settings: Settings,
    breaker: Breaker,
    /// The breaker's row does not say what the breaker is.
    unsaved: bool,
    /// When a run that was held may go.
    due: Option<Instant>,
    /// It is still configured.
    known: bool,
}

#[derive(Debug, Default)]
struct Tool {
    out: usize,
    limit: Option<usize>,
}

#[derive(Debug)]
struct Out {
    endpoint: String,
    code: String,
    key: Option<String>,
    trial: bool,
    /// The transaction that records the intent has not committed yet.
    pending: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Flow {
    slots: usize,
    far: HashMap<String, Far>,
    tools: HashMap<String, Tool>,
    keys: HashMap<String, usize>,
    out: HashMap<Call, Out>,
}

impl Flow {
    /// Takes the configuration in as it is now. `slots` is `dot_wrapper.max_in_flight`.
    pub fn learn(&mut self, slots: usize, endpoints: &[Endpoint], now: Instant) {
        self.slots = slots;
        self.far.values_mut().for_each(|far| far.known = false);
        for endpoint in endpoints {
            let far = self.far.entry(endpoint.name.clone()).or_default();
            far.known = true;
            far.limit = limit(endpoint.max_in_flight);
            far.settings = Settings {
                failures: u32::try_from(endpoint.breaker_failures).unwrap_or(0),
                pause: Duration::from_secs(u64::try_from(endpoint.breaker_pause_s).unwrap_or(1)),
            };
            #[allow(clippy::cast_precision_loss)] // at most 100,000
            let burst = endpoint.rate_burst as f64;
            match (endpoint.rate_per_s.filter(|rate| *rate > 0.0), &mut far.bucket) {
                (None, bucket) => *bucket = None,
                (Some(rate), Some(bucket)) => bucket.set(rate, burst, now),
                (Some(rate), bucket @ None) => *bucket = Some(Bucket::new(rate, burst, now)),
            }
        }
        self.far.retain(|_, far| far.known || far.out > 0);
        self.tools.retain(|_, tool| tool.out > 0 || tool.limit.is_some());
    }

    /// What a tool's policy says now. Tools are learned as their runs come; see [`Flow::admit`].
    fn learn_tool(&mut self, code: &str, max_in_flight: Option<i64>) {
        self.tools.entry(code.to_owned()).or_default().limit = limit(max_in_flight);
    }

    /// Forgets what the tools' policies said, so that a changed one is noticed.
    pub fn forget_tools(&mut self) {
        self.tools.values_mut().for_each(|tool| tool.limit = None);
    }

    /// Lets a delivery go, or says what it has to wait for. What is let go counts at once; [`Flow::keep`] or
    /// [`Flow::undo`] must follow.
    ///
    /// # Errors
    /// What it has to wait for.
    pub fn admit(&mut self, ask: &Ask<'_>, now: Instant) -> Result<(), Hold> {
        self.learn_tool(ask.code, ask.max_in_flight);
        let held = |by, retry_in| Err(Hold { by, retry_in });
        if self.out.len() >= self.slots {
            return held(By::All, None);
        }
        if let Some((key, most)) = ask.key
            && self.keys.get(key).is_some_and(|out| *out >= limit(Some(most)).unwrap_or(1))
        {
            return held(By::Key, None);
        }
        let nothing = Added::default();
        if !self.tool_has_room(ask.code, &nothing) {
            return held(By::Tool, None);
        }
        if !self.endpoint_has_room(ask.endpoint, &nothing) {
            return held(By::Endpoint, None);
        }
        let far = self.far.entry(ask.endpoint.to_owned()).or_default();
        let trial = match far.breaker.admits(now) {
            Ok(trial) => trial,
            Err(stop) => {
                far.due = stop.until;
                return held(By::Breaker, stop.until.map(|until| until - now));
            }
        };
        if let Some(bucket) = &mut far.bucket {
            if let Some(wait) = bucket.wait(now) {
                far.due = Some(now + wait);
                return held(By::Rate, Some(wait));
            }
            bucket.take();
        }
        if trial {
            far.breaker.try_it();
        }
        self.count(ask, trial, true);
        Ok(())
    }

    /// Counts a delivery that is out already, whatever the limits say: one that a worker before this one has sent.
    pub fn adopt(&mut self, ask: &Ask<'_>) {
        self.learn_tool(ask.code, ask.max_in_flight);
        self.count(ask, false, false);
    }

    fn count(&mut self, ask: &Ask<'_>, trial: bool, pending: bool) {
        let key = ask.key.map(|(key, _)| key.to_owned());
        let out = Out { endpoint: ask.endpoint.into(), code: ask.code.into(), key, trial, pending };
        self.far.entry(ask.endpoint.to_owned()).or_default().out += 1;
        self.tools.entry(ask.code.to_owned()).or_default().out += 1;
        if let Some((key, _)) = ask.key {
            *self.keys.entry(key.to_owned()).or_default() += 1;
        }
        if let Some(before) = self.out.insert(ask.call, out) {
            // The same delivery twice would be a defect; the counts stay right all the same.
            self.uncount(&before);
        }
    }

    fn uncount(&mut self, out: &Out) {
        if let Some(far) = self.far.get_mut(&out.endpoint) {
            far.out = far.out.saturating_sub(1);
        }
        if let Some(tool) = self.tools.get_mut(&out.code) {
            tool.out = tool.out.saturating_sub(1);
        }
        if let Some(key) = &out.key
            && let Some(count) = self.keys.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(key);
            }
        }
    }

    /// The intents of what was let go are on disk.
    pub fn keep(&mut self) {
        self.out.values_mut().for_each(|out| out.pending = false);
    }

    /// The transaction did not commit: nothing of what it let go will be sent.
    pub fn undo(&mut self) {
        let pending: Vec<Call> = self.out.iter().filter(|(_, out)| out.pending).map(|(call, _)| *call).collect();
        pending.into_iter().for_each(|call| self.withdraw(call));
    }

    /// A delivery that was let go is not sent after all.
    pub fn withdraw(&mut self, call: Call) {
        let Some(out) = self.out.remove(&call) else { return };
        self.uncount(&out);
        let Some(far) = self.far.get_mut(&out.endpoint) else { return };
        if let Some(bucket) = &mut far.bucket {
            bucket.give_back();
        }
        if out.trial {
            far.breaker.untried();
        }
    }

    /// A delivery has ended.
    pub fn done(&mut self, call: Call, effect: &Effect, now: Instant) {
        let Some(out) = self.out.remove(&call) else { return };
        self.uncount(&out);
        if let Some(far) = self.far.get_mut(&out.endpoint) {
            far.unsaved |= far.breaker.end(effect, out.trial, far.settings, now);
        }
    }

    /// Deliveries of a key that are out.
    pub fn of_key(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(0)
    }

    /// Deliveries that are out.
    pub fn in_flight(&self) -> usize {
        self.out.len()
    }

    /// What need not be looked at now: nothing of it may go.
    pub fn full(&mut self, now: Instant) -> Full {
        let nothing = Added::default();
        let names: Vec<String> = self.far.keys().cloned().collect();
        let codes: Vec<&String> = self.tools.keys().collect();
        let codes = codes.into_iter().filter(|code| !self.tool_has_room(code, &nothing)).cloned().collect();
        let endpoints = names.into_iter().filter(|name| !self.endpoint_is_open(name, now)).collect();
        Full { endpoints, codes }
    }

    fn endpoint_is_open(&mut self, name: &str, now: Instant) -> bool {
        if !self.endpoint_has_room(name, &Added::default()) {
            return false;
        }
        let Some(far) = self.far.get_mut(name) else { return true };
        let until = match (far.breaker.admits(now), &mut far.bucket) {
            (Err(stop), _) => stop.until,
            (Ok(_), Some(bucket)) => match bucket.wait(now) {
                None => return true,
                Some(wait) => Some(now + wait),
            },
            (Ok(_), None) => return true,
        };
        far.due = until;
        false
    }

    /// Which of these runs (endpoint and code) could go together, in this order, as far as can be told without looking
    /// at them closely: keys are not known yet.
    pub fn choose<'s>(&self, runs: impl IntoIterator<Item = (&'s str, &'s str)>, now: Instant) -> Vec<bool> {
        let mut added = Added::default();
        let mut choose = |endpoint: &'s str, code: &'s str| {
            let gone = *added.endpoints.get(endpoint).unwrap_or(&0);
            let goes = self.out.len() + added.all < self.slots
                && self.tool_has_room(code, &added)
                && self.endpoint_has_room(endpoint, &added)
                && self.far.get(endpoint).is_none_or(|far| far.passes(gone, now));
            if goes {
                added.all += 1;
                *added.endpoints.entry(endpoint).or_default() += 1;
                *added.codes.entry(code).or_default() += 1;
            }
            goes
        };
        runs.into_iter().map(|(endpoint, code)| choose(endpoint, code)).collect()
    }

    /// When something that was held for a time may go; `None` when nothing is.
    pub fn next_due(&self) -> Option<Instant> {
        self.far.values().filter_map(|far| far.due).min()
    }

    /// Those times that have come are no reason to look once more.
    pub fn looked(&mut self, now: Instant) {
        self.far.values_mut().for_each(|far| far.due = far.due.filter(|due| *due > now));
    }

    fn tool_has_room(&self, code: &str, added: &Added<'_>) -> bool {
        let (out, limit) = self.tools.get(code).map_or((0, None), |tool| (tool.out, tool.limit));
        self.has_room(out + added.codes.get(code).unwrap_or(&0), limit, true, added.all)
    }

    fn endpoint_has_room(&self, name: &str, added: &Added<'_>) -> bool {
        let (out, limit) = self.far.get(name).map_or((0, None), |far| (far.out, far.limit));
        self.has_room(out + added.endpoints.get(name).unwrap_or(&0), limit, self.far.len() > 1, added.all)
    }

    /// With a limit of its own: up to it. Else, among several, three times what is left free once it has gone, and at
    /// least one.
    fn has_room(&self, out: usize, limit: Option<usize>, is_one_of_many: bool, added: usize) -> bool {
        let free = self.slots.saturating_sub(self.out.len() + added);
        match limit {
            Some(limit) => out < limit,
            None => !is_one_of_many || out == 0 || out < 3 * free.saturating_sub(1),
        }
    }

    /// Takes the breakers' rows in: for a worker that starts.
    pub fn restore(&mut self, endpoint: &str, breaker: Breaker) {
        self.far.entry(endpoint.to_owned()).or_default().breaker = breaker;
    }

    /// Follows an operator's order, if it is a new one.
    pub fn follow(&mut self, endpoint: &str, number: i64, order: Order, now: Instant) {
        if let Some(far) = self.far.get_mut(endpoint) {
            far.unsaved |= far.breaker.follow(number, order, now);
        }
    }

    /// Breakers whose rows are to be written.
    pub fn unsaved(&self) -> Vec<(&str, &Breaker)> {
        let far = self.far.iter().filter(|(_, far)| far.unsaved);
        far.map(|(name, far)| (name.as_str(), &far.breaker)).collect()
    }

    /// They have been written.
    pub fn saved(&mut self) {
        self.far.values_mut().for_each(|far| far.unsaved = false);
    }
}

impl Far {
    /// Whether one more may pass after `gone` others that are not counted yet.
    fn passes(&self, gone: usize, now: Instant) -> bool {
        let breaker = self.breaker.admits(now).is_ok_and(|trial| !trial || gone == 0);
        breaker && self.bucket.as_ref().is_none_or(|bucket| gone < bucket.whole(now))
    }
}

/// Runs that are chosen and not counted yet.
#[derive(Debug, Default)]
struct Added<'s> {
    all: usize,
    endpoints: HashMap<&'s str, usize>,
    codes: HashMap<&'s str, usize>,
}

/// A configured limit; the column's range makes it at least 1.
fn limit(value: Option<i64>) -> Option<usize> {
    value.map(|value| usize::try_from(value).unwrap_or(1).max(1))
}

#[cfg(test)]
#[path = "limits/tests.rs"]
mod tests;
