//! Tests of `chain`: every change of a chain is seen.

use proptest::prelude::*;

use super::*;

fn seal(seal_id: i64, prev: Hash) -> Seal {
    Seal {
        seal_id,
        sealed_at: 1_700_000_000_000_000 + seal_id,
        process_run_id: Uuid::from_u128(1),
        run_id: Uuid::from_u128(2),
        event_ids: vec![seal_id * 2, seal_id * 2 + 1],
        attempts: vec![1],
        digests: vec![7; 4 * DIGEST],
        origins: "mm".into(),
        prev,
    }
}

fn chain(n: i64) -> Vec<Seal> {
    let mut prev = GENESIS;
    (1..=n)
        .map(|id| {
            let seal = seal(id, prev);
            prev = seal.hash();
            seal
        })
        .collect()
}

/// As they are stored, each with the hash that it was given.
fn stored(chain: &[Seal]) -> Vec<(Seal, Hash)> {
    chain.iter().map(|seal| (seal.clone(), seal.hash())).collect()
}

fn walk(chain: &[(Seal, Hash)]) -> (Vec<(i64, Break)>, Walk) {
    let mut walk = Walk::default();
    let mut breaks = Vec::new();
    for (seal, hash) in chain {
        let (prev, hash, computed) = (seal.prev.to_vec(), hash.to_vec(), seal.hash().to_vec());
        let link = Link { seal_id: seal.seal_id, run_id: seal.run_id, prev, hash, computed };
        breaks.extend(walk.step(&link).into_iter().map(|found| (seal.seal_id, found)));
    }
    (breaks, walk)
}

#[test]
fn a_chain_that_nobody_touched_holds() {
    let chain = chain(5);
    let (breaks, walk) = walk(&stored(&chain));
    assert_eq!(breaks, []);
    assert_eq!((walk.last(), walk.hash()), (5, chain[4].hash().as_slice()));
    assert_eq!(Walk::default().last(), 0);
}

#[test]
fn every_field_is_covered() {
    let one = seal(3, GENESIS);
    for changed in [
        Seal { seal_id: 4, ..one.clone() },
        Seal { sealed_at: 0, ..one.clone() },
        Seal { process_run_id: Uuid::nil(), ..one.clone() },
        Seal { run_id: Uuid::nil(), ..one.clone() },
        Seal { event_ids: vec![6], ..one.clone() },
        Seal { attempts: vec![], ..one.clone() },
        Seal { event_ids: vec![6, 7, 1], attempts: vec![], ..one.clone() },
        Seal { digests: vec![8; 4 * DIGEST], ..one.clone() },
        Seal { origins: "mu".into(), ..one.clone() },
        Seal { prev: [1; DIGEST], ..one.clone() },
    ] {
        assert_ne!(changed.hash(), one.hash(), "{changed:?}");
    }
    let head = Head { seal_id: 1, hash: GENESIS, low: 2, high: 3, since: 4, foreign_to: 5, key_id: vec![] };
    for changed in [
        Head { seal_id: 9, ..head.clone() },
        Head { hash: [1; DIGEST], ..head.clone() },
        Head { low: 9, ..head.clone() },
        Head { high: 9, ..head.clone() },
        Head { since: 9, ..head.clone() },
        Head { foreign_to: 9, ..head.clone() },
    ] {
        assert_ne!(changed.mark(b"key"), head.mark(b"key"), "{changed:?}");
    }
    assert_ne!(head.mark(b"key"), head.mark(b"kez"));
    assert_eq!(key_id(b"key"), key_id(b"key"));
    assert_ne!(key_id(b"key"), key_id(b"kez"));
}

#[test]
fn what_was_done_is_told() {
    let whole = stored(&chain(5));
    let mut removed = whole.clone();
    removed.drain(1..3);
    assert_eq!(walk(&removed).0, [(4, Break::Missing(2))]);
    let mut changed = whole.clone();
    changed[2].0.origins = "uu".into();
    assert_eq!(walk(&changed).0, [(3, Break::Changed)]);
    // With the right hash for the wrong content, the next one tells.
    changed[2].1 = changed[2].0.hash();
    assert_eq!(walk(&changed).0, [(4, Break::Loose)]);
    let mut inserted = whole[..1].to_vec();
    inserted.push((seal(0, GENESIS), seal(0, GENESIS).hash()));
    assert_eq!(walk(&inserted).0, [(0, Break::Loose)]);
}

proptest! {
    /// Whatever is changed in, taken from, or put into a chain, short of its end, or moved in it, it breaks.
    #[test]
    fn any_change_breaks_it(n in 2_i64..12, at: prop::sample::Index, other: prop::sample::Index, how in 0_u8..4) {
        let mut chain = stored(&chain(n));
        let (at, other) = (at.index(chain.len() - 1), other.index(chain.len()));
        match how {
            0 => { chain.remove(at); }
            1 => { chain[at].0.digests[0] ^= 1; }
            2 => {
                prop_assume!(at != other);
                let (a, b) = (chain[at].0.seal_id, chain[other].0.seal_id);
                (chain[at].0.seal_id, chain[other].0.seal_id) = (b, a);
                chain.sort_by_key(|(seal, _)| seal.seal_id);
            }
            _ => { let copy = chain[at].clone(); chain.insert(at, copy); }
        }
        prop_assert!(!walk(&chain).0.is_empty());
    }
}
