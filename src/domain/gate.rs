//! Gates: the checks that may refuse a run, their verdicts, and how a list of verdicts is summed up.
//! What each gate looks at is decided by its caller in `run`; this is the vocabulary and the arithmetic.

use serde::Serialize;
use serde_json::Value;

/// The gates, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The run came through `fn_dot_run` in this very database (second gate only).
    Permit,
    /// Nobody has asked to cancel the run (second gate only).
    Cancel,
    /// The requesting role still exists and may still call `fn_dot_run` (second gate only).
    Requester,
    /// The run has not waited past its start-by or finish-by time, nor past its key's window (second gate only).
    Deadline,
    /// The tool is catalogued, once, and active.
    Tool,
    /// The tool declares the mode.
    Mode,
    /// The engine is supported, has an endpoint, and the request can be formed.
    Engine,
    /// An egress rule allows the target.
    Egress,
    /// The program is below an allowed root, and only trusted users can change it (scripts only).
    Program,
    /// No other run of the tool is in the way of one that gives way (schedules; only when there is one).
    Overlap,
    /// There is room in the queue (only when there is none).
    Queue,
    /// The endpoint's circuit breaker lets runs through (a warning, never a refusal).
    Breaker,
    /// The master toggle is on.
    Toggle,
    /// The database's own safety guard does not block.
    Guard,
    /// Nobody else holds the lease.
    Lease,
    /// A worker is there to send it (a warning, never a refusal).
    Worker,
}

impl Gate {
    /// The gate's name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Gate::Permit => "permit",
            Gate::Cancel => "cancel",
            Gate::Requester => "requester",
            Gate::Deadline => "deadline",
            Gate::Tool => "tool",
            Gate::Mode => "mode",
            Gate::Engine => "engine",
            Gate::Egress => "egress",
            Gate::Program => "program",
            Gate::Overlap => "overlap",
            Gate::Queue => "queue",
            Gate::Breaker => "breaker",
            Gate::Toggle => "toggle",
            Gate::Guard => "guard",
            Gate::Lease => "lease",
            Gate::Worker => "worker",
        }
    }

    /// True when a BLOCK means that the request cannot even be formed, so that a plan is refused as well.
    pub fn blocks_plan(self) -> bool {
        matches!(self, Gate::Tool | Gate::Engine)
    }
}

/// What a gate says; the words are those of the substrate's guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Go on.
    Ok,
    /// Go on, and tell.
    Warn,
    /// Stop.
    Block,
}

impl Verdict {
    /// As the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Warn => "WARN",
            Verdict::Block => "BLOCK",
        }
    }
}

/// One gate's decision, as it is kept in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Which gate.
    pub gate: Gate,
    /// What it said.
    pub verdict: Verdict,
    /// Why, for machines: lower case with underscores.
    pub reason: String,
    /// Why, for people: one line.
    pub message: String,
    /// What the gate looked at. Never a secret.
    pub inputs: Value,
}

impl Decision {
    /// A decision of OK.
    pub fn ok(gate: Gate, message: impl Into<String>, inputs: Value) -> Self {
        Decision { gate, verdict: Verdict::Ok, reason: "ok".into(), message: message.into(), inputs }
    }

    /// A decision of WARN.
    pub fn warn(gate: Gate, reason: &str, message: impl Into<String>, inputs: Value) -> Self {
        Decision { gate, verdict: Verdict::Warn, reason: reason.into(), message: message.into(), inputs }
    }

    /// A decision of BLOCK.
    pub fn block(gate: Gate, reason: &str, message: impl Into<String>, inputs: Value) -> Self {
        Decision { gate, verdict: Verdict::Block, reason: reason.into(), message: message.into(), inputs }
    }

    /// True for BLOCK.
    pub fn blocks(&self) -> bool {
        self.verdict == Verdict::Block
    }

    /// True for a BLOCK that says "not now": somebody's lock was in the way of the substrate's answer (55P03).
    pub fn is_passing(&self) -> bool {
        self.blocks() && self.inputs["sqlstate"] == "55P03"
    }
}

/// The decision that refuses, if any: the first BLOCK in the order of asking.
pub fn first_block(decisions: &[Decision]) -> Option<&Decision> {
    decisions.iter().find(|decision| decision.blocks())
}

/// The decision that refuses a plan: the first BLOCK of a gate without which there is no request to show.
pub fn first_plan_block(decisions: &[Decision]) -> Option<&Decision> {
    decisions.iter().find(|decision| decision.blocks() && decision.gate.blocks_plan())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_is_refused_only_where_no_request_can_be_formed() {
        let off = Decision::block(Gate::Toggle, "toggle_off", "off", json!({}));
        let gone = Decision::block(Gate::Tool, "uncatalogued", "no such tool", json!({}));
        assert_eq!(first_plan_block(std::slice::from_ref(&off)), None);
        assert_eq!(first_block(std::slice::from_ref(&off)), Some(&off));
        assert_eq!(first_plan_block(&[off.clone(), gone.clone()]), Some(&gone));
        let locked = Decision::block(Gate::Toggle, "toggle_error", "lock", json!({"sqlstate": "55P03"}));
        assert_eq!((off.is_passing(), locked.is_passing()), (false, true));
    }

    #[test]
    fn decisions_are_written_in_the_words_of_the_ledger() {
        let warn = Decision::warn(Gate::Worker, "no_worker", "waits", json!({"preloaded": false}));
        assert_eq!(
            serde_json::to_value(&warn).unwrap(),
            json!({"gate":"worker","verdict":"WARN","reason":"no_worker","message":"waits","inputs":{"preloaded":false}})
        );
    }
}
