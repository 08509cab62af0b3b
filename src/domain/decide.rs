//! Each gate's rule, from facts to a decision. The facts are gathered by `run`; the order of asking is there too.

use serde_json::{Value, json};
use uuid::Uuid;

use super::call::shorten;
use super::egress::Rules;
use super::gate::{Decision, Gate};
use super::mode::Mode;
use super::policy::Policy;
use super::render::{Endpoint, Request};
use super::tool::Tool;
use super::via::Missed;

pub mod script;

/// Engines that this version can call.
pub const ENGINES: [&str; 2] = ["agent_api", "script"];

/// What a substrate function answered.
#[derive(Clone, Debug, PartialEq)]
pub enum PortAnswer {
    /// There is nothing to call.
    Unbound(String),
    /// It raised an error.
    Failed {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message.
        message: String,
    },
    /// It returned this; SQL NULL and no row are `Value::Null`, void is `true`.
    Value(Value),
}

/// Another run of the same tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// Which.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: String,
}

/// The tool gate: catalogued exactly once, and active.
pub fn tool(code: &str, found: Result<&[Tool], &str>) -> Decision {
    let block = |reason, message: String, inputs| Decision::block(Gate::Tool, reason, message, inputs);
    match found {
        Err(why) => {
            block("catalogue_unreadable", format!("the catalogue cannot be read: {why}"), json!({"code": code}))
        }
        Ok([]) => {
            block("uncatalogued", format!("no tool \"{}\" in the catalogue", shorten(code)), json!({"code": code}))
        }
        Ok([tool]) if tool.is_active() => Decision::ok(
            Gate::Tool,
            format!("{} is active", tool.name),
            json!({"code": code, "status": tool.status, "version": tool.version}),
        ),
        Ok([tool]) => block(
            "inactive",
            format!("tool status is \"{}\", not active", shorten(&tool.status)),
            json!({"code": code, "status": tool.status}),
        ),
        Ok(many) => block(
            "ambiguous",
            format!("the catalogue has {} rows with this code", many.len()),
            json!({"code": code, "rows": many.len()}),
        ),
    }
}

/// The mode gate: the tool declares the mode.
pub fn mode(policy: &Policy, mode: Mode) -> Decision {
    let inputs = json!({"mode": mode, "offered": policy.modes});
    if policy.offers(mode) {
        Decision::ok(Gate::Mode, format!("the tool offers {mode}"), inputs)
    } else {
        let message = match policy.is_script() && policy.dry_run_arg.is_none() && mode == Mode::Verify {
            true => "no dry_run_arg is set for the script, so that it cannot be told to change nothing".to_owned(),
            false => format!("the tool does not declare mode {mode}"),
        };
        Decision::block(Gate::Mode, "mode_not_offered", message, inputs)
    }
}

/// The engine gate, first half: an engine that can be called and an endpoint for it.
///
/// # Errors
/// The decision that blocks.
pub fn endpoint<'a>(tool: &Tool, policy: &Policy, endpoints: &'a [Endpoint]) -> Result<&'a Endpoint, Decision> {
    let block = |reason, message: String, inputs| Err(Decision::block(Gate::Engine, reason, message, inputs));
    if !ENGINES.contains(&tool.engine.as_str()) {
        let message = format!("engine \"{}\" is not supported", shorten(&tool.engine));
        return block("engine_unsupported", message, json!({"engine": tool.engine, "supported": ENGINES}));
    }
    let Some(name) = &policy.endpoint else {
        let message = format!("no endpoint is set for engine {} or for this tool", tool.engine);
        return block("endpoint_missing", message, json!({"engine": tool.engine}));
    };
    match endpoints.iter().find(|endpoint| endpoint.name == *name) {
        Some(endpoint) => Ok(endpoint),
        None => block("endpoint_missing", format!("endpoint \"{name}\" does not exist"), json!({"endpoint": name})),
    }
}

/// The engine gate, second half: the request could be formed.
pub fn engine(tool: &Tool, endpoint: &Endpoint, request: Result<&Request, &str>) -> Decision {
    match request {
        Ok(request) => Decision::ok(
            Gate::Engine,
            format!("engine {} at endpoint {}", tool.engine, endpoint.name),
            json!({"engine": tool.engine, "endpoint": endpoint.name, "url": request.url.as_str()}),
        ),
        Err(why) => {
            Decision::block(Gate::Engine, "request_unformed", why.to_owned(), json!({"endpoint": endpoint.name}))
        }
    }
}

/// The egress gate: a rule allows the target.
pub fn egress(rules: &Rules, request: &Request) -> Decision {
    let url = request.url.as_str();
    match rules.check_url(&request.url) {
        Ok(rule) => Decision::ok(
            Gate::Egress,
            format!("egress rule {} allows it", rule.id),
            json!({"url": url, "rule": rule.id}),
        ),
        Err(denied) => {
            Decision::block(Gate::Egress, denied.reason, denied.message, json!({"url": url, "rules": rules.0.len()}))
        }
    }
}

/// The queue gate's refusal: too many runs wait. `most` is the tool's own limit, `None` stands for the database's.
pub fn queue_full(code: &str, most: Option<i64>) -> Decision {
    let (message, inputs) = match most {
        Some(most) => (format!("{most} runs of this tool wait already"), json!({"code": code, "max_queued": most})),
        None => ("the queue is full".to_owned(), json!({"setting": "dot_wrapper.max_queued"})),
    };
    Decision::block(Gate::Queue, "queue_full", message, inputs)
}

/// The breaker's warning: the run will wait. `until` is `None` when nobody can say how long.
pub fn breaker(endpoint: &str, state: &str, until: Option<&str>, says: &str) -> Decision {
    let reason = if state == "paused" { "endpoint_paused" } else { "breaker_open" };
    let inputs = json!({"endpoint": endpoint, "state": state, "until": until});
    Decision::warn(Gate::Breaker, reason, format!("the run waits for endpoint {endpoint}: {}", one_line(says)), inputs)
}

/// The toggle gate: true, and nothing else, lets through.
pub fn toggle(answer: &PortAnswer) -> Decision {
    match answer {
        PortAnswer::Value(Value::Bool(true)) => {
            Decision::ok(Gate::Toggle, "the master toggle is on", json!({"value": true}))
        }
        PortAnswer::Value(Value::Bool(false)) => {
            Decision::block(Gate::Toggle, "toggle_off", "the master toggle is off", json!({"value": false}))
        }
        PortAnswer::Value(other) => Decision::block(
            Gate::Toggle,
            "toggle_invalid",
            "the master toggle is neither true nor false",
            json!({"value": bounded(other)}),
        ),
        failed => port_failed(Gate::Toggle, "toggle", failed),
    }
}

/// The guard gate: it returned, and what it returned is a yes. Nothing else is: see `says`.
pub fn guard(answer: &PortAnswer) -> Decision {
    let PortAnswer::Value(value) = answer else { return port_failed(Gate::Guard, "guard", answer) };
    let inputs = json!({"value": bounded(value)});
    match says(value) {
        Some(true) => Decision::ok(Gate::Guard, "the safety guard passes", inputs),
        Some(false) => Decision::block(Gate::Guard, "guard_block", "the safety guard does not allow it", inputs),
        None if value.is_null() => Decision::block(Gate::Guard, "guard_null", "the safety guard returned null", inputs),
        None => Decision::block(
            Gate::Guard,
            "guard_invalid",
            "the safety guard returned neither true nor a verdict of OK or WARN",
            inputs,
        ),
    }
}

/// The lease gate. `key` is `None` for a tool that needs no lease; `Value::Null` or false means that somebody has it.
pub fn lease(key: Option<&str>, answer: Option<&PortAnswer>) -> Decision {
    let Some(key) = key else {
        return Decision::ok(Gate::Lease, "the tool needs no lease", json!({"lease": "none"}));
    };
    let inputs = json!({"key": key});
    match answer {
        None => {
            Decision::warn(Gate::Lease, "lease_not_tried", "the lease is taken only when the run is admitted", inputs)
        }
        Some(PortAnswer::Value(Value::Null | Value::Bool(false))) => {
            Decision::block(Gate::Lease, "lease_held", "another run holds the lease", inputs)
        }
        Some(PortAnswer::Value(_)) => Decision::ok(Gate::Lease, "the lease is held for this run", inputs),
        Some(failed) => port_failed(Gate::Lease, "lease", failed),
    }
}

/// The lease gate of a run that waits for it.
pub fn lease_later(key: &str) -> Decision {
    Decision::warn(Gate::Lease, "lease_later", "the lease is taken when it is the run's turn", json!({"key": key}))
}

/// The deadline gate's refusal: the moment at which the run was due is too long ago.
pub fn missed(missed: &Missed) -> Decision {
    let message = format!("the tick of {} comes {} s late", missed.due, missed.late_s);
    let inputs = json!({"due": missed.due, "late_s": missed.late_s, "window_s": missed.window_s});
    Decision::block(Gate::Deadline, "missed_window", message, inputs)
}

/// The overlap gate's refusal: another run is in the way.
pub fn overlapping(code: &str, way: &InTheWay) -> Decision {
    Decision::block(Gate::Overlap, "overlapping", "another run of the tool is not over", beside(code, way))
}

/// The overlap gate's other refusal: an event's run does the work.
pub fn covered(code: &str, way: &InTheWay) -> Decision {
    Decision::block(Gate::Overlap, "covered", "an event has asked for the same work since", beside(code, way))
}

fn beside(code: &str, way: &InTheWay) -> Value {
    json!({"code": code, "run_id": way.run_id, "run_status": way.status})
}

/// What a guard's value says, in the words of the substrate: true, or a text or a row's `verdict` that begins with OK or
/// WARN; false, or one that begins with BLOCK. `None` for anything else, and a set says what its worst row says.
fn says(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) => {
            let word: String = text.trim().chars().take_while(char::is_ascii_alphabetic).collect();
            match word.to_ascii_uppercase().as_str() {
                "OK" | "WARN" | "WARNING" => Some(true),
                word if word.starts_with("BLOCK") => Some(false),
                _ => None,
            }
        }
        Value::Object(map) => map.get("verdict").and_then(says),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            let said: Vec<_> = items.iter().map(says).collect();
            if said.contains(&Some(false)) { Some(false) } else { said.into_iter().min().flatten() }
        }
        Value::Null | Value::Number(_) => None,
    }
}

/// What goes into the ledger of somebody's value: all of it, unless it is long.
fn bounded(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= MAX_SHOWN { value.clone() } else { Value::from(one_line(&text)) }
}

/// Bytes of a port's answer that are kept as they are.
const MAX_SHOWN: usize = 4000;

fn port_failed(gate: Gate, word: &str, answer: &PortAnswer) -> Decision {
    match answer {
        PortAnswer::Unbound(why) => {
            Decision::block(gate, &format!("{word}_unbound"), format!("the {word} port is unbound: {why}"), json!({}))
        }
        PortAnswer::Failed { sqlstate, message } => Decision::block(
            gate,
            &format!("{word}_error"),
            format!("the {word} function refused or failed: {}", one_line(message)),
            json!({"sqlstate": sqlstate}),
        ),
        PortAnswer::Value(value) => {
            Decision::block(gate, &format!("{word}_invalid"), "unexpected value", json!({"value": bounded(value)}))
        }
    }
}

/// A foreign message on one line of at most 300 characters.
pub fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gate::Verdict;

    fn active() -> Tool {
        Tool::from_row(json!({"code": "D", "status": "active", "execution_engine": "agent_api"})).unwrap()
    }

    #[test]
    fn only_one_active_row_is_a_tool() {
        let retired = Tool::from_row(json!({"code": "D", "status": "retired"})).unwrap();
        assert_eq!(tool("D", Ok(&[active()])).verdict, Verdict::Ok);
        for (found, reason) in [
            (Ok(&[][..]), "uncatalogued"),
            (Ok(&[retired][..]), "inactive"),
            (Ok(&[active(), active()][..]), "ambiguous"),
            (Err("permission denied"), "catalogue_unreadable"),
        ] {
            let decision = tool("D", found);
            assert_eq!((decision.verdict, decision.reason.as_str()), (Verdict::Block, reason));
        }
    }

    #[test]
    fn invariant_04_fail_closed_every_odd_answer_of_a_port_blocks() {
        let failed = PortAnswer::Failed { sqlstate: "P0001".into(), message: "no\nsnapshot".into() };
        let unbound = PortAnswer::Unbound("no such function".into());
        for answer in [&failed, &unbound, &PortAnswer::Value(json!(null)), &PortAnswer::Value(json!("yes"))] {
            assert!(toggle(answer).blocks(), "{answer:?}");
        }
        for answer in [
            &failed,
            &unbound,
            &PortAnswer::Value(json!(null)),
            &PortAnswer::Value(json!(false)),
            &PortAnswer::Value(json!("BLOCK: x")),
            &PortAnswer::Value(json!([{"verdict": "OK"}, {"verdict": "BLOCK"}])),
            &PortAnswer::Value(json!([{"verdict": "OK"}, {"verdict": null}])),
            &PortAnswer::Value(json!([{"check": "disk"}])),
            &PortAnswer::Value(json!([])),
            &PortAnswer::Value(json!({})),
            &PortAnswer::Value(json!("")),
            &PortAnswer::Value(json!("no")),
            &PortAnswer::Value(json!(0)),
            &PortAnswer::Value(json!(1)),
        ] {
            assert!(guard(answer).blocks(), "{answer:?}");
        }
        for answer in [&failed, &unbound, &PortAnswer::Value(json!(null)), &PortAnswer::Value(json!(false))] {
            assert!(lease(Some("k"), Some(answer)).blocks(), "{answer:?}");
        }
        assert!(!guard(&failed).message.contains('\n'));
    }

    #[test]
    fn what_the_contract_calls_a_yes_passes() {
        assert_eq!(toggle(&PortAnswer::Value(json!(true))).verdict, Verdict::Ok);
        assert_eq!(guard(&PortAnswer::Value(json!(true))).verdict, Verdict::Ok);
        for yes in [json!([{"verdict": "WARN"}]), json!("ok"), json!(" WARN: disk 80 %"), json!({"verdict": "OK"})] {
            assert_eq!(guard(&PortAnswer::Value(yes.clone())).verdict, Verdict::Ok, "{yes}");
        }
        let long = guard(&PortAnswer::Value(json!([{"verdict": "OK", "detail": "x".repeat(1 << 20)}])));
        assert!(long.verdict == Verdict::Ok && long.inputs.to_string().len() < 1000, "what is long is not kept");
        assert_eq!(lease(Some("k"), Some(&PortAnswer::Value(json!("2026-01-01")))).verdict, Verdict::Ok);
        assert_eq!(lease(None, None).verdict, Verdict::Ok);
        assert_eq!(lease(Some("k"), None).verdict, Verdict::Warn);
    }

    #[test]
    fn an_engine_without_support_or_endpoint_blocks() {
        let policy = Policy::resolve(&active(), None, None);
        assert_eq!(endpoint(&active(), &policy, &[]).unwrap_err().reason, "endpoint_missing");
        let other = Tool { engine: "mail".into(), ..active() };
        assert_eq!(endpoint(&other, &policy, &[]).unwrap_err().reason, "engine_unsupported");
    }
}
