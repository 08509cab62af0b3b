//! The doctor's look at the script engine: the roots, and the programs of the active tools. Nothing is started.

use super::check::{Check, block, ok, warn};
use crate::domain::script::{self, Roots};
use crate::pg::process;
use crate::run::session::Session;
use crate::{guc, host};

const NAME: &str = "script engine";
/// Tools that are named when their programs may not be started.
const NAMED: usize = 3;

/// One line for each root, and one for the programs.
pub(super) fn checks(session: &Session) -> Vec<Check> {
    let roots = guc::script_roots();
    let tools: Vec<_> = session.all_tools().unwrap_or_default();
    let scripts: Vec<_> = tools.into_iter().filter(|tool| tool.is_active() && tool.engine == "script").collect();
    let mut checks: Vec<Check> = roots.bad.iter().map(|root| bad(root)).collect();
    if roots.is_empty() {
        checks.push(match scripts.len() {
            0 => ok(NAME, "off: dot_wrapper.script_roots is empty, and no active tool wants it"),
            n => warn(
                NAME,
                format!("off: dot_wrapper.script_roots is empty; runs of {n} active tools are refused"),
                "ALTER SYSTEM SET dot_wrapper.script_roots = '/path/of/the/scripts'; then reload.",
            ),
        });
        return checks;
    }
    checks.extend(roots.good.iter().map(|root| match host::root(root, process::user_id()) {
        Ok(()) if holds_shells(root) => warn(
            NAME,
            format!("{root} holds shells: who may write dot_tools and dot_wrapper.policy can run any command"),
            "Name a directory that holds your tools and nothing else.",
        ),
        Ok(()) => ok(NAME, format!("scripts below {root} may be started")),
        Err(refusal) => block(NAME, refusal.message, format!("Nobody but its owner may write {root}: chmod go-w.")),
    }));
    checks.extend(programs(&roots, &scripts));
    checks
}

fn bad(root: &str) -> Check {
    let detail = format!("dot_wrapper.script_roots names \"{root}\", which is not a plain absolute path");
    block(NAME, detail, "It is left out. Write it from the slash on, without . and ..")
}

/// A root below which are programs that do whatever their arguments say.
fn holds_shells(root: &str) -> bool {
    let known = ["/bin/sh", "/sbin/busybox", "/usr/bin/env", "/usr/sbin/chroot", "/usr/local/bin/sh"];
    known.iter().any(|shell| shell.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether the programs of the active tools may be started.
fn programs(roots: &Roots, tools: &[&crate::domain::tool::Tool]) -> Option<Check> {
    let refused: Vec<String> = tools
        .iter()
        .filter_map(|tool| match script::named(tool) {
            None => Some(format!("{}: no path in the catalogue", tool.code)),
            Some(name) => host::find(roots, name, process::user_id())
                .err()
                .map(|(_, refusal)| format!("{}: {}: {}", tool.code, refusal.reason, refusal.message)),
        })
        .collect();
    if tools.is_empty() {
        return None;
    }
    let of = tools.len();
    if refused.is_empty() {
        return Some(ok("programs", format!("all {of} active script tools have a program that may be started")));
    }
    let named = refused.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let detail = format!("{} of {of} active script tools have no program that may be started: {named}", refused.len());
    Some(warn("programs", detail, "See docs/scripts.md, Which file is started."))
}
