//! How a tool may be run: which modes, where, with which bounds. Rows of `dot_wrapper.policy` for the engine and for
//! the tool are laid over the defaults here; the more special one wins, field by field.

use serde::Deserialize;

use super::mode::Mode;
use super::script::limits::{Limits, SCRIPTS};
use super::tool::Tool;

/// One row of `dot_wrapper.policy`; NULL means "as the next more general one says".
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Layer {
    /// The endpoint's name.
    pub endpoint: Option<String>,
    /// The modes that are offered besides plan.
    pub modes: Option<Vec<Mode>>,
    /// The engine promises that a second delivery with the same key has no second effect.
    pub idempotent: Option<bool>,
    /// The lease's key: a template, or `none`.
    pub lease: Option<String>,
    /// A run waits for a lease that another one holds.
    pub lease_wait: Option<bool>,
    /// Seconds.
    pub lease_ttl_s: Option<i64>,
    /// Milliseconds for DNS, TCP and TLS.
    pub connect_timeout_ms: Option<i64>,
    /// Milliseconds of silence while an answer is received.
    pub idle_timeout_ms: Option<i64>,
    /// Milliseconds for a whole delivery.
    pub total_timeout_ms: Option<i64>,
    /// Bytes.
    pub max_response_bytes: Option<i64>,
    /// Seconds that a run may wait in the queue.
    pub start_by_s: Option<i64>,
    /// Seconds from the request after which no delivery begins or lasts.
    pub finish_by_s: Option<i64>,
    /// Deliveries of one run.
    pub max_attempts: Option<i64>,
    /// Milliseconds: the pause after the first attempt, at most.
    pub retry_base_ms: Option<i64>,
    /// Milliseconds: the longest pause.
    pub retry_max_ms: Option<i64>,
    /// Seconds for which the agent remembers a key.
    pub key_window_s: Option<i64>,
    /// Seconds after which a run in doubt gives up its lease.
    pub doubt_lease_s: Option<i64>,
    /// Calls of one tool at the same time.
    pub max_in_flight: Option<i64>,
    /// What `max_in_flight_per_key` counts by: a template.
    pub in_flight_key: Option<String>,
    /// Calls of one key at the same time.
    pub max_in_flight_per_key: Option<i64>,
    /// Runs of one tool that may wait.
    pub max_queued: Option<i64>,
    /// A script's arguments: templates, one for each.
    pub script_args: Option<Vec<String>>,
    /// The argument that tells a script to change nothing.
    pub dry_run_arg: Option<String>,
    /// MiB of memory for each of a script's processes.
    pub max_memory_mb: Option<i64>,
    /// Seconds of processor time for each of a script's processes.
    pub max_cpu_s: Option<i64>,
    /// MiB of the largest file that a script writes.
    pub max_file_mb: Option<i64>,
}

/// The policy in force for one tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The endpoint's name, when one is set; for a script always [`SCRIPTS`].
    pub endpoint: Option<String>,
    /// The modes that are offered; plan is always one.
    pub modes: Vec<Mode>,
    /// See [`Layer::idempotent`]. Default: false, so that nothing is repeated unasked.
    pub idempotent: bool,
    /// See [`Layer::lease`]. Default: `tool:{code}`, one live apply per tool.
    pub lease: String,
    /// See [`Layer::lease_wait`]. Default: false, the run is refused.
    pub lease_wait: bool,
    /// Seconds, 10 to 86,400. Default 300: long enough that a stalled renewal is noticed before the lease is lost,
    /// short enough that a dead holder does not block for long.
    pub lease_ttl_s: i64,
    /// Milliseconds, 100 to 60,000. Default 5,000.
    pub connect_timeout_ms: i64,
    /// Milliseconds, 100 to 3,600,000. Default 30,000.
    pub idle_timeout_ms: i64,
    /// Milliseconds, 100 to 3,600,000. Default 60,000.
    pub total_timeout_ms: i64,
    /// Bytes, 1,024 to 67,108,864. Default 1 MiB.
    pub max_response_bytes: i64,
    /// Seconds, 1 to 2,592,000. Default 86,400: work that waited a day acts on a world that has moved on.
    pub start_by_s: i64,
    /// Seconds, 1 to 5,184,000. Default 172,800: a day to begin and a day to end.
    pub finish_by_s: i64,
    /// 1 to 100. Default 5.
    pub max_attempts: i64,
    /// Milliseconds, 1 to 3,600,000. Default 1,000.
    pub retry_base_ms: i64,
    /// Milliseconds, 1 to 86,400,000. Default 300,000.
    pub retry_max_ms: i64,
    /// Seconds, 1 to 2,592,000. Default 86,400, what Stripe's API promises and others have copied.
    pub key_window_s: i64,
    /// Seconds, 0 to 2,592,000. `None`, the default: the lease is kept until the run is resolved.
    pub doubt_lease_s: Option<i64>,
    /// 1 to 4,096; `None`, the default: the share that `domain::limits` gives to a tool.
    pub max_in_flight: Option<i64>,
    /// A template as of [`super::lease::key`]. Default `{code}`.
    pub in_flight_key: String,
    /// 1 to 4,096; `None`, the default: no limit.
    pub max_in_flight_per_key: Option<i64>,
    /// 1 to 1,000,000; `None`, the default: no limit.
    pub max_queued: Option<i64>,
    /// See `script`. Default: none.
    pub script_args: Vec<String>,
    /// Default `None`: the script is not offered for verify.
    pub dry_run_arg: Option<String>,
    /// Memory 16 to 1,048,576 MiB, default 1,024; processor 1 to 86,400 s, default the total timeout; file 1 to 1,048,576
    /// MiB, default 1,024.
    pub limits: Limits,
}

impl Policy {
    /// Lays the engine's layer and the tool's layer over the defaults.
    ///
    /// Modes: the tool's layer, else what the catalogue row declares, else the engine's layer, else apply alone.
    /// `verify` is never assumed, because an engine that ignores the mode would execute.
    pub fn resolve(tool: &Tool, engine: Option<&Layer>, own: Option<&Layer>) -> Policy {
        Policy::layered(tool.engine == "script", tool.declared_modes.as_ref(), engine, own)
    }

    /// The policy for what nobody has said anything about: the defaults.
    pub fn cautious() -> Policy {
        Policy::layered(false, None, None, None)
    }

    fn layered(is_script: bool, catalogued: Option<&Vec<Mode>>, engine: Option<&Layer>, own: Option<&Layer>) -> Policy {
        let empty = Layer::default();
        let (engine, own) = (engine.unwrap_or(&empty), own.unwrap_or(&empty));
        macro_rules! pick {
            ($field:ident, $default:expr, $min:expr, $max:expr) => {
                own.$field.or(engine.$field).unwrap_or($default).clamp($min, $max)
            };
        }
        macro_rules! optional {
            ($field:ident, $min:expr, $max:expr) => {
                own.$field.or(engine.$field).map(|value| value.clamp($min, $max))
            };
        }
        let declared = own.modes.clone().or_else(|| catalogued.cloned()).or_else(|| engine.modes.clone());
        let dry_run_arg = own.dry_run_arg.clone().or_else(|| engine.dry_run_arg.clone());
        let modes = offered(declared, is_script, dry_run_arg.is_some());
        let total_timeout_ms = pick!(total_timeout_ms, 60_000, 100, 3_600_000);
        Policy {
            endpoint: if is_script {
                Some(SCRIPTS.into())
            } else {
                own.endpoint.clone().or_else(|| engine.endpoint.clone())
            },
            modes,
            idempotent: own.idempotent.or(engine.idempotent).unwrap_or(false),
            lease: own.lease.clone().or_else(|| engine.lease.clone()).unwrap_or_else(|| "tool:{code}".into()),
            lease_wait: own.lease_wait.or(engine.lease_wait).unwrap_or(false),
            lease_ttl_s: pick!(lease_ttl_s, 300, 10, 86_400),
            // A program is started or not; there is nothing to connect to.
            connect_timeout_ms: if is_script { 0 } else { pick!(connect_timeout_ms, 5_000, 100, 60_000) },
            idle_timeout_ms: pick!(idle_timeout_ms, 30_000, 100, 3_600_000),
            total_timeout_ms,
            max_response_bytes: pick!(max_response_bytes, 1 << 20, 1_024, 64 << 20),
            start_by_s: pick!(start_by_s, 86_400, 1, 2_592_000),
            finish_by_s: pick!(finish_by_s, 172_800, 1, 5_184_000),
            max_attempts: pick!(max_attempts, 5, 1, 100),
            retry_base_ms: pick!(retry_base_ms, 1_000, 1, 3_600_000),
            retry_max_ms: pick!(retry_max_ms, 300_000, 1, 86_400_000),
            key_window_s: pick!(key_window_s, 86_400, 1, 2_592_000),
            doubt_lease_s: optional!(doubt_lease_s, 0, 2_592_000),
            max_in_flight: optional!(max_in_flight, 1, 4_096),
            in_flight_key: own
                .in_flight_key
                .clone()
                .or_else(|| engine.in_flight_key.clone())
                .unwrap_or_else(|| "{code}".into()),
            max_in_flight_per_key: optional!(max_in_flight_per_key, 1, 4_096),
            max_queued: optional!(max_queued, 1, 1_000_000),
            script_args: own.script_args.clone().or_else(|| engine.script_args.clone()).unwrap_or_default(),
            dry_run_arg,
            limits: Limits {
                memory_mb: pick!(max_memory_mb, 1_024, 16, 1 << 20),
                cpu_s: pick!(max_cpu_s, (total_timeout_ms + 999) / 1_000, 1, 86_400),
                file_mb: pick!(max_file_mb, 1_024, 1, 1 << 20),
            },
        }
    }

    /// True for a tool whose engine starts programs.
    pub fn is_script(&self) -> bool {
        self.endpoint.as_deref() == Some(SCRIPTS)
    }

    /// True when the tool offers the mode.
    pub fn offers(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }
}

/// The modes that are offered, plan among them. A script without a dry-run argument cannot be told to change nothing, and
/// one with it can: that is its declaration.
fn offered(declared: Option<Vec<Mode>>, is_script: bool, has_dry_run: bool) -> Vec<Mode> {
    let mut modes = declared.unwrap_or_else(|| match is_script && has_dry_run {
        true => vec![Mode::Verify, Mode::Apply],
        false => vec![Mode::Apply],
    });
    modes.retain(|mode| *mode != Mode::Verify || !is_script || has_dry_run);
    modes.push(Mode::Plan);
    modes.sort_unstable();
    modes.dedup();
    modes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(modes: serde_json::Value) -> Tool {
        Tool::from_row(json!({"code": "D", "status": "active", "modes": modes})).unwrap()
    }

    #[test]
    fn the_more_special_layer_wins_field_by_field() {
        let engine = Layer { endpoint: Some("a".into()), lease_ttl_s: Some(60), ..Layer::default() };
        let own = Layer { endpoint: Some("b".into()), ..Layer::default() };
        let policy = Policy::resolve(&tool(json!(null)), Some(&engine), Some(&own));
        assert_eq!((policy.endpoint.as_deref(), policy.lease_ttl_s), (Some("b"), 60));
        assert_eq!(policy.lease, "tool:{code}");
    }

    #[test]
    fn verify_is_never_assumed() {
        let plain = Policy::resolve(&tool(json!(null)), None, None);
        assert_eq!(plain.modes, [Mode::Plan, Mode::Apply]);
        assert!(!plain.offers(Mode::Verify));
        let engine = Layer { modes: Some(vec![Mode::Verify]), ..Layer::default() };
        assert!(Policy::resolve(&tool(json!(null)), Some(&engine), None).offers(Mode::Verify));
        assert!(!Policy::resolve(&tool(json!(["apply"])), Some(&engine), None).offers(Mode::Verify));
    }

    #[test]
    fn a_script_offers_verify_exactly_when_it_has_a_dry_run_argument() {
        let script = |modes| Tool { engine: "script".into(), ..tool(modes) };
        let dry = Layer { dry_run_arg: Some("-n".into()), ..Layer::default() };
        let both = Layer { modes: Some(vec![Mode::Verify, Mode::Apply]), ..Layer::default() };
        assert_eq!(Policy::resolve(&script(json!(null)), None, None).modes, [Mode::Plan, Mode::Apply]);
        assert_eq!(Policy::resolve(&script(json!(null)), None, Some(&dry)).modes, Mode::ALL);
        assert_eq!(Policy::resolve(&script(json!(["apply"])), None, Some(&dry)).modes, [Mode::Plan, Mode::Apply]);
        assert_eq!(Policy::resolve(&script(json!(["verify"])), Some(&both), None).modes, [Mode::Plan]);
        let policy =
            Policy::resolve(&script(json!(null)), Some(&both), Some(&Layer { endpoint: Some("x".into()), ..dry }));
        assert!(policy.is_script() && policy.limits.cpu_s == 60 && policy.limits.memory_mb == 1_024, "{policy:?}");
    }

    #[test]
    fn bounds_hold_whatever_a_row_says() {
        let wild = Layer { lease_ttl_s: Some(-5), total_timeout_ms: Some(i64::MAX), ..Layer::default() };
        let policy = Policy::resolve(&tool(json!(null)), None, Some(&wild));
        assert_eq!((policy.lease_ttl_s, policy.total_timeout_ms), (10, 3_600_000));
    }
}
