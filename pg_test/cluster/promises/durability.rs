//! D1 to D3, D6, A5, N6: what is on disk before what leaves, and what comes back.

mod crashes;
mod dumps;
mod late_commits;
mod transactions;
mod versions;
mod waiting;

/// Small numbers that look random and are the same each time: xorshift.
pub(super) struct Dice(u64);

impl Dice {
    /// Never zero.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// From 0 to `sides` - 1.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}
