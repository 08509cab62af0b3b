//! Fail points: places in the course of a run at which a test makes the process die, fail or wait.
//!
//! Compiled only with the cargo feature `fail_points`, which no production build has; without it [`at`] is nothing. A
//! superuser switches points on with the setting `dot_wrapper.fail_points`, entries separated by semicolons:
//!
//! ```text
//! claim_before_commit=abort(DOT-3) once; settle_before_commit=wait after 2 #17
//! ```
//!
//! Actions: `abort` (SIGKILL to itself, a crash of the server), `error` (an ERROR), `wait` (until the setting has the
//! entry no more). In brackets the only tool that it is for. Then, in any order: `once`, `times N`, `after N` (not the
//! first N times), `#TEXT` (tells the entry from an earlier one that reads the same).
//!
//! Who comes by a point that the setting names writes a line `ENTRY<tab>PID` into the file `dot_wrapper.fail_points` of
//! the data directory. It outlives a crash: that is how times are counted, and how a test sees that a point was reached.
//! Does not live here: where the points are.

/// The points, in the order in which a run comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `fn_dot_run` knows its extension, and has looked at nothing else.
    RequestBegun,
    /// `fn_dot_run` has written all it writes.
    RequestBeforeReturn,
    /// What is to wake somebody is committed; what the transaction has changed is not told yet, and nobody is woken.
    CommittedNotTold,
    /// The worker knows its extension, and has looked for nothing to claim yet.
    ClaimBegun,
    /// A run comes to the second gate.
    ClaimGate,
    /// The intents are written and not committed. Once for each run.
    ClaimBeforeCommit,
    /// The intents are on disk, and nothing is handed over yet. Once for each run.
    ClaimAfterCommit,
    /// A call was handed to the engine.
    Submitted,
    /// A report has come, and its outcome is recorded nowhere.
    ReportReceived,
    /// The acceptances of agents are recorded and committed.
    AcceptedRecorded,
    /// Ends are written and not committed. Once for each run.
    SettleBeforeCommit,
    /// Ends are on disk.
    SettleAfterCommit,
    /// A dead worker's runs are taken over, not committed. Once for each run.
    RecoverBeforeCommit,
    /// A job has become a run, not committed.
    JobTaken,
    /// Jobs that have become runs are committed. Once for each of them.
    JobsCommitted,
    /// A job has been told how its run stands, not committed.
    JobTold,
}

#[cfg(feature = "fail_points")]
pub use active::{at, define, each};

/// Nothing, since this is built without fail points.
#[cfg(not(feature = "fail_points"))]
#[inline(always)]
pub fn at(_point: Point, _code: &str) {}

/// Nothing, since this is built without fail points.
#[cfg(not(feature = "fail_points"))]
#[inline(always)]
pub fn each<'a>(_point: Point, _codes: impl IntoIterator<Item = &'a str>) {}

#[cfg(feature = "fail_points")]
mod active {
    use std::ffi::CString;
    use std::fs::OpenOptions;
    use std::io::{Read, Write};
    use std::time::Duration;

    use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
    use pgrx::pg_sys;

    use super::Point;
    use crate::pg::{latch, log};

    static FAIL_POINTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
    /// In the data directory, which every process of the server has as its own.
    const JOURNAL: &str = "dot_wrapper.fail_points";
    /// Between two looks at the setting while waiting.
    const STEP: Duration = Duration::from_millis(10);

    /// Defines the setting.
    pub fn define() {
        GucRegistry::define_string_guc(
            c"dot_wrapper.fail_points",
            c"Points at which processes die, fail or wait. For tests.",
            c"",
            &FAIL_POINTS,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
        );
    }

    /// A run of tool `code` comes by, or one that is not known, with an empty code.
    pub fn at(point: Point, code: &str) {
        let setting = setting();
        if setting.is_empty() {
            return;
        }
        for entry in entries(&setting) {
            match Entry::parse(entry) {
                Some(entry) if entry.is_for(point, code) && entry.is_due() => entry.act(),
                Some(_) => {}
                None => pgrx::error!("dot_wrapper.fail_points: cannot read \"{entry}\""),
            }
        }
    }

    /// Runs of these tools come by.
    pub fn each<'a>(point: Point, codes: impl IntoIterator<Item = &'a str>) {
        codes.into_iter().for_each(|code| at(point, code));
    }

    fn setting() -> String {
        FAIL_POINTS.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn entries(setting: &str) -> impl Iterator<Item = &str> {
        setting.split(';').map(str::trim).filter(|entry| !entry.is_empty())
    }

    impl Point {
        fn name(self) -> &'static str {
            match self {
                Point::RequestBegun => "request_begun",
                Point::RequestBeforeReturn => "request_before_return",
                Point::CommittedNotTold => "committed_not_told",
                Point::ClaimBegun => "claim_begun",
                Point::ClaimGate => "claim_gate",
                Point::ClaimBeforeCommit => "claim_before_commit",
                Point::ClaimAfterCommit => "claim_after_commit",
                Point::Submitted => "submitted",
                Point::ReportReceived => "report_received",
                Point::AcceptedRecorded => "accepted_recorded",
                Point::SettleBeforeCommit => "settle_before_commit",
                Point::SettleAfterCommit => "settle_after_commit",
                Point::RecoverBeforeCommit => "recover_before_commit",
                Point::JobTaken => "job_taken",
                Point::JobsCommitted => "jobs_committed",
                Point::JobTold => "job_told",
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Action {
        Abort,
        Error,
        Wait,
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Entry<'a> {
        text: &'a str,
        point: &'a str,
        action: Action,
        code: Option<&'a str>,
        after: usize,
        times: usize,
    }

    impl<'a> Entry<'a> {
        fn parse(text: &'a str) -> Option<Entry<'a>> {
            let (point, rest) = text.split_once('=')?;
            let mut words = rest.split_whitespace();
            let first = words.next()?;
            let (action, code) = match first.split_once('(') {
                Some((action, code)) => (action, Some(code.strip_suffix(')')?)),
                None => (first, None),
            };
            let action = match action {
                "abort" => Action::Abort,
                "error" => Action::Error,
                "wait" => Action::Wait,
                _ => return None,
            };
            let mut entry = Entry { text, point: point.trim_end(), action, code, after: 0, times: usize::MAX };
            while let Some(word) = words.next() {
                match word {
                    "once" => entry.times = 1,
                    "times" => entry.times = words.next()?.parse().ok()?,
                    "after" => entry.after = words.next()?.parse().ok()?,
                    tag if tag.starts_with('#') => {}
                    _ => return None,
                }
            }
            Some(entry)
        }

        fn is_for(&self, point: Point, code: &str) -> bool {
            self.point == point.name() && self.code.is_none_or(|wanted| wanted == code)
        }

        /// Writes that somebody came by; whether it is his turn.
        fn is_due(&self) -> bool {
            match self.count() {
                Ok(before) => before >= self.after && before - self.after < self.times,
                Err(error) => pgrx::error!("dot_wrapper.fail_points: {JOURNAL}: {error}"),
            }
        }

        /// How many came by before.
        fn count(&self) -> std::io::Result<usize> {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(JOURNAL)?;
            file.lock()?;
            let mut lines = String::new();
            file.read_to_string(&mut lines)?;
            file.write_all(format!("{}\t{}\n", self.text, std::process::id()).as_bytes())?;
            Ok(lines.lines().filter(|line| line.rsplit_once('\t').is_some_and(|(text, _)| text == self.text)).count())
        }

        fn act(&self) {
            log::line(&format!("dot_wrapper: fail point {}", self.text));
            match self.action {
                Action::Abort => die(),
                Action::Error => pgrx::error!("fail point {}", self.text),
                Action::Wait => self.wait(),
            }
        }

        fn wait(&self) {
            let mut reloaded = false;
            while entries(&setting()).any(|entry| entry == self.text) {
                latch::pause(STEP);
                reloaded |= crate::pg::signals::reload_config_if_asked();
            }
            // Whose latch was set, or configuration changed, meanwhile is to notice for himself.
            latch::set_own();
            if reloaded {
                // SAFETY: a process-local flag; setting it is what the SIGHUP handler does.
                unsafe { (&raw mut pg_sys::ConfigReloadPending).write_volatile(1) };
            }
        }
    }

    /// As the kernel ends a process that runs out of memory, at once.
    fn die() -> ! {
        // SAFETY: no memory is involved. The signal cannot be blocked, so the loop is not left.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
            loop {
                libc::pause();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn entries_are_read_or_refused() {
            let entry = Entry::parse("claim_gate=abort(DOT-3) after 2 times 5 #9").unwrap();
            assert_eq!((entry.point, entry.action, entry.code), ("claim_gate", Action::Abort, Some("DOT-3")));
            assert_eq!((entry.after, entry.times), (2, 5));
            assert!(entry.is_for(Point::ClaimGate, "DOT-3"));
            assert!(!entry.is_for(Point::ClaimGate, "DOT-4"));
            assert!(!entry.is_for(Point::Submitted, "DOT-3"));
            let plain = Entry::parse("submitted=wait").unwrap();
            assert_eq!((plain.code, plain.after, plain.times), (None, 0, usize::MAX));
            assert_eq!(Entry::parse("submitted=error once").unwrap().times, 1);
            for bad in ["submitted", "submitted=", "submitted=explode", "submitted=abort(x", "submitted=abort twice"] {
                assert_eq!(Entry::parse(bad), None, "{bad}");
            }
            assert_eq!(entries(" a=wait ;; b=error; ").collect::<Vec<_>>(), ["a=wait", "b=error"]);
        }
    }
}
