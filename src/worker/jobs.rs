//! The step of a worker's turn that takes jobs and tells them of their runs.
//!
//! Lives here: when. Does not live here: what is done (`run::jobs`).

use std::time::{Duration, Instant};

use super::context::Context;
use super::retry::Retry;
use super::turn::{self, Trouble};
use crate::pg::fail_point::{self, Point};
use crate::run::jobs::{self, Looked};

/// Between two looks that find nothing, where jobs are taken: so much a busy worker gives for looking.
const PAUSE: Duration = Duration::from_millis(50);
/// The same where none are taken.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// What the worker knows of jobs.
pub struct Jobs {
    /// When to look; `None`: not before somebody tells.
    look_at: Option<Instant>,
    looked_at: Instant,
    /// Not before.
    rested_at: Instant,
    retry: Retry,
    /// There is a source, as far as is known.
    is_set_up: bool,
    /// The last complaint in the log.
    said: Option<String>,
}

impl Jobs {
    /// A worker before this one may have left jobs that wait.
    pub fn start() -> Jobs {
        let now = Instant::now();
        Jobs {
            look_at: Some(now),
            looked_at: now,
            rested_at: now,
            retry: Retry::new("looking at the job queue"),
            is_set_up: true,
            said: None,
        }
    }

    /// There may be jobs, or runs of jobs may have moved.
    pub fn notice(&mut self) {
        self.look_by(self.rested_at);
    }

    /// Nobody has told of anything for a while: there may be jobs all the same, where there is a table of them. Who makes it known
    /// tells.
    pub fn poll(&mut self, interval: Duration) {
        if self.is_set_up && self.looked_at.elapsed() >= interval / 2 {
            self.notice();
        }
    }

    /// Looks, if it is time. True when runs were requested.
    pub fn step(&mut self, context: &Context) -> Result<bool, Trouble> {
        if !self.retry.is_due() || self.look_at.is_none_or(|at| Instant::now() < at) {
            return Ok(false);
        }
        match turn::transaction(context, c"looking at the job queue", jobs::look) {
            Ok(looked) => {
                fail_point::each(Point::JobsCommitted, looked.codes.iter().map(String::as_str));
                self.retry.note(Ok(()))?;
                Ok(self.done(looked))
            }
            Err(trouble) => self.retry.note(Err(trouble)).map(|()| false),
        }
    }

    /// How long until the step is due; `None` when nothing is known of.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.look_at.map(|at| self.retry.wait(at, now))
    }

    fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    fn done(&mut self, looked: Looked) -> bool {
        let now = Instant::now();
        self.looked_at = now;
        self.is_set_up = looked.is_set_up;
        let works = looked.is_set_up && looked.trouble.is_none();
        self.rested_at = now + if works { PAUSE } else { LONG_PAUSE };
        self.look_at = looked.again.map(|again| now + again.max(PAUSE));
        if looked.more {
            self.look_by(now);
        }
        let trouble = looked.trouble.map(|why| format!("no job is taken: {why}"));
        let say = trouble.or(looked.held.map(|why| format!("jobs wait: {why}")));
        if say != self.said {
            if let Some(text) = &say {
                pgrx::warning!("dot_wrapper: {text}");
            }
            self.said = say;
        }
        !looked.codes.is_empty()
    }
}
