//! The chain: what a seal says, its hash, and whether the seals that are there follow on each other.
//!
//! A seal is the SHA-256 of the seal before it and of its own text; the newest one therefore speaks for all. The head is
//! a second record of the newest one, with a mark under the permits' key.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::super::canonical::{hex, write_hex};
use super::super::keyed;

/// Bytes of a digest.
pub const DIGEST: usize = 32;

/// A digest.
pub type Hash = [u8; DIGEST];

/// What comes before the first seal.
pub const GENESIS: Hash = [0; DIGEST];

/// Whether an event had the mark of this database when it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It came through this code.
    Marked,
    /// It did not.
    Unmarked,
    /// It was there before the key was: restored, and not sealed where it came from.
    Foreign,
}

impl Origin {
    /// As it is written in a seal.
    pub fn as_char(self) -> char {
        match self {
            Origin::Marked => 'm',
            Origin::Unmarked => 'u',
            Origin::Foreign => 'f',
        }
    }
}

/// One run's rows of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its place in the chain, from 1, without gaps.
    pub seal_id: i64,
    /// When, in microseconds since 1970, UTC.
    pub sealed_at: i64,
    /// The process run.
    pub process_run_id: Uuid,
    /// The run.
    pub run_id: Uuid,
    /// The events that it covers, ascending.
    pub event_ids: Vec<i64>,
    /// The attempts that it covers, ascending.
    pub attempts: Vec<i32>,
    /// Digests, one after the other: the run's state, each event, each attempt, and what was requested, if the run's
    /// first event is covered.
    pub digests: Vec<u8>,
    /// An [`Origin`] for each event.
    pub origins: String,
    /// The hash of the seal before it.
    pub prev: Hash,
}

impl Seal {
    /// Its hash. `store::verify` computes the same in SQL.
    pub fn hash(&self) -> Hash {
        let mut text = String::with_capacity(256 + 2 * self.digests.len());
        // Writing to a text cannot fail.
        let _ = write!(text, "seal 1\n{}\n{}\n", self.seal_id, self.sealed_at);
        let _ = write!(text, "{}\n{}\n", self.process_run_id.as_hyphenated(), self.run_id.as_hyphenated());
        write_list(&self.event_ids, &mut text);
        write_list(&self.attempts, &mut text);
        write_hex(&self.digests, &mut text);
        text.push('\n');
        text.push_str(&self.origins);
        Sha256::new().chain_update(self.prev).chain_update(text).finalize().into()
    }
}

fn write_list(numbers: &[impl std::fmt::Display], out: &mut String) {
    for (i, number) in numbers.iter().enumerate() {
        let _ = write!(out, "{}{number}", if i > 0 { "," } else { "" });
    }
    out.push('\n');
}

/// The newest seal, and how far the sealing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The newest seal; 0 for none.
    pub seal_id: i64,
    /// Its hash.
    pub hash: Hash,
    /// Every event up to this one that ever will be is sealed.
    pub low: i64,
    /// The highest event that was looked at.
    pub high: i64,
    /// Seals up to this one cover no event above `low`.
    pub since: i64,
    /// Events up to this one may have come with a restore, and so without a mark of this database.
    pub foreign_to: i64,
    /// Which key: see [`key_id`].
    pub key_id: Vec<u8>,
}

impl Head {
    /// Before anything is sealed, under whatever key.
    pub fn genesis() -> Head {
        Head { seal_id: 0, hash: GENESIS, low: 0, high: 0, since: 0, foreign_to: 0, key_id: Vec::new() }
    }

    /// Its mark under the permits' key.
    pub fn mark(&self, key: &[u8]) -> [u8; 16] {
        let numbers = [self.seal_id, self.low, self.high, self.since, self.foreign_to].map(|n| n.to_string());
        first(key, &format!("head 1\n{}\n{}", hex(&self.hash), numbers.join("\n")))
    }
}

/// Tells keys apart without telling them.
pub fn key_id(key: &[u8]) -> Vec<u8> {
    first(key, "key 1")[..8].to_vec()
}

fn first(key: &[u8], text: &str) -> [u8; 16] {
    let whole = keyed::digest(key, &[text.as_bytes()]);
    std::array::from_fn(|i| whole[i])
}

/// One seal as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub seal_id: i64,
    /// The run that it is about.
    pub run_id: Uuid,
    /// The hash that it gives for the one before it.
    pub prev: Vec<u8>,
    /// The hash that it gives for itself.
    pub hash: Vec<u8>,
    /// The hash that it has.
    pub computed: Vec<u8>,
}

/// What is wrong with a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Seals from this one to the one before the link are missing.
    Missing(i64),
    /// It is not what it was.
    Changed,
    /// It does not follow on the one before it.
    Loose,
}

/// A walk along the chain.
#[derive(Clone, Debug)]
pub struct Walk {
    next: i64,
    hash: Vec<u8>,
}

impl Default for Walk {
    fn default() -> Self {
        Walk { next: 1, hash: GENESIS.to_vec() }
    }
}

impl Walk {
    /// Looks at the next seal that is there.
    pub fn step(&mut self, link: &Link) -> Vec<Break> {
        let mut breaks = Vec::new();
        if link.seal_id > self.next {
            breaks.push(Break::Missing(self.next));
        } else if link.prev != self.hash || link.seal_id < self.next {
            breaks.push(Break::Loose);
        }
        if link.computed != link.hash {
            breaks.push(Break::Changed);
        }
        self.next = link.seal_id.saturating_add(1);
        self.hash.clone_from(&link.hash);
        breaks
    }

    /// The newest seal so far; 0 for none.
    pub fn last(&self) -> i64 {
        self.next - 1
    }

    /// Its hash.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
