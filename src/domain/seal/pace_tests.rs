//! Tests of `pace`: the share is bounded, and so is the wait.

use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn without_other_work_one_batch_follows_the_other() {
    let start = Instant::now();
    let mut pace = Pace::default();
    assert_eq!((pace.due(false), pace.due(true)), (None, None));
    pace.notice(start);
    pace.notice(start + ms(500));
    assert_eq!(pace.due(false), Some(start + AFTER));
    assert!(!pace.is_due(start + ms(999), false) && pace.is_due(start + AFTER, false));
    pace.end(start + ms(1000), start + ms(1020), true);
    assert!(pace.is_due(start + ms(1020), false));
    pace.end(start + ms(1020), start + ms(1030), false);
    assert_eq!(pace.due(false), None);
    pace.hurry(start + ms(1040));
    assert_eq!(pace.due(false), Some(start + ms(1040)));
}

#[test]
fn a_batch_that_takes_long_is_made_smaller() {
    let start = Instant::now();
    let mut pace = Pace::default();
    let mut sizes = vec![pace.size()];
    for (took, more) in [(5, true), (5, true), (5, true), (5, false), (30, true), (90, true), (61, false), (61, true)] {
        pace.end(start, start + ms(took), more);
        sizes.push(pace.size());
    }
    assert_eq!(sizes, [500, 1000, 2000, 2000, 2000, 2000, 1000, 500, 250]);
    for _ in 0..9 {
        pace.end(start, start + ms(1000), true);
    }
    assert_eq!(pace.size(), LEAST);
}

/// A worker that never rests: each of its turns is other work, and then a batch if one is due. Time in microseconds.
struct World {
    pace: Pace,
    start: Instant,
    now: Duration,
    /// When each event that is not sealed was written.
    open: std::collections::VecDeque<Duration>,
    spent: Duration,
    longest: Duration,
}

impl World {
    fn turn(&mut self, work: Duration, written: usize, cost: Duration) {
        for n in 0..written {
            self.open.push_back(self.now + work * n as u32 / written as u32);
        }
        self.now += work;
        if written > 0 {
            self.pace.notice(self.start + self.now);
        }
        if self.pace.is_due(self.start + self.now, true) {
            let (began, size) = (self.now, self.pace.size() as usize);
            let batch = self.open.drain(..size.min(self.open.len())).collect::<Vec<_>>();
            self.now += ms(1) + cost * batch.len() as u32;
            self.spent += self.now - began;
            let longest = batch.iter().map(|written| self.now - *written).max().unwrap_or_default();
            self.longest = self.longest.max(longest);
            self.pace.end(self.start + began, self.start + self.now, batch.len() == size);
        }
    }
}

fn world() -> World {
    let zero = Duration::ZERO;
    World { pace: Pace::default(), start: Instant::now(), now: zero, open: [].into(), spent: zero, longest: zero }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// However much comes in, a tenth of the time and one batch until something has waited long.
    #[test]
    fn the_share_is_bounded(work in 8_u64..40, written in 0_usize..400, cost in 1_u64..60) {
        let mut world = world();
        while world.now < PATIENCE {
            world.turn(ms(work), written, Duration::from_micros(cost));
            // A batch that has just ended has its pause still before it.
            let batch = ms(1) + Duration::from_micros(cost) * MOST as u32;
            prop_assert!(world.spent <= world.now / 10 + batch, "{:?} of {:?}", world.spent, world.now);
        }
    }

    /// Where a full turn seals as much as comes in, nothing waits longer than is promised, whatever the share leaves behind.
    #[test]
    fn the_wait_is_bounded(work in 8_u64..40, busy in 1_u64..60, cost in 1_u64..12, seconds in 30_u64..70) {
        // At the worst so much in a turn that batches of the usual size, one in each, just keep up.
        let written = (FIRST as usize).min((work * 1000 / cost) as usize) * busy as usize / 60;
        let mut world = world();
        while world.now < Duration::from_secs(seconds) {
            world.turn(ms(work), written, Duration::from_micros(cost));
        }
        prop_assert!(world.longest <= LONGEST, "{:?}", world.longest);
        let open = world.open.front().map_or(Duration::ZERO, |written| world.now - *written);
        prop_assert!(open <= LONGEST, "{open:?}");
    }
}
