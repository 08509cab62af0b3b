//! What the second gates of one claim come to, run by run. Does not live here: asking them (`second_gate`), and acting on it
//! (`claim`).

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::pick::Parked;
use super::second_gate::Passing;
use crate::domain::order::Order;
use crate::domain::policy::Policy;
use crate::store::candidate::QueuedRun;
use crate::store::queue::Start;
use crate::store::transition::Move;

/// What the second gates came to.
#[derive(Default)]
pub(super) struct Batch {
    /// Their lease is still to be asked for.
    pub(super) passing: Vec<Passing>,
    /// To be sent.
    pub(super) starts: Vec<Start>,
    /// Not to be sent.
    pub(super) drops: Vec<Move>,
    /// To be asked about again in a moment.
    pub(super) postponed: Vec<Uuid>,
    /// To be taken once there is room, by the look of it.
    pub(super) held: HashSet<Uuid>,
    /// To be taken once there is room for its key.
    pub(super) parked: Vec<Parked>,
    /// What is to be sent.
    pub(super) passed: HashMap<Uuid, (QueuedRun, Policy, Order)>,
}
