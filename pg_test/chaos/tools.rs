//! The tools of the storm, and the database that they live in. A tool's name says what its policy is.

use postgres::Client;
use uuid::Uuid;

/// How a tool keeps others off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It does not.
    None,
    /// One live run per tool.
    Tool,
    /// One live run per value of the argument `k`.
    Argument,
}

/// One tool.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    pub code: &'static str,
    /// The agent keeps keys for it, and the policy says so.
    pub idempotent: bool,
    pub lease: Lease,
    /// Deliveries of one run, at most.
    pub max_attempts: i64,
    /// Its endpoint tells what became of a key.
    pub can_be_asked: bool,
    /// More columns of its policy.
    policy: &'static str,
}

const fn tool(code: &'static str, idempotent: bool, lease: Lease, max_attempts: i64, policy: &'static str) -> Tool {
    // The third of each kind is mute.
    let can_be_asked = !matches!(code.as_bytes(), [.., b'3'] | [.., b'A', b'R', b'G', b'-', b'2']);
    Tool { code, idempotent, lease, max_attempts, can_be_asked, policy }
}

/// All of them.
pub const TOOLS: [Tool; 12] = [
    tool("ONCE-FREE-1", false, Lease::None, 5, "{}"),
    tool("ONCE-FREE-2", false, Lease::None, 2, "{}"),
    tool("ONCE-FREE-3", false, Lease::None, 5, r#"{"retry_base_ms": 200}"#),
    tool("ONCE-TOOL", false, Lease::Tool, 5, r#"{"doubt_lease_s": 1}"#),
    tool("ONCE-ARG-1", false, Lease::Argument, 5, r#"{"doubt_lease_s": 2}"#),
    tool("ONCE-ARG-2", false, Lease::Argument, 5, "{}"),
    tool("KEYED-FREE-1", true, Lease::None, 5, "{}"),
    tool("KEYED-FREE-2", true, Lease::None, 2, "{}"),
    tool("KEYED-FREE-3", true, Lease::None, 5, r#"{"key_window_s": 4}"#),
    tool("KEYED-TOOL", true, Lease::Tool, 8, "{}"),
    tool("KEYED-ARG-1", true, Lease::Argument, 5, r#"{"finish_by_s": 3}"#),
    tool("KEYED-ARG-2", true, Lease::Argument, 5, r#"{"retry_base_ms": 20}"#),
];

/// The roles that call, besides the superuser.
pub const CALLERS: [&str; 2] = ["caller_a", "caller_b"];

impl Tool {
    /// Its lease key, as the policy renders it.
    pub fn lease_key(&self, k: i64) -> Option<String> {
        match self.lease {
            Lease::None => None,
            Lease::Tool => Some(format!("tool:{}", self.code)),
            Lease::Argument => Some(format!("chaos:{}:{k}", self.code)),
        }
    }
}

/// By its code.
pub fn find(code: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.code == code)
}

/// The extension, the tools, and open gates.
pub fn furnish(session: &mut Client, port: u16) -> Result<(), postgres::Error> {
    session.batch_execute(&format!(
        "CREATE EXTENSION dot_wrapper;
         INSERT INTO dot_wrapper.endpoint (name, base_url, status_path, breaker_failures, breaker_pause_s, max_in_flight) VALUES
             ('agent', 'http://127.0.0.1:{port}', '/v1/runs/{{run_id}}', 0, 1, NULL),
             ('mute', 'http://127.0.0.1:{port}', NULL, 5, 1, 8);
         INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
         INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes, lease_ttl_s, connect_timeout_ms, idle_timeout_ms,
                                         total_timeout_ms, retry_base_ms, retry_max_ms)
             VALUES ('engine', 'agent_api', 'agent', '{{verify,apply}}', 10, 500, 500, 1500, 100, 400)"
    ))?;
    for role in CALLERS {
        session.batch_execute(&format!(
            "CREATE ROLE {role} LOGIN;
             GRANT EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text), fn_dot_cancel(uuid, text) TO {role}"
        ))?;
    }
    for tool in &TOOLS {
        let lease = match tool.lease {
            Lease::None => "none",
            Lease::Tool => "tool:{code}",
            Lease::Argument => "chaos:{code}:{args.k}",
        };
        let endpoint = if tool.can_be_asked { "agent" } else { "mute" };
        session.execute(
            "INSERT INTO dot_tools (code, name, status, execution_engine) VALUES ($1, $1, 'active', 'agent_api')",
            &[&tool.code],
        )?;
        session.execute(
            "INSERT INTO dot_wrapper.policy (scope, name, idempotent, lease, max_attempts, endpoint, retry_base_ms,
                                             key_window_s, doubt_lease_s, finish_by_s)
             SELECT 'tool', $1, $2, $3, $5, $6, retry_base_ms, key_window_s, doubt_lease_s, finish_by_s
             FROM jsonb_populate_record(NULL::dot_wrapper.policy, $4::text::jsonb)",
            &[&tool.code, &tool.idempotent, &lease, &tool.policy, &(tool.max_attempts as i32), &endpoint],
        )?;
    }
    toggle(session, true)?;
    session.batch_execute("INSERT INTO dot_config (key, value) VALUES ('fs_snapshot_present', '1')")
}

/// The master toggle.
pub fn toggle(session: &mut Client, on: bool) -> Result<(), postgres::Error> {
    let sql = "INSERT INTO dot_config (key, value) VALUES ('iu_core.operator_runtime_enabled', $1)";
    session.execute(sql, &[&on.to_string()]).map(drop)
}

/// A UUID out of random bits, so that the plan of a seed is the same each time.
pub fn uuid(high: u64, low: u64) -> Uuid {
    uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
}
