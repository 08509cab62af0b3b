//! What a lane is: the runs that one role has waiting of one tool. How lanes are served is `lanes`'s.

use sha2::{Digest, Sha256};

/// The lane of a run: its requesting role and its tool. The lanes of a role are neighbours: see [`of_role`].
pub fn of(requested_by: u32, code: &str) -> i64 {
    let digest = Sha256::digest(code.as_bytes());
    let low = u32::from_be_bytes(std::array::from_fn(|i| digest[i]));
    ((u64::from(requested_by) << 32) | u64::from(low)).cast_signed()
}

/// The role of a lane.
pub fn role(lane: i64) -> u32 {
    (lane.cast_unsigned() >> 32) as u32
}

/// The first and the last lane of a role.
pub fn of_role(role: u32) -> (i64, i64) {
    let first = u64::from(role) << 32;
    (first.cast_signed(), (first | u64::from(u32::MAX)).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_one_role_and_one_tool() {
        assert_eq!(of(10, "A"), of(10, "A"));
        assert_ne!(of(10, "A"), of(11, "A"));
        assert_ne!(of(10, "A"), of(10, "B"));
    }

    #[test]
    fn a_role_s_lanes_are_neighbours_and_no_other_s_are_between() {
        for id in [0, 10, 16_384, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX] {
            let (first, last) = of_role(id);
            assert!(first <= last);
            for code in ["A", "DOT-KG-017", ""] {
                assert!((first..=last).contains(&of(id, code)));
                assert!(!(first..=last).contains(&of(id ^ 1, code)));
                assert_eq!(role(of(id, code)), id);
            }
        }
    }
}
