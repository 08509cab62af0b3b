//! Runs that wait for their key (`max_in_flight_per_key`): remembered by the worker, so that nobody looks at them again and
//! again while others go by. In the queue they sleep for a while, in case that they are forgotten.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::lanes::Spot;

/// How long a parked run sleeps at least, unless it is taken before.
const SLEEP: Duration = Duration::from_secs(30);
/// And once more for so long, if it wakes and its key is still busy.
pub const AGAIN: Duration = Duration::from_secs(60);
/// The longer the line, the longer the sleep: once more for so many ...
const SLEEP_PER: usize = 500;
/// ... up to so many times.
const LONGEST: usize = 10;
/// More are not remembered, and are looked at when they wake.
const MOST: usize = 20_000;

#[derive(Debug, Default)]
struct Line {
    limit: usize,
    spots: VecDeque<Spot>,
}

/// All that are remembered.
#[derive(Debug, Default)]
pub struct Parking {
    lines: HashMap<String, Line>,
    ids: HashSet<Uuid>,
}

impl Parking {
    /// How long the next run of this key may sleep in the queue.
    pub fn sleep(&self, key: &str) -> Duration {
        let line = self.lines.get(key).map_or(0, |line| line.spots.len());
        SLEEP * u32::try_from((1 + line / SLEEP_PER).min(LONGEST)).unwrap_or(1)
    }

    /// Remembers a run that its key holds up.
    pub fn park(&mut self, key: &str, limit: i64, spot: &Spot) {
        let line = self.lines.entry(key.to_owned()).or_default();
        line.limit = usize::try_from(limit).unwrap_or(1).max(1);
        if self.ids.len() < MOST && self.ids.insert(spot.run_id) {
            // From now on it is one that has waited for a time.
            let at = spot.at.clone().or_else(|| Some(String::new()));
            line.spots.push_back(Spot { at, is_late: false, is_full: false, has_more: false, ..spot.clone() });
        }
    }

    /// Those for which there is room, given how many calls of a key are out: the oldest of each line. They stay parked.
    pub fn ready(&self, out: impl Fn(&str) -> usize) -> Vec<Spot> {
        let ready = |(key, line): (&String, &Line)| {
            let room = line.limit.saturating_sub(out(key));
            line.spots.iter().take(room).cloned().collect::<Vec<_>>()
        };
        self.lines.iter().flat_map(ready).collect()
    }

    /// These are not waiting any more.
    pub fn forget(&mut self, run_ids: &HashSet<Uuid>) {
        if self.ids.is_disjoint(run_ids) {
            return;
        }
        self.ids.retain(|run_id| !run_ids.contains(run_id));
        for line in self.lines.values_mut() {
            line.spots.retain(|spot| !run_ids.contains(&spot.run_id));
        }
        self.lines.retain(|_, line| !line.spots.is_empty());
    }

    /// True when that run is remembered.
    pub fn has(&self, run_id: Uuid) -> bool {
        self.ids.contains(&run_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(n: u128) -> Spot {
        Spot {
            run_id: Uuid::from_u128(n),
            lane: 1,
            code: "T".into(),
            endpoint: "a".into(),
            at: None,
            seq: 1,
            crashes: 0,
            is_full: false,
            is_late: false,
            has_more: true,
        }
    }

    #[test]
    fn a_line_gives_its_oldest_as_there_is_room() {
        let mut parking = Parking::default();
        for n in 0..5 {
            parking.park("k", 2, &spot(n));
        }
        parking.park("l", 1, &spot(9));
        parking.park("k", 2, &spot(0));
        let ready = |parking: &Parking, k, l| {
            let found = parking.ready(|key| if key == "k" { k } else { l });
            let mut ids: Vec<u128> = found.iter().map(|spot| spot.run_id.as_u128()).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ready(&parking, 2, 1), Vec::<u128>::new());
        assert_eq!(ready(&parking, 1, 0), [0, 9]);
        assert_eq!(ready(&parking, 0, 1), [0, 1]);
        assert!(parking.has(Uuid::from_u128(0)) && !parking.has(Uuid::from_u128(7)));
        parking.forget(&[spot(0).run_id, spot(9).run_id, spot(7).run_id].into());
        assert_eq!(ready(&parking, 0, 0), [1, 2]);
        assert!(!parking.has(Uuid::from_u128(0)));
    }

    #[test]
    fn a_long_line_sleeps_longer_and_is_not_remembered_without_end() {
        let mut parking = Parking::default();
        let mut last = Duration::ZERO;
        for n in 0..30_000 {
            let sleep = parking.sleep("k");
            assert!(sleep >= SLEEP.max(last));
            last = sleep;
            parking.park("k", 1, &spot(n));
        }
        assert_eq!((last, parking.sleep("l")), (SLEEP * 10, SLEEP));
        assert_eq!(parking.ids.len(), MOST);
    }
}
