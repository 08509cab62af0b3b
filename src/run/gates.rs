//! The gates in their order, for the first and the second asking alike. Rules are in `domain::decide`.

use serde_json::Value;
use uuid::Uuid;

use super::session::Session;
use crate::domain::decide;
use crate::domain::gate::Decision;
use crate::domain::mode::Mode;
use crate::domain::order::Order;
use crate::domain::policy::Policy;
use crate::domain::render::{self, Facts};
use crate::domain::script::{self, Refusal, Roots};
use crate::domain::tool::Tool;
use crate::pg::process;
use crate::{guc, host};

/// Who looks at a script's file, which takes as long as its file system.
#[derive(Clone, Copy, Debug)]
pub enum Disk<'a> {
    /// Whoever asks, now: a session that requests a run.
    Asked,
    /// As `Later`, unless the disk alone says which of several roots a relative path is below: a worker that requests a run.
    IfNeeded,
    /// The engine, directly before the start and beside the worker's thread, which must not hang in a transaction. The path is
    /// judged by its letters; this is the one that the run was requested with.
    Later(Option<&'a str>),
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Tool code.
    pub code: &'a str,
    /// Mode.
    pub mode: Mode,
    /// Arguments.
    pub args: &'a Value,
    /// The run.
    pub run_id: Uuid,
    /// The process run.
    pub process_run_id: Uuid,
    /// Who looks at files.
    pub disk: Disk<'a>,
}

/// What the gates found out.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Their decisions, in order.
    pub decisions: Vec<Decision>,
    /// The tool, when it is catalogued once.
    pub tool: Option<Tool>,
    /// Its policy.
    pub policy: Option<Policy>,
    /// The request, when it can be formed.
    pub request: Option<Order>,
    /// Its fingerprint.
    pub fingerprint: Option<String>,
}

impl Findings {
    /// Adds a decision; true when it blocks.
    pub fn note(&mut self, decision: Decision) -> bool {
        let blocks = decision.blocks();
        self.decisions.push(decision);
        blocks
    }

    /// The decisions as they are kept, as JSON text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.decisions).unwrap_or_else(|_| "[]".to_owned())
    }

    /// The decisions as they are kept.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.decisions).unwrap_or_else(|_| Value::Array(Vec::new()))
    }
}

/// Asks all gates but the lease. A plan asks every one that can be asked; the others stop at the first BLOCK, so that a
/// refusal is cheap and no guard is run for nothing.
pub fn ask(session: &mut Session, question: &Question<'_>) -> Findings {
    let findings = form(session, question, question.mode == Mode::Plan);
    ask_substrate(session, question, findings)
}

/// Asks what is behind the request, which `findings` has: toggle and guard.
pub fn ask_substrate(session: &mut Session, question: &Question<'_>, mut findings: Findings) -> Findings {
    let thorough = question.mode == Mode::Plan;
    if findings.decisions.iter().any(Decision::blocks) && !thorough {
        return findings;
    }
    let toggle = session.toggle();
    if findings.note(toggle) && !thorough {
        return findings;
    }
    let guard = session.guard();
    findings.note(guard);
    findings
}

/// Asks tool, mode, engine and egress, which need no substrate function, and forms the request on the way. With
/// `thorough` it goes on after a BLOCK as far as it can.
pub fn form(session: &Session, question: &Question<'_>, thorough: bool) -> Findings {
    let mut findings = Findings::default();
    ask_tool(session, question, &mut findings, thorough);
    findings
}

/// True when one of them blocks.
fn ask_tool(session: &Session, question: &Question<'_>, findings: &mut Findings, thorough: bool) -> bool {
    let found = session.tools(question.code);
    let mut blocked = findings.note(decide::tool(question.code, found));
    let Ok([tool]) = found else { return true };
    let policy = session.config.policy(tool);
    findings.tool = Some(tool.clone());
    findings.policy = Some(policy.clone());
    if blocked && !thorough {
        return true;
    }
    blocked |= findings.note(decide::mode(&policy, question.mode));
    if blocked && !thorough {
        return true;
    }
    if policy.is_script() {
        return ask_program(tool, &policy, question, findings, blocked, thorough);
    }
    let endpoint = match decide::endpoint(tool, &policy, session.config.endpoints()) {
        Ok(endpoint) => endpoint,
        Err(decision) => return findings.note(decision) || blocked,
    };
    let rendered = render::request(endpoint, &facts(question));
    blocked |= findings.note(decide::engine(tool, endpoint, rendered.as_ref().map_err(|e| e.0.as_str())));
    let Ok(request) = rendered else { return blocked };
    if !blocked || thorough {
        blocked |= findings.note(decide::egress(session.config.egress(), &request));
    }
    let order = Order::Http(request);
    findings.fingerprint = Some(order.fingerprint(&tool.version, question.args));
    findings.request = Some(order);
    blocked
}

/// The same for a tool whose engine starts a program: `program` stands in the place of `egress`.
fn ask_program(
    tool: &Tool,
    policy: &Policy,
    question: &Question<'_>,
    findings: &mut Findings,
    mut blocked: bool,
    thorough: bool,
) -> bool {
    let roots = guc::script_roots();
    let name = match decide::script::named(tool, &roots) {
        Ok(name) => name,
        Err(decision) => return findings.note(decision) || blocked,
    };
    let (path, seen) = look(&roots, name, question.disk);
    let rendered = script::command(&path, policy, &facts(question));
    blocked |= findings.note(decide::script::engine(tool, rendered.as_ref().map_err(|e| e.0.as_str())));
    let Ok(command) = rendered else { return blocked };
    if !blocked || thorough {
        blocked |= findings.note(decide::script::program(&command.program, seen.as_ref().map(Option::as_deref)));
    }
    let order = Order::Script(command);
    findings.fingerprint = Some(order.fingerprint(&tool.version, question.args));
    findings.request = Some(order);
    blocked
}

/// The path that the name means, and what it comes to once links are followed, where the disk is asked.
fn look(roots: &Roots, name: &str, disk: Disk<'_>) -> (String, Result<Option<String>, Refusal>) {
    let requested = match disk {
        Disk::Later(requested) => requested,
        Disk::IfNeeded if roots.candidates(name).map_or(0, |all| all.len()) < 2 => None,
        Disk::Asked | Disk::IfNeeded => {
            return match host::find(roots, name, process::user_id()) {
                Ok(program) => (program.path, Ok(Some(program.real))),
                Err((path, refusal)) => (path, Err(refusal)),
            };
        }
    };
    match roots.meant(name, requested) {
        Ok(path) => (path, Ok(None)),
        Err(refusal) => (name.to_owned(), Err(refusal)),
    }
}

/// The facts of a delivery that is not yet due. A plan shows what apply would send.
fn facts<'a>(question: &Question<'a>) -> Facts<'a> {
    Facts {
        code: question.code,
        mode: if question.mode == Mode::Plan { Mode::Apply } else { question.mode },
        run_id: question.run_id,
        process_run_id: question.process_run_id,
        attempt: 1,
        args: question.args,
        fencing_token: None,
        deadline: None,
    }
}
