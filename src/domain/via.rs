//! By which way a run is asked for, and what that way wants besides the call: nothing here lets a run past a gate.

use serde::Serialize;

use super::error::{DotError, SqlState};

/// The way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `fn_dot_run` and `fn_dot_run_all`.
    #[default]
    Call,
    /// A tick of a schedule.
    Schedule,
    /// A change of a table.
    Trigger,
    /// A row of the job queue.
    Job,
    /// A row of the request table.
    Request,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 5] = [Source::Call, Source::Schedule, Source::Trigger, Source::Job, Source::Request];

    /// Its name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Call => "call",
            Source::Schedule => "schedule",
            Source::Trigger => "trigger",
            Source::Job => "job",
            Source::Request => "request",
        }
    }

    /// Reads a name of the ledger.
    pub fn parse(text: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// What to do about other runs of the same tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing; the lease decides.
    #[default]
    Allow,
    /// Refuse this one while another is not over, or if an event has asked for its work since this moment.
    Skip {
        /// Milliseconds since 1970; `None`: only what is not over counts.
        since: Option<i64>,
    },
    /// Refuse this one if an event has asked for its work since this moment; one that is not over is no hindrance.
    Covered {
        /// Milliseconds since 1970.
        since: i64,
    },
}

/// A moment that was to be met, and was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The moment, as people and machines write it.
    pub due: String,
    /// Seconds since then.
    pub late_s: i64,
    /// Seconds within which it could have started.
    pub window_s: i64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The way.
    pub source: Source,
    /// Which schedule, table, job or request.
    pub source_ref: Option<String>,
    /// On whose behalf, as the caller says: nothing is decided by it.
    pub actor: Option<String>,
    /// The OID of the role that requests; `None`: the current user.
    pub requester: Option<u32>,
    /// Whether the run is queued without its lease, and takes it when it is its turn.
    pub waits: bool,
    /// Seconds within which it has to start, where that is less than the policy says.
    pub start_by_s: Option<i64>,
    /// The moment for which it comes too late: it is refused.
    pub missed: Option<Missed>,
    /// Other runs of the same tool.
    pub overlap: Overlap,
    /// Whether a run of the same role, tool, mode and arguments that came with this wish and was not started yet will do.
    pub coalesce: bool,
}

/// How the keys of ticks and of jobs begin.
const RESERVED: [&str; 2] = ["tick:", "job:"];

/// The longest `source_ref` and `actor`, in characters.
pub const MAX_NOTE: usize = 200;

impl Via {
    /// A plain call.
    pub fn call() -> Via {
        Via::default()
    }

    /// Refuses keys that are for the runs of ticks and jobs: whoever could take them beforehand would keep those from running.
    ///
    /// # Errors
    /// 22023.
    pub fn check_key(&self, key: &str) -> Result<(), DotError> {
        let reserved = match self.source {
            Source::Call | Source::Request | Source::Trigger => {
                RESERVED.iter().find(|prefix| key.starts_with(**prefix))
            }
            Source::Job => RESERVED.first().filter(|prefix| key.starts_with(**prefix)),
            Source::Schedule => None,
        };
        let Some(prefix) = reserved else { return Ok(()) };
        Err(DotError::new(SqlState::InvalidParameterValue, format!("idempotency_key must not begin with \"{prefix}\""))
            .detail("Such keys are those of scheduled runs and of jobs.")
            .hint("choose another key"))
    }

    /// The same with its texts as they are kept: without control characters, and cut.
    #[must_use]
    pub fn tidy(mut self) -> Via {
        let tidy = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_NOTE).collect::<String>();
        self.source_ref = self.source_ref.map(tidy);
        self.actor = self.actor.map(tidy);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_read_as_it_is_written() {
        for source in Source::ALL {
            assert_eq!(Source::parse(source.as_str()), Some(source));
        }
        assert_eq!(Source::parse("elsewhere"), None);
    }

    #[test]
    fn keys_of_ticks_and_jobs_are_for_them() {
        let of = |source, key| Via { source, ..Via::call() }.check_key(key).is_ok();
        for source in [Source::Call, Source::Request, Source::Trigger] {
            assert!(!of(source, "tick:x") && !of(source, "job:1") && of(source, "a tick:") && of(source, ""));
        }
        assert!(of(Source::Schedule, "tick:x") && of(Source::Job, "job:1") && !of(Source::Job, "tick:x"));
    }

    #[test]
    fn what_others_say_is_kept_short_and_plain() {
        let via = Via { actor: Some(format!("a\nb{}", "x".repeat(300))), ..Via::call() }.tidy();
        let actor = via.actor.unwrap();
        assert_eq!((actor.chars().count(), &actor[..3]), (MAX_NOTE, "abx"));
    }
}
