//! Lanes: runs are taken from the queue lane by lane in turn, so that a flood of one tool, or of one role, holds up nobody
//! else. What a lane is, is decided here; the turns are `store::queue`'s.

use sha2::{Digest, Sha256};

/// The lane of a run: its requesting role and its tool.
pub fn of(requested_by: u32, code: &str) -> i64 {
    let digest = Sha256::new().chain_update(requested_by.to_be_bytes()).chain_update(code.as_bytes()).finalize();
    i64::from_be_bytes(std::array::from_fn(|i| digest[i]))
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
}
