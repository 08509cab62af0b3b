//! What the second gates write down: their decisions in full, or, where each gate that is asked twice says word for word
//! what it said at the request, those gates' names, since the ledger row has the words.
//!
//! Whether that is so is told by a digest that waits in the queue, covered by the run's permit. Does not live here: what the
//! gates say.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::canonical;
use super::gate::{Decision, Gate};

/// The first half of a SHA-256.
pub type Digest = [u8; 16];

/// Room for the text of one decision.
const ROUGHLY: usize = 256;

impl Gate {
    /// True for the gates that are asked at the request and again before the sending, of every run.
    pub fn is_asked_twice(self) -> bool {
        match self {
            Gate::Tool
            | Gate::Mode
            | Gate::Engine
            | Gate::Egress
            | Gate::Program
            | Gate::Toggle
            | Gate::Guard
            | Gate::Lease => true,
            Gate::Permit
            | Gate::Cancel
            | Gate::Requester
            | Gate::Deadline
            | Gate::Overlap
            | Gate::Queue
            | Gate::Breaker
            | Gate::Worker => false,
        }
    }
}

/// Of the decisions of the gates that are asked twice, in their order: equal for equal words, and for no others. `None` where
/// one of these gates has said two things, so that its name does not say which.
pub fn digest(decisions: &[Decision]) -> Option<Digest> {
    let mut text = String::with_capacity(ROUGHLY * decisions.len());
    let mut said = Vec::with_capacity(decisions.len());
    for decision in decisions.iter().filter(|decision| decision.gate.is_asked_twice()) {
        if said.contains(&decision.gate) {
            return None;
        }
        said.push(decision.gate);
        write(decision, canonical::write_text, &mut text);
    }
    let whole = Sha256::digest(text.as_bytes());
    Some(std::array::from_fn(|i| whole[i]))
}

/// Decisions as the detail of an event has them, `{"gates": [...]}`, as `canonical::by_value` would write it. `decided` is
/// [`digest`] of the request's, where it is known.
pub fn detail(decisions: &[Decision], decided: Option<&[u8]>) -> String {
    let as_before = decided.is_some_and(|then| digest(decisions).is_some_and(|now| now == then));
    let mut out = String::with_capacity(ROUGHLY * if as_before { 3 } else { decisions.len() + 1 });
    out.push_str("{\"gates\":[");
    for (i, decision) in decisions.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if as_before && decision.gate.is_asked_twice() {
            canonical::write_string(decision.gate.as_str(), &mut out);
        } else {
            write(decision, canonical::write_by_value, &mut out);
        }
    }
    out.push_str("]}");
    out
}

fn write(decision: &Decision, inputs: fn(&Value, &mut String), out: &mut String) {
    out.push_str("{\"gate\":\"");
    out.push_str(decision.gate.as_str());
    out.push_str("\",\"inputs\":");
    inputs(&decision.inputs, out);
    out.push_str(",\"message\":");
    canonical::write_string(&decision.message, out);
    out.push_str(",\"reason\":");
    canonical::write_string(&decision.reason, out);
    out.push_str(",\"verdict\":\"");
    out.push_str(decision.verdict.as_str());
    out.push_str("\"}");
}

#[cfg(test)]
mod tests {
    use super::super::gate::Verdict;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// All of them, as the first gates and the second ask them.
    const GATES: [Gate; 16] = [
        Gate::Permit,
        Gate::Cancel,
        Gate::Requester,
        Gate::Deadline,
        Gate::Tool,
        Gate::Mode,
        Gate::Engine,
        Gate::Egress,
        Gate::Program,
        Gate::Overlap,
        Gate::Queue,
        Gate::Breaker,
        Gate::Toggle,
        Gate::Guard,
        Gate::Lease,
        Gate::Worker,
    ];

    /// As `{"gates": [...]}` was written before there were names.
    fn in_full(decisions: &[Decision]) -> String {
        canonical::by_value(&json!({"gates": decisions}))
    }

    fn decision() -> impl Strategy<Value = Decision> {
        let inputs = prop_oneof![
            Just(json!({})),
            Just(json!({"value": 1})),
            serde_json::from_str::<Value>(r#"{"value": 1.0}"#).map(Just).unwrap(),
            ".{0,4}".prop_map(|text| json!({"key": text})),
        ];
        let verdict = prop_oneof![Just(Verdict::Ok), Just(Verdict::Warn), Just(Verdict::Block)];
        (0..GATES.len(), verdict, ".{0,2}", ".{0,2}", inputs).prop_map(|(gate, verdict, reason, message, inputs)| {
            Decision { gate: GATES[gate], verdict, reason, message, inputs }
        })
    }

    /// Some gates in their order, and now and then one that says something else besides.
    fn decisions() -> impl Strategy<Value = Vec<Decision>> {
        let gates = proptest::sample::subsequence(GATES.to_vec(), 0..=GATES.len());
        let words = proptest::collection::vec(decision(), GATES.len());
        (gates, words, proptest::option::weighted(0.1, decision())).prop_map(|(gates, words, more)| {
            let said = gates.into_iter().zip(words).map(|(gate, said)| Decision { gate, ..said });
            said.chain(more).collect()
        })
    }

    /// What is compared, as values.
    fn shared(decisions: &[Decision]) -> Vec<&Decision> {
        decisions.iter().filter(|decision| decision.gate.is_asked_twice()).collect()
    }

    /// The same, spelled.
    fn words(decisions: &[Decision]) -> Vec<String> {
        shared(decisions).iter().map(|decision| json!(decision).to_string()).collect()
    }

    #[test]
    fn the_detail_of_an_event_is_the_canonical_text_of_its_decisions() {
        let decisions = [
            Decision::ok(Gate::Tool, "a \"quoted\" \n line", json!({"z": 1e2, "a": [null, true, "\u{7f}é"]})),
            Decision::warn(Gate::Worker, "no_worker", "it waits", json!({})),
            Decision::block(Gate::Lease, "lease_held", "somebody has it", json!({"key": "k"})),
        ];
        for n in 0..=decisions.len() {
            assert_eq!(detail(&decisions[..n], None), in_full(&decisions[..n]));
            assert_eq!(detail(&decisions[..n], Some(b"")), in_full(&decisions[..n]));
        }
    }

    #[test]
    fn what_was_said_at_the_request_is_named_and_the_rest_is_written() {
        let request = [
            Decision::ok(Gate::Tool, "active", json!({"code": "A"})),
            Decision::warn(Gate::Breaker, "open", "it waits", json!({})),
            Decision::ok(Gate::Lease, "held", json!({"key": "k"})),
            Decision::warn(Gate::Worker, "no_worker", "it waits", json!({})),
        ];
        let permit = Decision::ok(Gate::Permit, "in order", json!({}));
        let send = [permit.clone(), request[0].clone(), request[2].clone()];
        let decided = digest(&request).unwrap();
        let named = json!({"gates": [permit, "tool", "lease"]});
        assert_eq!(detail(&send, Some(&decided)), canonical::by_value(&named));
        let told = Decision::warn(Gate::Tool, "tool_changed", "the tool changed", json!({}));
        let changed = [&send[..], &[told]].concat();
        assert_eq!(detail(&changed, Some(&decided)), in_full(&changed));
        assert_eq!(digest(&changed), None, "two decisions of one gate");
        let moved = [send[0].clone(), send[2].clone(), send[1].clone()];
        assert_eq!(detail(&moved, Some(&decided)), in_full(&moved));
        assert_eq!(detail(&send, Some(&decided[..15])), in_full(&send));
    }

    proptest! {
        /// The same decisions have the same digest, and others another one, down to how a number is spelled.
        #[test]
        fn a_digest_is_equal_for_equal_words_and_for_no_others(
            one in decisions(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), decision()), 0..3),
        ) {
            let mut other = one.clone();
            for (at, said) in changes {
                if !other.is_empty() {
                    let at = at.index(other.len());
                    other[at] = said;
                }
            }
            let repeated = |all: &[&Decision]| (1..all.len()).any(|n| all[..n].iter().any(|d| d.gate == all[n].gate));
            prop_assert_eq!(digest(&one).is_none(), repeated(&shared(&one)));
            if let (Some(a), Some(b)) = (digest(&one), digest(&other)) {
                prop_assert_eq!(a == b, words(&one) == words(&other));
            }
        }

        /// With the words of the request put back in the place of the names, nothing is missing.
        #[test]
        fn a_name_stands_for_what_the_ledger_row_has(request in decisions(), more in decisions()) {
            let send: Vec<Decision> = more
                .into_iter()
                .filter(|decision| !decision.gate.is_asked_twice())
                .chain(request.iter().filter(|decision| decision.gate.is_asked_twice()).cloned())
                .collect();
            let decided = digest(&request);
            let written: Value = serde_json::from_str(&detail(&send, decided.as_ref().map(|d| &d[..]))).unwrap();
            let read: Vec<Value> = written["gates"].as_array().unwrap().iter().map(|element| match element.as_str() {
                Some(name) => json!(request.iter().find(|decision| decision.gate.as_str() == name)),
                None => element.clone(),
            }).collect();
            prop_assert_eq!(canonical::by_value(&json!({"gates": read})), in_full(&send));
            let named = written["gates"].as_array().unwrap().iter().filter(|element| element.is_string()).count();
            prop_assert_eq!(named, if decided.is_some() { shared(&send).len() } else { 0 });
        }

        /// One word changed, and all is written out.
        #[test]
        fn whatever_changes_is_written_in_full(
            request in decisions(), at in any::<proptest::sample::Index>(), other in decision()
        ) {
            prop_assume!(!request.is_empty());
            let mut send = request.clone();
            let at = at.index(send.len());
            send[at] = other;
            let decided = digest(&request);
            if words(&send) != words(&request) {
                prop_assert_eq!(detail(&send, decided.as_ref().map(|d| &d[..])), in_full(&send));
            }
        }
    }
}
