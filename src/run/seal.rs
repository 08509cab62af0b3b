//! Sealing: the events that have come since, with the rows that belong to them, in one batch. Called by the worker after
//! commit, in a transaction of its own, so that no caller ever waits for the chain.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::domain::error::DotError;
use crate::domain::seal::chain::{Hash, Head, Origin, Seal, key_id};
use crate::domain::seal::holes::Holes;
use crate::domain::seal::{EventFacts, is_marked};
use crate::pg::session;
use crate::store::extension;
use crate::store::seal::{self, Fresh, Standing};

/// Events sealed in one transaction.
const BATCH: i64 = 1000;

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

/// Seals one batch; `None` where this database is a copy that nobody has resumed: a restore may still be under way.
/// `before` is what the last batch of this very process left, unless it failed. `is_patient`: nor where there is no head yet
/// and events that are not ours, as in the middle of a restore that brings its tables in another order.
///
/// # Errors
/// XX000 and 55000 only.
pub fn seal(before: Option<&Sealer>, is_patient: bool) -> Result<Option<Sealed>, DotError> {
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
    let (events, more) = sealer.collect(&standing)?;
    let is_ours = |event: &Fresh| sealer.origin(event, &instance.permit_key) == Origin::Marked;
    let is_first = standing.head.is_none() && before.is_none_or(|before| before.head.seal_id == 0);
    if is_patient && is_first && !events.iter().all(is_ours) {
        return Ok(None);
    }
    let (seals, unmarked) = sealer.chain(&events, standing.now, &instance.permit_key);
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
    fn collect(&mut self, standing: &Standing) -> Result<(Vec<Fresh>, bool), DotError> {
        let numbers = |events: &[Fresh]| events.iter().map(|event| event.event_id).collect::<Vec<_>>();
        let late = seal::within(&self.holes.due(&standing.snapshot), BATCH)?;
        self.holes.looked(&standing.snapshot, &numbers(&late.events), late.all);
        let mut events = late.events;
        let room = BATCH - i64::try_from(events.len()).unwrap_or(BATCH);
        if !late.all || room <= 0 {
            return Ok((events, true));
        }
        let fresh = seal::above(self.head.high, room)?;
        if let (Some(last), Some(snapshot)) = (fresh.events.last(), &fresh.snapshot) {
            let high = last.event_id;
            self.holes.note(self.head.high, high, &numbers(&fresh.events), snapshot);
            self.head.high = high;
        }
        events.extend(fresh.events);
        Ok((events, !fresh.all))
    }

    /// A seal for each run, one after the other; and the events that have no mark of this database.
    fn chain(&self, events: &[Fresh], now: i64, key: &[u8]) -> (Vec<(Seal, Hash)>, Vec<i64>) {
        let mut runs: Vec<(Uuid, Uuid, Vec<&Fresh>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for event in events {
            let Some(process_run_id) = event.process_run_id else { continue };
            let place = *places.entry(event.run_id).or_insert(runs.len());
            match runs.get_mut(place) {
                Some((_, _, list)) => list.push(event),
                None => runs.push((process_run_id, event.run_id, vec![event])),
            }
        }
        let (mut seal_id, mut prev) = (self.head.seal_id, self.head.hash);
        let mut seals = Vec::with_capacity(runs.len());
        for (process_run_id, run_id, list) in runs {
            seal_id += 1;
            let origins = list.iter().map(|event| self.origin(event, key).as_char()).collect();
            let (attempts, digests) = digests(&list);
            let event_ids = list.iter().map(|event| event.event_id).collect();
            let sealed_at = now;
            let seal = Seal { seal_id, sealed_at, process_run_id, run_id, event_ids, attempts, digests, origins, prev };
            prev = seal.hash();
            seals.push((seal, prev));
        }
        let unmarked = events.iter().filter(|event| self.origin(event, key) == Origin::Unmarked);
        (seals, unmarked.map(|event| event.event_id).collect())
    }

    fn origin(&self, event: &Fresh, key: &[u8]) -> Origin {
        let facts = EventFacts {
            run_id: event.run_id,
            event: &event.event,
            attempt: event.attempt,
            from_status: event.from_status.as_deref(),
            to_status: event.to_status.as_deref(),
            detail: &event.detail,
        };
        if is_marked(key, &facts, event.mark.as_deref()) {
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

/// The attempts that these events of one run began, and all digests in the order of [`Seal::digests`].
fn digests(events: &[&Fresh]) -> (Vec<i32>, Vec<u8>) {
    let mut begun: Vec<_> = events.iter().filter_map(|event| event.attempt.zip(event.begun.as_ref())).collect();
    begun.sort_by_key(|(attempt, _)| *attempt);
    begun.dedup_by_key(|(attempt, _)| *attempt);
    // The last look at the run's row is the newest.
    let state = events.iter().rev().find_map(|event| event.state.as_ref());
    let birth = events.iter().find_map(|event| event.birth.as_ref());
    let all = state.into_iter().chain(events.iter().map(|event| &event.digest));
    let all = all.chain(begun.iter().map(|(_, digest)| *digest)).chain(birth);
    (begun.iter().map(|(attempt, _)| *attempt).collect(), all.flatten().copied().collect())
}
