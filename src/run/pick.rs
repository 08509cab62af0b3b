//! Which runs are taken up next: whose turn it is, and what the limits leave room for. Nothing is locked or written here;
//! `candidate::take` locks what was picked, and the second gate asks the limits again, with the policy of the moment.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::breaker;
use crate::domain::busy::Busy;
use crate::domain::error::DotError;
use crate::domain::lanes::{Lanes, Look, Spot};
use crate::domain::limits::Flow;
use crate::domain::parking::Parking;
use crate::domain::script;
use crate::guc;
use crate::store::{config, look};

/// So long after a policy's limits were changed they count for a tool that is at its old ones.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// What a worker keeps in mind from one claim to the next. It describes what is committed: after a transaction that wrote
/// by it, call [`Memory::committed`] or [`Memory::failed`].
#[derive(Debug, Default)]
pub struct Memory {
    /// What is out, and what may go.
    pub flow: Flow,
    lanes: Lanes,
    parking: Parking,
    /// Leases that others hold.
    busy: Busy,
    /// The breakers' rows have been read.
    restored: bool,
    fresh_since: Option<Instant>,
}

/// A run that its key holds up.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The run.
    pub run_id: Uuid,
    /// Its key.
    pub key: String,
    /// Calls of that key at the same time.
    pub limit: i64,
}

/// Who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Roles and lanes in turn.
    InTurn,
    /// Those over which a worker died before, while nothing else is out that another death would leave in doubt; then the
    /// oldest.
    Careful,
}

/// What a look has found.
#[derive(Debug)]
pub struct Sight {
    look: Look,
    spots: Vec<Spot>,
    /// Runs that were parked and may go.
    parked: Vec<Spot>,
    cost: Duration,
    /// To be taken, in this order.
    pub run_ids: Vec<Uuid>,
    /// Parked ones that woke while their keys are busy; others may be behind them.
    pub awake: Vec<Uuid>,
}

impl Sight {
    /// True when something waits, be it for room.
    pub fn has_any(&self) -> bool {
        !self.spots.is_empty()
    }

    /// What was seen of a run.
    pub fn spot(&self, run_id: Uuid) -> Option<&Spot> {
        self.spots.iter().chain(&self.parked).find(|spot| spot.run_id == run_id)
    }
}

impl Memory {
    /// The transaction has committed, in which all of the sight was taken but `held`. True when there may be more to take.
    pub fn committed(&mut self, sight: Option<Sight>, held: &HashSet<Uuid>, parked: &[Parked]) -> bool {
        self.flow.keep();
        self.flow.saved();
        let Some(sight) = sight else { return true };
        let awake: HashSet<Uuid> = sight.awake.iter().copied().collect();
        let taken: HashSet<Uuid> = sight.run_ids.iter().copied().filter(|run_id| !held.contains(run_id)).collect();
        let last = sight.run_ids.iter().rev().find(|run_id| taken.contains(run_id));
        let last = last.and_then(|run_id| sight.spot(*run_id)).map(|spot| spot.lane);
        let had_parked = !sight.parked.is_empty() && !taken.is_empty();
        self.parking.forget(&taken);
        for one in parked {
            if let Some(spot) = sight.spot(one.run_id) {
                self.parking.park(&one.key, one.limit, spot);
            }
        }
        let seen: Vec<(Spot, bool)> = sight
            .spots
            .into_iter()
            .map(|spot| (taken.contains(&spot.run_id) || awake.contains(&spot.run_id), spot))
            .map(|(t, spot)| (spot, t))
            .collect();
        // A lane whose last run that was seen has been taken may have another behind it.
        let mut ends = std::collections::HashMap::new();
        for (spot, gone) in &seen {
            ends.insert((spot.lane, spot.at.is_some()), spot.has_more && *gone);
        }
        self.lanes.looked(&sight.look, &seen, last, sight.cost, Instant::now());
        had_parked || ends.into_values().any(|more| more)
    }

    /// The transaction has not committed.
    pub fn failed(&mut self) {
        self.flow.undo();
        self.lanes.forget();
    }

    /// The settings have changed, or somebody may have.
    pub fn forget(&mut self) {
        self.flow.forget_tools();
        self.lanes.forget();
        self.fresh_since = Some(Instant::now());
    }

    /// A lease may be free now: who waits for it may ask.
    pub fn released(&mut self, lease: &str) {
        self.busy.forget(lease);
    }

    /// What a run has to get past besides its gates.
    pub(super) fn limits(&mut self) -> (&mut Flow, &mut Busy) {
        (&mut self.flow, &mut self.busy)
    }

    /// How long the next run of this key may sleep in the queue.
    pub fn sleep(&self, key: &str) -> Duration {
        self.parking.sleep(key)
    }

    /// When something that waits for its time, and is no row's own, may go; or a lane is to be looked at from its beginning.
    pub fn next_due(&self) -> Option<Instant> {
        self.flow.next_due().into_iter().chain(self.lanes.full_due()).chain(self.busy.next_due(Instant::now())).min()
    }
}

/// Picks up to `room` runs, fewer where limits or the queue say so.
///
/// # Errors
/// XX000 only.
pub fn pick(memory: &mut Memory, room: usize, order: Order) -> Result<Sight, DotError> {
    let begun = Instant::now();
    if memory.fresh_since.is_none_or(|since| begun - since >= FORGET_EVERY) {
        memory.forget();
    }
    if !memory.restored {
        breaker::restore(&mut memory.flow)?;
        memory.restored = true;
    }
    learn(memory, begun)?;
    memory.flow.looked(begun);
    let full = memory.flow.full(begun);
    let look = memory.lanes.look(&full, begun);
    let spots = look::look(&look, &full, room)?;
    let cost = begun.elapsed();
    let is_busy = |key: &str| key.strip_prefix('\0').is_some_and(|lease| memory.busy.is(lease, begun));
    let parked = memory.parking.ready(|key| if is_busy(key) { usize::MAX } else { memory.flow.of_key(key) });
    let run_ids = choose(memory, &spots, &parked, order, begun).into_iter().take(room).collect::<Vec<_>>();
    let is_awake = |spot: &&Spot| memory.parking.has(spot.run_id) && !run_ids.contains(&spot.run_id);
    let awake = spots.iter().filter(is_awake).map(|spot| spot.run_id).collect();
    Ok(Sight { look, spots, parked, cost, run_ids, awake })
}

/// The limits and the operators' orders as they are now. Once more when runs have been taken: those of the transaction that
/// requested one of them may not have been known before.
///
/// # Errors
/// XX000 only.
pub fn learn(memory: &mut Memory, now: Instant) -> Result<(), DotError> {
    let mut endpoints = config::endpoints()?;
    if !guc::script_roots().is_empty() {
        endpoints.push(script::as_endpoint(guc::max_scripts()));
    }
    memory.flow.learn(guc::max_in_flight(), &endpoints, now);
    breaker::follow(&mut memory.flow)
}

/// Those whose time is over, and then, turn by turn, those for which there is room.
fn choose(memory: &Memory, spots: &[Spot], parked: &[Spot], order: Order, now: Instant) -> Vec<Uuid> {
    let mut run_ids: Vec<Uuid> = spots.iter().filter(|spot| spot.is_late).map(|spot| spot.run_id).collect();
    let open = spots.iter().filter(|spot| !spot.is_full && !memory.parking.has(spot.run_id));
    let mut open: Vec<Spot> = parked.iter().chain(open).cloned().collect();
    open.sort_by_key(|spot| spot.lane);
    let mut turns: Vec<&Spot> = memory.lanes.turns(&open).into_iter().map(|index| &open[index]).collect();
    if order == Order::Careful {
        turns.sort_by_key(|spot| (-spot.crashes, spot.seq));
    }
    let goes = memory.flow.choose(turns.iter().map(|spot| (spot.endpoint.as_str(), spot.code.as_str())), now);
    run_ids.extend(turns.iter().zip(goes).filter(|(_, goes)| *goes).map(|(spot, _)| spot.run_id));
    run_ids
}
