//! Lanes: what one role has waiting of one tool. The worker takes from all lanes in turn, so that nobody's flood is in
//! another's way.
//!
//! Lives here: a lane's number, and how far each lane has been emptied. While somebody holds an old snapshot, the index
//! entries of runs that were taken stay, and each look at the head of a lane would walk over all of them again. So the
//! worker remembers a mark per lane and looks behind it. Rows can appear before a mark, by a transaction that began
//! early and committed late; a full look, which ignores the marks, finds those, and new lanes. Does not live here: the
//! statements (`store::queue`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// Full looks take no more than this part of the time, a tenth ...
const SHARE: u32 = 10;
/// ... but one is made at least so often while there is work.
const LONGEST: Duration = Duration::from_millis(900);
/// A look that costs no more may always be a full one.
const CHEAP: Duration = Duration::from_millis(1);
/// More lanes than this are not kept in mind.
const MAX_LANES: usize = 4096;

/// The lane of a role's runs of a tool. Lanes of one role are neighbours: see [`of_role`].
pub fn number(role: u32, code: &str) -> i64 {
    let digest = Sha256::digest(code.as_bytes());
    let low = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    ((u64::from(role) << 32) | u64::from(low)).cast_signed()
}

/// The first and the last lane of a role.
pub fn of_role(role: u32) -> (i64, i64) {
    let first = u64::from(role) << 32;
    (first.cast_signed(), (first | u64::from(u32::MAX)).cast_signed())
}

/// A place in a lane: when its run is available, as PostgreSQL writes it, and its number among those of that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `available_at` as text, to the microsecond.
    pub at: String,
    /// `seq`.
    pub seq: i64,
}

impl Place {
    /// The place before it: nothing can be between.
    fn before(&self) -> Place {
        Place { at: self.at.clone(), seq: self.seq - 1 }
    }
}

/// How a look at the queue is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// All lanes, from their beginning.
    Full,
    /// The lanes that are known, each behind its mark.
    Behind(Vec<(i64, Place)>),
}

/// The marks of all lanes, and when the next full look is due.
#[derive(Debug, Default)]
pub struct Lanes {
    marks: HashMap<i64, Place>,
    full_at: Option<Instant>,
    full_cost: Duration,
    /// There was a look since the last full one.
    looked_behind: bool,
}

impl Lanes {
    /// How to look now.
    pub fn look(&self, now: Instant) -> Look {
        match self.next_full() {
            Some(next) if now < next => {
                Look::Behind(self.marks.iter().map(|(lane, place)| (*lane, place.clone())).collect())
            }
            _ => Look::Full,
        }
    }

    /// The next look is a full one: something may be where the marks hide it.
    pub fn forget(&mut self) {
        self.full_at = None;
    }

    /// Takes note of a look whose transaction has committed: the runs that were seen, in the order of their lanes, and
    /// whether each is gone from there.
    pub fn looked<'p>(
        &mut self,
        look: &Look,
        seen: impl IntoIterator<Item = (i64, &'p Place, bool)>,
        cost: Duration,
        now: Instant,
    ) {
        self.looked_behind = *look != Look::Full;
        if *look == Look::Full {
            (self.full_at, self.full_cost) = (Some(now), cost);
        }
        let mut seen_of: HashMap<i64, bool> = HashMap::new();
        for (lane, place, gone) in seen {
            let only_gone = seen_of.get(&lane).copied();
            if only_gone != Some(false) && gone {
                self.marks.insert(lane, place.clone());
            } else if only_gone.is_none() {
                self.marks.insert(lane, place.before());
            }
            seen_of.insert(lane, only_gone.unwrap_or(true) && gone);
        }
        if self.marks.len() > MAX_LANES {
            self.marks.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn place(seq: i64) -> Place {
        Place { at: "2026-11-22 10:00:00+00".into(), seq }
    }

    #[test]
    fn a_role_s_lanes_are_neighbours_and_no_other_s_are_between() {
        for role in [0, 10, 16_384, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX] {
            let (first, last) = of_role(role);
            assert!(first <= last);
            for code in ["A", "DOT-KG-017", ""] {
                let lane = number(role, code);
                assert!((first..=last).contains(&lane));
                assert!(!(first..=last).contains(&number(role ^ 1, code)));
            }
        }
        assert_ne!(number(1, "A"), number(1, "B"));
    }

    #[test]
    fn a_mark_stops_before_the_first_run_that_stays() {
        let (now, mut lanes) = (Instant::now(), Lanes::default());
        assert_eq!(lanes.look(now), Look::Full);
        let places: Vec<Place> = (0..5).map(place).collect();
        let seen = [(1, &places[0], true), (1, &places[1], true), (1, &places[2], false), (1, &places[3], true)];
        lanes.looked(&Look::Full, seen, MS * 40, now);
        assert_eq!(lanes.full_due(), None);
        assert_eq!(lanes.look(now), Look::Behind(vec![(1, place(1))]));
        // A lane that has given nothing keeps its mark, and one whose first run stays is looked at from there on.
        lanes.looked(&lanes.look(now), [(2, &places[4], false)], MS, now);
        let Look::Behind(mut marks) = lanes.look(now) else { panic!("a full look") };
        marks.sort_unstable_by_key(|(lane, _)| *lane);
        assert_eq!(marks, [(1, place(1)), (2, place(3))]);
        lanes.looked(&lanes.look(now), [(1, &places[2], true), (2, &places[4], true)], MS, now);
        let Look::Behind(mut marks) = lanes.look(now) else { panic!("a full look") };
        marks.sort_unstable_by_key(|(lane, _)| *lane);
        assert_eq!(marks, [(1, place(2)), (2, place(4))]);
    }

    #[test]
    fn full_looks_take_a_tenth_of_the_time_and_are_never_far_apart() {
        for (cost, pause) in [(MS, Duration::ZERO), (MS * 5, MS * 50), (MS * 20, MS * 200), (MS * 500, LONGEST)] {
            let (now, mut lanes) = (Instant::now(), Lanes::default());
            lanes.looked(&Look::Full, [(1, &place(1), true)], cost, now);
            assert_eq!(lanes.look(now + pause), Look::Full);
            if pause > Duration::ZERO {
                assert_ne!(lanes.look(now + pause - MS), Look::Full);
                lanes.looked(&lanes.look(now), [], MS, now);
                assert_eq!(lanes.full_due(), Some(now + pause));
                lanes.forget();
                assert_eq!(lanes.look(now), Look::Full);
            }
        }
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let (now, mut lanes) = (Instant::now(), Lanes::default());
        let seen: Vec<i64> = (0..i64::try_from(MAX_LANES).unwrap()).collect();
        let (here, there) = (place(1), place(2));
        lanes.looked(&Look::Full, seen.iter().map(|lane| (*lane, &here, true)), LONGEST, now);
        assert_ne!(lanes.look(now), Look::Full);
        lanes.looked(&Look::Full, [(-1, &there, true)], LONGEST, now);
        assert_eq!((lanes.look(now), lanes.marks.len()), (Look::Full, 0));
    }
}
