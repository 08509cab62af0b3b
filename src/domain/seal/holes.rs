//! Event numbers that are not to be seen yet, although higher ones are: who drew them may still commit, or has rolled
//! back. The sealing goes past them and comes back to those that may turn up.
//!
//! A transaction has its id before it draws a number for an event. So a number that is missing in a snapshot while a
//! higher one is to be seen was drawn by a transaction that was running when the snapshot was taken, or by one that has
//! rolled back. Once all that were running have ended, what has not turned up never will. Prepared transactions count as
//! running.

use std::collections::BTreeSet;

/// A snapshot of the server, as `pg_current_snapshot()` spells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    running: BTreeSet<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip,…`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, _xmax, running) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u64>().ok()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
        parts.next().is_none().then_some(())?;
        Some(Snapshot { xmin, running: running.collect::<Option<_>>()? })
    }

    fn is_running(&self, xid: u64) -> bool {
        xid >= self.xmin && self.running.contains(&xid)
    }
}

/// A range of numbers, both ends included.
pub type Range = (i64, i64);

/// Numbers that the same transactions may still commit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    waits_for: BTreeSet<u64>,
    ranges: Vec<Range>,
    /// Has never been looked at since it was noted.
    fresh: bool,
}

/// All numbers below the highest one sealed that are not sealed and may turn up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes(Vec<Group>);

impl Holes {
    /// After a restart: what is missing in `(low, high]` beside the sealed numbers. Looked at with the next snapshot,
    /// whatever has ended meanwhile. `sealed` in any order.
    pub fn rebuilt(low: i64, high: i64, mut sealed: Vec<i64>, snapshot: &Snapshot) -> Holes {
        sealed.sort_unstable();
        let ranges = missing(low, high, &sealed);
        let group = Group { waits_for: snapshot.running.clone(), ranges, fresh: true };
        Holes(Some(group).filter(|group| !group.ranges.is_empty()).into_iter().collect())
    }

    /// Notes what is missing in `(from, to]` beside the numbers that the snapshot shows, which are in order.
    pub fn note(&mut self, from: i64, to: i64, seen: &[i64], snapshot: &Snapshot) {
        let ranges = missing(from, to, seen);
        self.add(Group { waits_for: snapshot.running.clone(), ranges, fresh: false });
    }

    /// The ranges to look at with this very snapshot: where somebody has ended since the last look.
    pub fn due(&self, snapshot: &Snapshot) -> Vec<Range> {
        let due = self.0.iter().filter(|group| group.is_due(snapshot));
        due.flat_map(|group| group.ranges.iter().copied()).collect()
    }

    /// Takes note of what the look at [`Holes::due`] found, in order. `all` is false when there may be more.
    pub fn looked(&mut self, snapshot: &Snapshot, found: &[i64], all: bool) {
        for mut group in std::mem::take(&mut self.0) {
            if group.is_due(snapshot) {
                group.ranges = group.ranges.iter().flat_map(|range| without(*range, found)).collect();
                if all {
                    group.fresh = false;
                    group.waits_for.retain(|xid| snapshot.is_running(*xid));
                }
            }
            self.add(group);
        }
    }

    /// The number up to which everything is sealed that ever will be; `high` is the highest one that was looked at.
    pub fn low(&self, high: i64) -> i64 {
        self.0.iter().flat_map(|group| &group.ranges).map(|(first, _)| first - 1).min().unwrap_or(high)
    }

    /// Groups that nobody can fill any more go; those that wait for the same become one.
    fn add(&mut self, group: Group) {
        if group.ranges.is_empty() || (group.waits_for.is_empty() && !group.fresh) {
            return;
        }
        match self.0.iter_mut().find(|other| other.waits_for == group.waits_for && other.fresh == group.fresh) {
            Some(other) => other.ranges.extend(group.ranges),
            None => self.0.push(group),
        }
    }
}

impl Group {
    fn is_due(&self, snapshot: &Snapshot) -> bool {
        self.fresh || self.waits_for.iter().any(|xid| !snapshot.is_running(*xid))
    }
}

/// What is missing in `(from, to]`; `seen` is in order and may reach beyond.
fn missing(from: i64, to: i64, seen: &[i64]) -> Vec<Range> {
    if to <= from { Vec::new() } else { without((from + 1, to), seen) }
}

/// The parts of a range that are left without these numbers, which are in order.
fn without((first, last): Range, found: &[i64]) -> Vec<Range> {
    let inside = &found[found.partition_point(|n| *n < first)..found.partition_point(|n| *n <= last)];
    let starts = std::iter::once(first).chain(inside.iter().map(|n| n + 1));
    let ends = inside.iter().map(|n| n - 1).chain(std::iter::once(last));
    starts.zip(ends).filter(|(first, last)| first <= last).collect()
}

#[cfg(test)]
#[path = "holes_tests.rs"]
mod tests;
