//! `fn_dot_doctor`: what stands between a tool and its execution, one check after the other, and what to do about it.

use std::path::Path;

use crate::domain::decide;
use crate::domain::error::DotError;
use crate::domain::gate::{Decision, Verdict};
use crate::domain::{render, secret};
use crate::guc;
use crate::store::extension::Extension;
use crate::store::{doctor as facts, extension, kept, mirror, port};

use super::bind::require_owner;
use super::session::Session;
pub use check::Check;
use check::{block, ok, warn};

pub(super) mod check;
mod jobs;
mod scripts;

/// What the process table says.
#[derive(Clone, Copy, Debug)]
pub struct Background {
    /// The library is preloaded.
    pub preloaded: bool,
    /// The launcher.
    pub launcher_pid: Option<i32>,
    /// This database's worker.
    pub worker_pid: Option<i32>,
    /// One word.
    pub state: &'static str,
    /// What was last wrong.
    pub last_error: Option<&'static str>,
}

/// Looks at everything.
///
/// # Errors
/// 42501 for callers who are not the extension's owner: the findings tell how this database is protected.
pub fn examine(background: &Background) -> Result<Vec<Check>, DotError> {
    let extension = extension::current()?;
    require_owner(&extension, "examine it")?;
    extension::as_owner(&extension, || {
        let mut checks = processes(background);
        if extension::find_instance(crate::pg::session::system_identifier())?.is_none() {
            // Nothing else can be asked without it: calls raise an error, and the worker executes nothing.
            let advice = "SELECT fn_dot_resume(); makes a new one, and gives what is queued new permits.";
            checks.push(block("instance", "dot_wrapper.instance is empty; nothing is sent", advice));
            return Ok(checks);
        }
        let mut session = Session::open(&extension, None)?;
        checks.push(instance(&session));
        checks.extend(ports(&session));
        let schema = &extension.schema;
        let advice =
            format!("UPDATE {schema}.dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';");
        checks.push(from_decision("toggle", &session.toggle(), &advice));
        let advice = format!("SELECT * FROM {schema}.fn_preflight_guard();");
        checks.push(from_decision("guard", &session.guard(), &advice));
        checks.push(catalogue(&session));
        checks.extend(endpoints(&session));
        checks.extend(scripts::checks(&session));
        checks.extend(super::breaker::checks(session.closures()?));
        checks.extend(jobs::all(&extension)?);
        checks.extend(strangers()?);
        checks.extend(requests(&extension));
        checks.extend(own_tables(&extension)?);
        checks.extend(untold()?);
        checks.extend(unfinished()?);
        // What nobody but a person may be able to end comes first.
        checks.sort_by_key(|check| !(check.name == "in doubt" && check.verdict != "OK"));
        Ok(checks)
    })
}

fn processes(background: &Background) -> Vec<Check> {
    if !background.preloaded {
        let advice = "Add dot_wrapper to shared_preload_libraries and restart the server.";
        return vec![
            block("preload", "the library is not preloaded; nothing is sent", advice),
            block("worker", "there is no worker without the preload", advice),
        ];
    }
    let launcher = match background.launcher_pid {
        Some(pid) => ok("preload", format!("preloaded; launcher has pid {pid}")),
        None => {
            warn("preload", "preloaded, but no launcher runs", "It is restarted within seconds; see the server's log.")
        }
    };
    let worker = match background.worker_pid {
        Some(pid) => ok("worker", format!("worker has pid {pid}")),
        None if !guc::worker_enabled() => block(
            "worker",
            "workers are switched off",
            "ALTER SYSTEM SET dot_wrapper.worker_enabled = on; then reload.",
        ),
        None => {
            let why = background.last_error.unwrap_or("no reason was recorded");
            block("worker", format!("no worker runs here ({}): {why}", background.state), "See the server's log.")
        }
    };
    vec![launcher, worker]
}

fn instance(session: &Session) -> Check {
    if session.instance.is_here {
        ok("instance", "this is the database that the permits are for")
    } else {
        block(
            "instance",
            "this database is a copy or was restored; nothing is sent",
            "If it is meant to execute: SELECT fn_dot_resume();",
        )
    }
}

fn ports(session: &Session) -> Vec<Check> {
    port::Name::ALL
        .into_iter()
        .map(|name| match session.ports.get(name) {
            Ok(function) => ok(label(name), format!("{}({})", function.call, function.arguments)),
            // The IU layer's log is read, never called; nothing is refused for want of it.
            Err(why) if name == port::Name::CommandLog => ok(label(name), format!("not bound, and not needed: {why}")),
            Err(why) => block(
                label(name),
                format!("unbound: {why}"),
                format!("SELECT fn_dot_bind('{}', 'your_adapter(...)'::regprocedure);", name.as_str()),
            ),
        })
        .collect()
}

fn label(name: port::Name) -> &'static str {
    match name {
        port::Name::Toggle => "port toggle",
        port::Name::Guard => "port guard",
        port::Name::LeaseAcquire => "port lease_acquire",
        port::Name::LeaseRelease => "port lease_release",
        port::Name::CommandLog => "port command_log",
    }
}

fn from_decision(name: &'static str, decision: &Decision, advice: &str) -> Check {
    match decision.verdict {
        Verdict::Ok => ok(name, decision.message.clone()),
        Verdict::Warn => warn(name, decision.message.clone(), advice),
        Verdict::Block => block(name, decision.message.clone(), advice),
    }
}

fn catalogue(session: &Session) -> Check {
    let tools = match session.all_tools() {
        Ok(tools) => tools,
        Err(why) => {
            let advice = "Give dot_tools to a trusted role, or repair what its owner's code raises.";
            return block("catalogue", format!("unreadable: {why}"), advice);
        }
    };
    let active: Vec<_> = tools.iter().filter(|tool| tool.is_active()).collect();
    let callable = active.iter().filter(|tool| decide::ENGINES.contains(&tool.engine.as_str())).count();
    let mut codes: Vec<_> = tools.iter().map(|tool| &tool.code).collect();
    codes.dedup();
    let detail =
        format!("tools: {}, active: {}, with an engine that can be called: {callable}", tools.len(), active.len());
    if codes.len() < tools.len() {
        return warn("catalogue", format!("{detail}; some codes are not unique"), "Runs of such a tool are refused.");
    }
    if callable == 0 {
        return warn("catalogue", detail, "Set execution_engine = 'agent_api' and status = 'active' where it is so.");
    }
    ok("catalogue", detail)
}

/// Endpoint, egress and secret of every endpoint that an active tool uses.
fn endpoints(session: &Session) -> Vec<Check> {
    let tools = session.all_tools().unwrap_or_default();
    let callable = tools.iter().filter(|t| t.is_active() && t.engine == "agent_api");
    let mut used: Vec<(Option<String>, String)> =
        callable.map(|tool| (session.config.policy(tool).endpoint, tool.code.clone())).collect();
    used.sort();
    used.dedup_by(|a, b| a.0 == b.0);
    used.iter().flat_map(|(endpoint, code)| one_endpoint(session, endpoint.as_deref(), code)).collect()
}

fn one_endpoint(session: &Session, name: Option<&str>, code: &str) -> Vec<Check> {
    let Some(endpoint) = session.config.endpoints().iter().find(|e| Some(e.name.as_str()) == name) else {
        return vec![block(
            "endpoint",
            format!("{code}, for one, has no endpoint"),
            "INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'https://…'); \
             INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('engine', 'agent_api', 'agent');",
        )];
    };
    let nothing = serde_json::json!({});
    let facts = render::Facts {
        code,
        mode: crate::domain::mode::Mode::Apply,
        run_id: uuid::Uuid::nil(),
        process_run_id: uuid::Uuid::nil(),
        attempt: 1,
        args: &nothing,
        fencing_token: None,
        deadline: None,
    };
    let request = match render::request(endpoint, &facts) {
        Ok(request) => request,
        Err(why) => return vec![block("endpoint", why.0, "UPDATE dot_wrapper.endpoint …")],
    };
    let egress = decide::egress(session.config.egress(), &request);
    let advice = format!(
        "INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('{}', '{}', {}, '{{}}'); \
         for a private address list its range in cidrs",
        request.url.scheme(),
        request.url.host_str().unwrap_or_default(),
        request.url.port_or_known_default().unwrap_or_default()
    );
    let mut checks = vec![
        ok("endpoint", format!("{}: {}", endpoint.name, endpoint.base_url)),
        from_decision("egress", &egress, &advice),
    ];
    checks.extend(endpoint.auth_secret.as_deref().map(readable));
    checks
}

/// Whether the server process can read a secret. Its value is not looked at.
fn readable(name: &str) -> Check {
    let variable = secret::env_var(name);
    let file = guc::secrets_dir().map(|dir| dir.join(name));
    let opens = |path: &Path| std::fs::File::open(path).is_ok_and(|f| f.metadata().is_ok_and(|m| m.is_file()));
    if file.as_deref().is_some_and(opens) {
        return ok("secret", format!("{name}: a readable file"));
    }
    if std::env::var_os(&variable).is_some() {
        return ok("secret", format!("{name}: environment variable {variable}"));
    }
    let place = file.map_or_else(|| "dot_wrapper.secrets_dir is not set".to_owned(), |f| f.display().to_string());
    block(
        "secret",
        format!("{name}: neither a readable file ({place}) nor {variable} in the server's environment"),
        "Put the secret there, readable by the server's user only.",
    )
}

/// Who can act as the worker besides it; no line when nobody can.
fn strangers() -> Result<Option<Check>, DotError> {
    let members = facts::worker_members(&guc::worker_role())?;
    Ok((!members.is_empty()).then(|| {
        let found = format!("members of dot_wrapper_worker besides the worker: {}", members.join(", "));
        warn(
            "worker role",
            found,
            "They can read the permits' key and change unfinished runs; REVOKE what is not meant.",
        )
    }))
}

/// What others have hung on our own tables; no line when there is nothing.
fn own_tables(extension: &Extension) -> Result<Option<Check>, DotError> {
    let found = facts::foreign_triggers(extension)?;
    Ok(found.first().map(|first| {
        warn(
            "own tables",
            format!("triggers on dot_wrapper's own tables, which run with its rights: {}", found.join(", ")),
            format!("DROP TRIGGER {first}; and REVOKE ALL on the tables of the schema dot_wrapper from who made it."),
        )
    }))
}

fn requests(extension: &Extension) -> Option<Check> {
    mirror::hindrance(extension).map(|trigger| {
        warn(
            "request table",
            format!("dot_run_request is not kept up: its trigger {trigger} is of a role that is not trusted, or has a WHEN clause"),
            format!("DROP TRIGGER {trigger} ON {}.dot_run_request; and REVOKE TRIGGER.", extension.schema),
        )
    })
}

/// ALTER TABLE … DISABLE TRIGGER ALL and ENABLE TRIGGER ALL, as restores do it, leave triggers that fire for some sessions only.
fn untold() -> Result<Vec<Check>, DotError> {
    let warned = kept::untold()?.into_iter().map(|(table, has_children)| {
        if has_children {
            return warn(
                "kept",
                format!("dot_wrapper.{table} has, or had, child tables; every call reads it anew, and is slower"),
                format!("Let no table inherit from it; then ANALYZE dot_wrapper.{table};"),
            );
        }
        let enable =
            ["change_begun", "change_told", "truncation_told"].map(|name| format!("ENABLE ALWAYS TRIGGER {name}"));
        warn(
            "kept",
            format!("not every change of dot_wrapper.{table} is told; every call reads it anew, and is slower"),
            format!("ALTER TABLE dot_wrapper.{table} {};", enable.join(", ")),
        )
    });
    Ok(warned.collect())
}

fn unfinished() -> Result<Vec<Check>, DotError> {
    let counts = facts::unfinished()?;
    let mut checks = Vec::new();
    checks.push(match counts.in_doubt {
        0 => ok("in doubt", "no run is in doubt"),
        n => warn(
            "in doubt",
            format!("{n} runs were sent and have no known outcome"),
            "Ask the agent what became of them, then fn_dot_resolve. See docs/operations.md, Runs in doubt.",
        ),
    });
    if counts.quarantined > 0 {
        let found = format!("the worker died over {} queued runs; they are set aside", counts.quarantined);
        let advice = "fn_dot_resume(ARRAY[run ids]::uuid[]) lets them go on, fn_dot_cancel ends them.";
        checks.push(warn("quarantine", found, advice));
    }
    checks.push(match counts.held {
        0 => ok("queue", format!("{} queued, {} running", counts.queued, counts.running)),
        n => warn(
            "queue",
            format!("{n} queued rows have no valid permit and are not executed"),
            "If they are legitimate: SELECT fn_dot_resume(ARRAY[run ids]::uuid[]);",
        ),
    });
    checks.push(match counts.owed {
        0 => ok("counters", "usage_count and last_executed are up to date"),
        n => warn(
            "counters",
            format!("the counters of {n} tools wait to be moved"),
            "If it lasts, see the server's log.",
        ),
    });
    Ok(checks)
}
