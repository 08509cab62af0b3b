//! Sealing: the events that have come since, with the rows that belong to them, in one batch. Called by the worker after
//! commit, in a transaction of its own, so that no caller ever waits for the chain.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::domain::error::DotError;
use crate::domain::seal::chain::{DIGEST, Hash, Head, Origin, Seal, key_id};
use crate::domain::seal::holes::Holes;
use crate::domain::seal::row::Row;
use crate::pg::session;
use crate::store::extension;
use crate::store::seal::{self, Around, Standing};

/// How far the sealing has come, as the worker remembers it: what somebody does to the tables meanwhile shows.
#[derive(Clone, Debug)]
pub struct Sealer {
    head: Head,
    holes: Holes,
    /// The highest event and the newest seal after each batch, for `Head::since`.
    batches: VecDeque<(i64, i64)>,
}

/// What one batch came to.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// For the next one, once this transaction has committed.
    pub sealer: Sealer,
    /// True when there may be more to seal.
    pub more: bool,
    /// The newest seal.
    pub seal_id: i64,
    /// Its hash.
    pub hash: Hash,
    /// The database's name.
    pub database: String,
    /// Events that did not come through this code.
    pub unmarked: Vec<i64>,
    /// The chain in the tables is not the one that was left there.
    pub is_disturbed: bool,
}

/// Seals one batch of at most `size` events; `None` where this database is a copy that nobody has resumed: a restore may still be under way.
/// `before` is what the last batch of this very process left, unless it failed. `is_patient`: nor where there is no head yet
/// and events that are not ours, as in the middle of a restore that brings its tables in another order.
///
/// # Errors
/// XX000 and 55000 only.
pub fn seal(before: Option<&Sealer>, size: i64, is_patient: bool) -> Result<Option<Sealed>, DotError> {
    let instance = extension::instance(session::system_identifier())?;
    if !instance.is_here {
        return Ok(None);
    }
    let standing = seal::standing()?;
    let mut sealer = match before {
        Some(sealer) => sealer.clone(),
        None => Sealer::load(&standing)?,
    };
    let is_disturbed = sealer.is_disturbed(&standing);
    // Past what somebody has put there. It follows on our own newest seal, and so breaks the chain.
    sealer.head.seal_id = sealer.head.seal_id.max(standing.newest);
    let has_turned = sealer.turn_to(&instance.permit_key)?;
    let (events, more) = sealer.collect(&standing, size, &instance.permit_key)?;
    let is_first = standing.head.is_none() && before.is_none_or(|before| before.head.seal_id == 0);
    if is_patient && is_first && !events.iter().all(|event| event.is_marked) {
        return Ok(None);
    }
    let seals = sealer.chain(&events, standing.now)?;
    let unmarked = events.iter().filter(|event| sealer.origin(event) == Origin::Unmarked);
    let unmarked = unmarked.map(|event| event.event_id).collect();
    // Nothing is written before there is something to seal: a restore may be about to bring a head.
    if !events.is_empty() || (has_turned && sealer.head.seal_id > 0) {
        sealer.advance(&seals);
        seal::record(&seals, &sealer.head, &sealer.head.mark(&instance.permit_key))?;
    }
    let Head { seal_id, hash, .. } = sealer.head;
    Ok(Some(Sealed { sealer, more, seal_id, hash, database: standing.database, unmarked, is_disturbed }))
}

impl Sealer {
    fn load(standing: &Standing) -> Result<Sealer, DotError> {
        let mut head = standing.head.clone().unwrap_or_else(Head::genesis);
        let sealed = if head.low == head.high && standing.head.is_some() {
            Vec::new()
        } else {
            seal::sealed_above(head.low, head.since)?
        };
        if standing.head.is_none() {
            // Nothing was sealed yet, or somebody has removed the head.
            head.high = sealed.iter().copied().max().unwrap_or(0);
            head.seal_id = standing.newest;
            head.hash = standing.newest_hash.clone().map_or(head.hash, seal::hash);
        }
        let holes = Holes::rebuilt(head.low, head.high, sealed, &standing.snapshot);
        let batches = VecDeque::from([(head.high, head.seal_id)]);
        Ok(Sealer { head, holes, batches })
    }

    fn is_disturbed(&self, standing: &Standing) -> bool {
        let head = standing.head.as_ref().map_or((0, None), |head| (head.seal_id, Some(head.hash.as_slice())));
        let newest = (standing.newest, standing.newest_hash.as_deref());
        let own = (self.head.seal_id, Some(self.head.hash.as_slice()).filter(|_| self.head.seal_id > 0));
        head != own || newest != own
    }

    /// Where the key is another one than that of the last seal, or nothing is sealed, what is there may have come with a
    /// restore.
    fn turn_to(&mut self, key: &[u8]) -> Result<bool, DotError> {
        let now = key_id(key);
        let turns = self.head.key_id != now;
        if turns {
            self.head.key_id = now;
            self.head.foreign_to = seal::highest_event()?;
        }
        Ok(turns)
    }

    /// What is to be sealed: numbers that have turned up, then new ones.
    fn collect(&mut self, standing: &Standing, size: i64, key: &[u8]) -> Result<(Vec<Row>, bool), DotError> {
        let numbers = |events: &[Row]| events.iter().map(|event| event.event_id).collect::<Vec<_>>();
        let late = seal::within(&self.holes.due(&standing.snapshot), size, key)?;
        self.holes.looked(&standing.snapshot, &numbers(&late.events), late.all);
        let mut events = late.events;
        let room = size - i64::try_from(events.len()).unwrap_or(size);
        if !late.all || room <= 0 {
            return Ok((events, true));
        }
        let fresh = seal::above(self.head.high, room, key)?;
        if let (Some(last), Some(snapshot)) = (fresh.events.last(), &fresh.snapshot) {
            let high = last.event_id;
            self.holes.note(self.head.high, high, &numbers(&fresh.events), snapshot);
            self.head.high = high;
        }
        events.extend(fresh.events);
        Ok((events, !fresh.all))
    }

    /// A seal for each run, one after the other. Events of runs that are not there are in none.
    fn chain(&self, events: &[Row], now: i64) -> Result<Vec<(Seal, Hash)>, DotError> {
        let runs = by_run(events);
        let births: Vec<_> =
            runs.iter().map(|(run_id, list)| (*run_id, list.iter().any(|event| event.is_birth))).collect();
        let around = seal::around(&births)?;
        let begun: Vec<_> = runs.iter().map(|(run_id, list)| (*run_id, begun(list))).collect();
        let asked: Vec<_> = begun.iter().flat_map(|(id, list)| list.iter().map(|attempt| (*id, *attempt))).collect();
        let mut attempts = asked.iter().map(|(_, attempt)| *attempt).zip(seal::attempts(&asked)?);
        let (mut seal_id, mut prev) = (self.head.seal_id, self.head.hash);
        let mut seals = Vec::with_capacity(runs.len());
        for (((run_id, list), (_, begun)), around) in runs.into_iter().zip(begun).zip(around) {
            let attempts: Vec<_> = attempts.by_ref().take(begun.len()).collect();
            let Some(around) = around else { continue };
            seal_id += 1;
            let (attempts, digests) = digests(&list, &attempts, &around);
            let seal = Seal {
                seal_id,
                sealed_at: now,
                process_run_id: around.process_run_id,
                run_id,
                event_ids: list.iter().map(|event| event.event_id).collect(),
                attempts,
                digests,
                origins: list.iter().map(|event| self.origin(event).as_char()).collect(),
                prev,
            };
            prev = seal.hash();
            seals.push((seal, prev));
        }
        Ok(seals)
    }

    fn origin(&self, event: &Row) -> Origin {
        if event.is_marked {
            Origin::Marked
        } else if event.event_id <= self.head.foreign_to {
            Origin::Foreign
        } else {
            Origin::Unmarked
        }
    }

    fn advance(&mut self, seals: &[(Seal, Hash)]) {
        if let Some((seal, hash)) = seals.last() {
            (self.head.seal_id, self.head.hash) = (seal.seal_id, *hash);
        }
        self.head.low = self.holes.low(self.head.high);
        self.batches.push_back((self.head.high, self.head.seal_id));
        while let Some((high, seal_id)) = self.batches.front().copied()
            && high <= self.head.low
        {
            self.head.since = seal_id;
            self.batches.pop_front();
        }
    }
}

/// The events of each run, runs in the order of their first ones.
fn by_run(events: &[Row]) -> Vec<(Uuid, Vec<&Row>)> {
    let mut runs: Vec<(Uuid, Vec<&Row>)> = Vec::new();
    let mut places = HashMap::with_capacity(events.len());
    for event in events {
        let place = *places.entry(event.run_id).or_insert(runs.len());
        match runs.get_mut(place) {
            Some((_, list)) => list.push(event),
            None => runs.push((event.run_id, vec![event])),
        }
    }
    runs
}

/// The attempts that these events of one run began, each once.
fn begun(events: &[&Row]) -> Vec<i32> {
    let mut begun: Vec<i32> = events.iter().filter_map(|event| event.began).collect();
    begun.sort_unstable();
    begun.dedup();
    begun
}

/// The attempts that are there, and all digests in the order of [`Seal::digests`].
fn digests(events: &[&Row], attempts: &[(i32, Option<Vec<u8>>)], around: &Around) -> (Vec<i32>, Vec<u8>) {
    let mut all = Vec::with_capacity(DIGEST * (2 + events.len() + attempts.len()));
    all.extend_from_slice(&around.state);
    events.iter().for_each(|event| all.extend_from_slice(&event.digest));
    let mut there = Vec::with_capacity(attempts.len());
    for (attempt, digest) in attempts.iter().filter_map(|(attempt, digest)| Some((*attempt, digest.as_ref()?))) {
        there.push(attempt);
        all.extend_from_slice(digest);
    }
    all.extend(around.birth.iter().flatten());
    (there, all)
}
