//! Lanes: what one role has waiting of one tool. The worker takes from all roles in turn, and from all lanes of a role in
//! turn, so that nobody's flood is in another's way.
//!
//! Lives here: the order in which runs of several lanes go, and how far each lane has been emptied. While somebody holds an
//! old snapshot, the index entries of runs that were taken stay, and each look at the head of a lane would walk over all
//! of them again. So the worker remembers a mark per lane and looks behind it. Rows can appear before a mark, by a
//! transaction that began early and committed late; a full look, which ignores the marks, finds those, and new lanes. Does
//! not live here: what a lane's number is (`lane`), the statements (`store::queue`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::lane;
use super::limits::Full;

/// Full looks take no more than this part of the time, a tenth ...
const SHARE: u32 = 10;
/// ... but one is made at least so often while there is work.
const LONGEST: Duration = Duration::from_millis(900);
/// A look that costs no more may always be a full one.
const CHEAP: Duration = Duration::from_millis(1);
/// More lanes than this are not kept in mind.
const MAX_LANES: usize = 4096;

/// A queued run, as a look at the queue has found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The run.
    pub run_id: Uuid,
    /// Its lane.
    pub lane: i64,
    /// Tool code.
    pub code: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// When it is available, as PostgreSQL writes it; `None`: it has never waited for a time.
    pub at: Option<String>,
    /// Its number among those of that moment.
    pub seq: i64,
    /// How often the worker died over it.
    pub crashes: i16,
    /// Nothing of its lane may go now.
    pub is_full: bool,
    /// It waited past a time that was set for it: to be ended, whether or not it could be sent.
    pub is_late: bool,
    /// Its lane has perhaps more than was returned.
    pub has_more: bool,
}

/// How a look at the queue is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// All lanes, from their beginning.
    Full,
    /// These lanes, each behind its mark.
    Behind(Vec<(i64, Mark)>),
}

/// How far a lane has been emptied. New runs come in by their number; what waits for a time has an order of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// New runs up to this number are gone.
    pub seq: i64,
    /// Those that waited for a time are gone up to this time and number.
    pub timed: Option<(String, i64)>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    mark: Mark,
    code: String,
    endpoint: String,
}

/// All lanes, and when the next full look is due.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<i64, Lane>,
    full_at: Option<Instant>,
    full_cost: Duration,
    /// There was a look since the last full one.
    looked_behind: bool,
    /// Who had the last turn: of the roles, and of each role's lanes.
    last_role: Option<u32>,
    last_lane: HashMap<u32, i64>,
}

impl Lanes {
    /// How to look now. Lanes of which nothing may go are left out; a full look leaves them out by itself.
    pub fn look(&self, full: &Full, now: Instant) -> Look {
        match self.next_full() {
            Some(next) if now < next => {
                let open = |lane: &Lane| !full.codes.contains(&lane.code) && !full.endpoints.contains(&lane.endpoint);
                let behind = self.lanes.iter().filter(|(_, lane)| open(lane));
                Look::Behind(behind.map(|(number, lane)| (*number, lane.mark.clone())).collect())
            }
            _ => Look::Full,
        }
    }

    /// The next look is a full one: something may be where the marks hide it.
    pub fn forget(&mut self) {
        self.full_at = None;
    }

    /// The order in which these runs have their turn; they come in the order of their lanes.
    pub fn turns(&self, spots: &[Spot]) -> Vec<usize> {
        let mut roles: BTreeMap<u32, BTreeMap<i64, [VecDeque<usize>; 2]>> = BTreeMap::new();
        for (index, spot) in spots.iter().enumerate() {
            let lanes = roles.entry(lane::role(spot.lane)).or_default();
            lanes.entry(spot.lane).or_default()[usize::from(spot.at.is_some())].push_back(index);
        }
        let of_role = |(role, lanes): (u32, BTreeMap<i64, [VecDeque<usize>; 2]>)| {
            // What has waited for its time before what is new, one by one.
            let lanes = lanes.into_iter().map(|(number, [new, timed])| (number, in_turn([timed, new])));
            (role, in_turn(after(lanes.collect(), self.last_lane.get(&role))))
        };
        let roles: BTreeMap<u32, VecDeque<usize>> = roles.into_iter().map(of_role).collect();
        in_turn(after(roles, self.last_role.as_ref())).into()
    }

    /// Takes note of a look whose transaction has committed: what was seen, in the order of the lanes, and of each whether
    /// it is gone; and who had the last turn.
    pub fn looked(&mut self, look: &Look, seen: &[(Spot, bool)], last: Option<i64>, cost: Duration, now: Instant) {
        self.looked_behind = *look != Look::Full;
        if *look == Look::Full {
            (self.full_at, self.full_cost) = (Some(now), cost);
        }
        let mut stopped: HashMap<(i64, bool), bool> = HashMap::new();
        for (spot, gone) in seen {
            let lane = self.lanes.entry(spot.lane).or_default();
            (lane.code, lane.endpoint) = (spot.code.clone(), spot.endpoint.clone());
            let only_gone = stopped.get(&(spot.lane, spot.at.is_some())).map(|stopped| !stopped);
            // Behind what is gone; before the first of all if that stays: nothing can be between a number and the next.
            let seq = if *gone { spot.seq } else { spot.seq - 1 };
            if (*gone && only_gone != Some(false)) || only_gone.is_none() {
                match &spot.at {
                    None => lane.mark.seq = seq,
                    Some(at) => lane.mark.timed = Some((at.clone(), seq)),
                }
            }
            stopped.insert((spot.lane, spot.at.is_some()), !(*gone && only_gone.unwrap_or(true)));
        }
        if let Some(number) = last {
            let role = lane::role(number);
            self.last_role = Some(role);
            self.last_lane.insert(role, number);
        }
        if self.lanes.len() > MAX_LANES || self.last_lane.len() > MAX_LANES {
            self.lanes.clear();
            self.last_lane.clear();
            self.forget();
        }
    }

    /// When a full look is due because the last one was none; `None` when it was.
    pub fn full_due(&self) -> Option<Instant> {
        self.next_full().filter(|_| self.looked_behind)
    }

    fn next_full(&self) -> Option<Instant> {
        let wait = if self.full_cost <= CHEAP { Duration::ZERO } else { (self.full_cost * SHARE).min(LONGEST) };
        self.full_at.map(|at| at + wait)
    }
}

/// The queues in order, those behind the last one served first.
fn after<K: Ord>(queues: BTreeMap<K, VecDeque<usize>>, last: Option<&K>) -> Vec<VecDeque<usize>> {
    let (behind, before): (Vec<_>, Vec<_>) =
        queues.into_iter().partition(|(key, _)| last.is_some_and(|last| key > last));
    behind.into_iter().chain(before).map(|(_, queue)| queue).collect()
}

/// One of each queue, then the next of each, until all are empty.
fn in_turn(queues: impl IntoIterator<Item = VecDeque<usize>>) -> VecDeque<usize> {
    let mut queues: VecDeque<VecDeque<usize>> = queues.into_iter().collect();
    let mut order = VecDeque::new();
    while let Some(mut queue) = queues.pop_front() {
        if let Some(index) = queue.pop_front() {
            order.push_back(index);
            queues.push_back(queue);
        }
    }
    order
}

#[cfg(test)]
#[path = "lanes/tests.rs"]
mod tests;
