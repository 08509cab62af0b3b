//! Marks and turns.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn spot(lane: i64, seq: i64) -> Spot {
    Spot {
        run_id: Uuid::from_u128(u128::from(seq.unsigned_abs())),
        lane,
        code: format!("T{lane}"),
        endpoint: "a".into(),
        at: None,
        seq,
        crashes: 0,
        is_full: false,
        is_late: false,
        has_more: false,
    }
}

fn timed(lane: i64, seq: i64) -> Spot {
    Spot { at: Some("2026-11-22 10:00:00+00".into()), ..spot(lane, seq) }
}

fn behind(lanes: &Lanes, now: Instant) -> BTreeMap<i64, Mark> {
    match lanes.look(&Full::default(), now) {
        Look::Behind(marks) => marks.into_iter().collect(),
        Look::Full => panic!("a full look"),
    }
}

fn mark(seq: i64) -> Mark {
    Mark { seq, timed: None }
}

#[test]
fn a_mark_stops_before_the_first_run_that_stays() {
    let (now, mut lanes) = (Instant::now(), Lanes::default());
    assert_eq!(lanes.look(&Full::default(), now), Look::Full);
    let seen = [(spot(1, 5), true), (spot(1, 6), true), (spot(1, 7), false), (spot(1, 8), true)];
    lanes.looked(&Look::Full, &seen, None, MS * 40, now);
    assert_eq!(lanes.full_due(), None);
    assert_eq!(behind(&lanes, now), [(1, mark(6))].into());
    // A lane that has given nothing keeps its mark; one whose first run stays is looked at from there on.
    let look = lanes.look(&Full::default(), now);
    lanes.looked(&look, &[(spot(2, 9), false)], None, MS, now);
    assert_eq!(behind(&lanes, now), [(1, mark(6)), (2, mark(8))].into());
    // What waited for a time has a mark of its own: a new run's place is before all times.
    lanes.looked(&look, &[(spot(1, 7), true), (timed(1, 3), true), (timed(1, 4), false)], None, MS, now);
    let both = Mark { seq: 7, timed: timed(1, 3).at.map(|at| (at, 3)) };
    assert_eq!(behind(&lanes, now), [(1, both), (2, mark(8))].into());
    let full = Full { codes: vec!["T1".into()], ..Full::default() };
    assert_eq!(lanes.look(&full, now), Look::Behind(vec![(2, mark(8))]));
}

#[test]
fn full_looks_take_a_tenth_of_the_time_and_are_never_far_apart() {
    let none = Full::default();
    for (cost, pause) in [(MS, Duration::ZERO), (MS * 5, MS * 50), (MS * 20, MS * 200), (MS * 500, LONGEST)] {
        let (now, mut lanes) = (Instant::now(), Lanes::default());
        lanes.looked(&Look::Full, &[(spot(1, 1), true)], None, cost, now);
        assert_eq!(lanes.look(&none, now + pause), Look::Full);
        if pause > Duration::ZERO {
            let look = lanes.look(&none, now + pause - MS);
            assert_ne!(look, Look::Full);
            lanes.looked(&look, &[], None, MS, now);
            assert_eq!(lanes.full_due(), Some(now + pause));
            lanes.forget();
            assert_eq!(lanes.look(&none, now), Look::Full);
        }
    }
}

#[test]
fn what_is_kept_in_mind_is_bounded() {
    let (now, mut lanes) = (Instant::now(), Lanes::default());
    let many: Vec<(Spot, bool)> = (0..i64::try_from(MAX_LANES).unwrap()).map(|lane| (spot(lane, 1), true)).collect();
    lanes.looked(&Look::Full, &many, None, LONGEST, now);
    assert_ne!(lanes.look(&Full::default(), now), Look::Full);
    lanes.looked(&Look::Full, &[(spot(-1, 1), true)], None, LONGEST, now);
    assert_eq!((lanes.look(&Full::default(), now), lanes.lanes.len()), (Look::Full, 0));
}

fn lane_of(role: i64, tool: i64) -> i64 {
    (role << 32) | tool
}

#[test]
fn roles_have_their_turn_and_a_role_s_tools_too() {
    let flood = (0..6).map(|n| spot(lane_of(1, n % 3), n));
    let mut spots: Vec<Spot> = flood.chain([spot(lane_of(2, 0), 100), spot(lane_of(2, 0), 101)]).collect();
    spots.sort_by_key(|spot| (spot.lane, spot.seq));
    let order = |lanes: &Lanes| -> Vec<i64> { lanes.turns(&spots).into_iter().map(|i| spots[i].seq).collect() };
    let mut lanes = Lanes::default();
    assert_eq!(order(&lanes), [0, 100, 1, 101, 2, 3, 4, 5]);
    // Who came last is behind the others next time.
    lanes.looked(&Look::Full, &[], Some(lane_of(1, 0)), MS, Instant::now());
    assert_eq!(order(&lanes), [100, 1, 101, 2, 0, 4, 5, 3]);
    let mixed = [spot(7, 1), spot(7, 2), timed(7, 3), timed(7, 4)];
    assert_eq!(lanes.turns(&mixed), [2, 0, 3, 1]);
}

proptest! {
    /// Everybody has exactly one place; lanes keep their order; and of the first n places each of r roles has at least
    /// n / r, as long as it has something.
    #[test]
    fn turns_are_fair(counts in proptest::collection::vec((1i64..5, 0i64..4, 1usize..30), 1..12)) {
        let mut spots = Vec::new();
        for (role, tool, count) in counts {
            for _ in 0..count {
                spots.push(spot(lane_of(role, tool), i64::try_from(spots.len()).unwrap()));
            }
        }
        spots.sort_by_key(|spot| (spot.lane, spot.seq));
        let order = Lanes::default().turns(&spots);
        prop_assert_eq!(order.iter().collect::<HashSet<_>>().len(), spots.len());
        prop_assert_eq!(order.len(), spots.len());
        let mut last: HashMap<i64, i64> = HashMap::new();
        for index in &order {
            let spot = &spots[*index];
            prop_assert!(last.insert(spot.lane, spot.seq).is_none_or(|before| before < spot.seq));
        }
        let roles: HashSet<u32> = spots.iter().map(|spot| lane::role(spot.lane)).collect();
        for role in &roles {
            let all = spots.iter().filter(|spot| lane::role(spot.lane) == *role).count();
            let mut had = 0;
            for (n, index) in order.iter().enumerate() {
                had += usize::from(lane::role(spots[*index].lane) == *role);
                prop_assert!(had >= ((n + 1) / roles.len()).min(all));
            }
        }
    }
}
