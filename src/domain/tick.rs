//! A tick: one moment at which a tool's schedule came due. What makes its run the same run however often it is asked for,
//! and the name of the pg_cron job that asks.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cron;

/// What our jobs' names begin with.
pub const PREFIX: &str = "dot_wrapper:";
/// pg_cron keeps a job's name in a `name`, which holds so many bytes.
const MAX_NAME: usize = 63;

/// One tool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick<'a> {
    /// The tool.
    pub code: &'a str,
    /// When it was due, in seconds since 1970.
    pub at: i64,
}

impl Tick<'_> {
    /// The process run of the tick: a UUIDv8 out of tool and moment.
    pub fn process_run_id(&self) -> Uuid {
        let text = format!("dot_wrapper tick\n{}\n{}", cron::rfc3339(self.at), self.code);
        let digest = Sha256::digest(text.as_bytes());
        uuid::Builder::from_custom_bytes(std::array::from_fn(|i| digest[i])).into_uuid()
    }

    /// Its idempotency key.
    pub fn key(&self) -> String {
        format!("tick:{}", cron::rfc3339(self.at))
    }
}

/// The name of the job for a tool: the code, where that is short enough, else its beginning and a digest.
pub fn job_name(code: &str) -> String {
    let name = format!("{PREFIX}{code}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let digest = Sha256::digest(code.as_bytes());
    let mut cut = MAX_NAME - 17;
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}~{:016x}", &name[..cut], u64::from_be_bytes(std::array::from_fn(|i| digest[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_the_same_whoever_asks_and_another_one_is_not() {
        let tick = Tick { code: "DOT-1", at: 1_795_406_700 };
        let id = tick.process_run_id();
        assert_eq!(id, Tick { code: "DOT-1", at: 1_795_406_700 }.process_run_id());
        assert_ne!(id, Tick { code: "DOT-2", ..tick }.process_run_id());
        assert_ne!(id, Tick { at: tick.at + 60, ..tick }.process_run_id());
        assert_eq!((id.get_version_num(), tick.key().as_str()), (8, "tick:2026-11-23T04:05:00Z"));
        // What is in ledgers stays findable.
        assert_eq!(id.to_string(), "833a70f1-4c1d-8776-a949-2b5ad99cd78f");
    }

    #[test]
    fn a_job_s_name_fits_and_tells_codes_apart() {
        assert_eq!(job_name("DOT-KG-017"), "dot_wrapper:DOT-KG-017");
        let long = |end: &str| job_name(&format!("{}{end}", "ä".repeat(60)));
        assert!(long("1").len() <= MAX_NAME && long("1").starts_with("dot_wrapper:ä"));
        assert_ne!(long("1"), long("2"));
    }
}
