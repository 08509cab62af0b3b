//! Tests of `holes`: a model of transactions that draw numbers and end in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn snapshot(text: &str) -> Snapshot {
    Snapshot::parse(text).unwrap()
}

#[test]
fn snapshots_read_as_postgresql_writes_them() {
    assert_eq!(snapshot("10:20:10,15"), Snapshot { xmin: 10, running: [10, 15].into() });
    assert_eq!(snapshot("4294967300:4294967300:").running, BTreeSet::new());
    for wrong in ["", "1:2", "1:2:x", "1:2:3:4", "a:2:"] {
        assert_eq!(Snapshot::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_left_of_a_range() {
    let left = without;
    assert_eq!(left((1, 9), &[]), [(1, 9)]);
    assert_eq!(left((1, 9), &[0, 1, 5, 9, 10]), [(2, 4), (6, 8)]);
    assert_eq!(left((4, 4), &[4]), []);
    assert_eq!(missing(4, 4, &[]), []);
}

/// Somebody who runs for a day does not make every look cost more: his numbers are looked at when he ends.
#[test]
fn numbers_of_a_transaction_that_goes_on_are_left_alone() {
    let mut holes = Holes::default();
    for n in 0..1000_i64 {
        let now = snapshot(&format!("5:{}:5,{}", 20 + n, 10 + n));
        // The look of before: only the transaction that has ended is done with.
        let due = holes.due(&now);
        assert_eq!(due.len(), usize::from(n > 0), "{n}");
        holes.looked(&now, &[], true);
        holes.note(2 * n, 2 * n + 2, &[2 * n + 2], &now);
    }
    assert!(holes.0.len() <= 2, "{}", holes.0.len());
    assert_eq!(holes.low(2000), 0);
    let over = snapshot("2000:2000:");
    assert_eq!(holes.due(&over).len(), 1000);
    holes.looked(&over, &[1, 3], true);
    assert_eq!((holes.low(2000), holes), (2000, Holes::default()));
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Begin,
    Draw(usize),
    Commit(usize),
    RollBack(usize),
    Seal { limit: usize },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(
        prop_oneof![
            2 => Just(Act::Begin),
            6 => any::<prop::sample::Index>().prop_map(|i| Act::Draw(i.index(8))),
            3 => any::<prop::sample::Index>().prop_map(|i| Act::Commit(i.index(8))),
            1 => any::<prop::sample::Index>().prop_map(|i| Act::RollBack(i.index(8))),
            4 => (1_usize..6).prop_map(|limit| Act::Seal { limit }),
            1 => Just(Act::Restart),
        ],
        0..200,
    )
}

/// A server, and the sealing of it.
#[derive(Default)]
struct Model {
    next_xid: u64,
    next_number: i64,
    /// Running: what each has drawn.
    open: BTreeMap<u64, Vec<i64>>,
    /// Committed and to be seen.
    visible: BTreeSet<i64>,
    sealed: Vec<i64>,
    holes: Holes,
    high: i64,
    /// What was known at the last commit of the sealing, for a restart.
    low: i64,
}

impl Model {
    fn nth(&self, n: usize) -> Option<u64> {
        self.open.keys().nth(n % self.open.len().max(1)).copied()
    }

    fn snapshot(&self) -> Snapshot {
        let xmin = self.open.keys().next().copied().unwrap_or(self.next_xid);
        let running: Vec<_> = self.open.keys().map(u64::to_string).collect();
        snapshot(&format!("{xmin}:{}:{}", self.next_xid, running.join(",")))
    }

    fn seal(&mut self, limit: usize) {
        let now = self.snapshot();
        let due = self.holes.due(&now);
        let inside = |n: &i64| due.iter().any(|(first, last)| first <= n && n <= last);
        let found: Vec<i64> = self.visible.iter().copied().filter(inside).take(limit).collect();
        self.holes.looked(&now, &found, found.len() < limit);
        let fresh: Vec<i64> = self.visible.range(self.high + 1..).copied().take(limit - found.len()).collect();
        if let Some(last) = fresh.last() {
            self.holes.note(self.high, *last, &fresh, &now);
            self.high = *last;
        }
        self.sealed.extend(found.iter().chain(&fresh));
        self.low = self.holes.low(self.high);
    }
}

proptest! {
    /// Every number is sealed once, in whatever order its transactions end, however small the batches are and however
    /// often the sealing starts anew; and nothing is remembered when nothing is left.
    #[test]
    fn nothing_is_lost_and_nothing_is_sealed_twice(acts in acts()) {
        let mut model = Model { next_xid: 3, ..Model::default() };
        for act in acts {
            match act {
                Act::Begin => {
                    model.open.insert(model.next_xid, Vec::new());
                    model.next_xid += 1;
                }
                Act::Draw(n) => if let Some(xid) = model.nth(n) {
                    model.next_number += 1;
                    model.open.entry(xid).or_default().push(model.next_number);
                },
                Act::Commit(n) => if let Some(xid) = model.nth(n) {
                    model.visible.extend(model.open.remove(&xid).unwrap_or_default());
                },
                Act::RollBack(n) => if let Some(xid) = model.nth(n) {
                    model.open.remove(&xid);
                },
                Act::Seal { limit } => model.seal(limit),
                Act::Restart => {
                    let sealed = model.sealed.clone();
                    model.holes = Holes::rebuilt(model.low, model.high, sealed, &model.snapshot());
                }
            }
            let open: Vec<i64> = model.visible.iter().copied().filter(|n| *n <= model.low).collect();
            prop_assert!(open.iter().all(|n| model.sealed.contains(n)), "sealed up to {}", model.low);
        }
        model.open.clear();
        for _ in 0..300 {
            model.seal(5);
        }
        let mut sealed = model.sealed.clone();
        sealed.sort_unstable();
        prop_assert_eq!(sealed, model.visible.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(model.holes, Holes::default());
    }
}
