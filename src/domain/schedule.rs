//! What runs a tool by itself: its trigger type, its schedule, and what a tick of that asks for.

use serde_json::Value;

use super::cron;
use super::mode::Mode;
use super::tick::{self, Tick};
use super::tool::Tool;
use super::via::{Missed, Overlap, Source, Via};

/// What a tool's `trigger_type` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trigger {
    /// A schedule runs it.
    pub cron: bool,
    /// Changes of tables run it.
    pub event: bool,
}

impl Trigger {
    /// Reads the catalogue's column, in the usual spellings; anything else is neither.
    pub fn of(tool: &Tool) -> Trigger {
        let text = tool.row.get("trigger_type").and_then(Value::as_str).unwrap_or_default();
        let word: String = text.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
        match word.as_str() {
            "cron" | "schedule" | "scheduled" => Trigger { cron: true, event: false },
            "event" | "onevent" | "trigger" => Trigger { cron: false, event: true },
            "dual" => Trigger { cron: true, event: true },
            _ => Trigger::default(),
        }
    }

    /// Whether both run it.
    pub fn is_dual(self) -> bool {
        self.cron && self.event
    }
}

/// What to do about a tick while another run of the tool is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The tick is refused.
    #[default]
    Skip,
    /// It waits for the lease, as long as its window is open.
    Queue,
    /// The lease decides.
    Allow,
}

impl Policy {
    /// Reads a word of the table.
    pub fn parse(text: &str) -> Option<Policy> {
        match text {
            "skip" => Some(Policy::Skip),
            "queue" => Some(Policy::Queue),
            "allow" => Some(Policy::Allow),
            _ => None,
        }
    }
}

/// A tool's schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// When, as it was written.
    pub text: String,
    /// What a tick asks for.
    pub mode: Mode,
    /// With which arguments.
    pub args: Value,
    /// What about others.
    pub overlap: Policy,
    /// Seconds after its moment within which a tick may start.
    pub window_s: i64,
}

impl Schedule {
    /// What the catalogue itself says: a column `schedule` or `cron_schedule`.
    pub fn of(tool: &Tool) -> Option<Schedule> {
        let columns = ["schedule", "cron_schedule"];
        let text = columns.iter().find_map(|name| tool.row.get(*name)?.as_str().filter(|text| !text.trim().is_empty()));
        text.map(|text| Schedule {
            text: text.to_owned(),
            mode: Mode::Apply,
            args: Value::Object(serde_json::Map::new()),
            overlap: Policy::Skip,
            window_s: 60,
        })
    }

    /// How the run of a tick is asked for, so many microseconds after 1970. For a dual tool, an event
    /// since the tick's moment may have asked for its work already.
    pub fn via(&self, tick: Tick<'_>, now_us: i64, is_dual: bool) -> Via {
        let late_s = (now_us - tick.at * 1_000_000).max(0) / 1_000_000;
        let since = is_dual.then_some(tick.at * 1000);
        let missed = Missed { due: cron::rfc3339(tick.at), late_s, window_s: self.window_s };
        Via {
            source: Source::Schedule,
            source_ref: Some(tick::job_name(tick.code)),
            waits: self.overlap == Policy::Queue,
            start_by_s: Some((self.window_s - late_s).max(1)),
            missed: (late_s > self.window_s).then_some(missed),
            overlap: match (self.overlap, since) {
                (Policy::Skip, since) => Overlap::Skip { since },
                (_, Some(since)) => Overlap::Covered { since },
                (_, None) => Overlap::Allow,
            },
            ..Via::call()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(extra: Value) -> Tool {
        let mut row = json!({"code": "DOT-1"});
        row.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Tool::from_row(row).unwrap()
    }

    #[test]
    fn trigger_types_are_read_in_every_usual_spelling() {
        let read = |word: Value| Trigger::of(&tool(json!({"trigger_type": word})));
        let [cron, event] = [[true, false], [false, true]].map(|[cron, event]| Trigger { cron, event });
        assert_eq!((read(json!("cron")), read(json!(" Scheduled "))), (cron, cron));
        assert_eq!((read(json!("event")), read(json!("on-event")), read(json!("ON_EVENT"))), (event, event, event));
        assert!(read(json!("dual")).is_dual() && !cron.is_dual());
        for other in [json!("manual"), json!(null), json!(7), json!("cronish")] {
            assert_eq!(read(other), Trigger::default());
        }
        assert_eq!(Trigger::of(&tool(json!({}))), Trigger::default());
    }

    #[test]
    fn the_catalogue_s_own_column_is_a_schedule_with_the_defaults() {
        let read = |row| Schedule::of(&tool(row)).map(|schedule| schedule.text);
        assert_eq!(read(json!({"schedule": "@daily"})).as_deref(), Some("@daily"));
        assert_eq!(read(json!({"schedule": null, "cron_schedule": "1 * * * *"})).as_deref(), Some("1 * * * *"));
        assert_eq!((read(json!({"schedule": " "})), read(json!({"schedule": 5})), read(json!({}))), (None, None, None));
    }

    #[test]
    fn a_tick_starts_within_its_window_or_not_at_all() {
        let schedule = Schedule { window_s: 90, ..Schedule::of(&tool(json!({"schedule": "@daily"}))).unwrap() };
        let tick = Tick { code: "DOT-1", at: 1_795_406_700 };
        let via = |late_us: i64, dual| schedule.via(tick, tick.at * 1_000_000 + late_us, dual);
        let on_time = via(250_000, false);
        assert_eq!((on_time.start_by_s, on_time.missed, on_time.waits), (Some(90), None, false));
        assert_eq!(on_time.source_ref.as_deref(), Some("dot_wrapper:DOT-1"));
        assert_eq!((via(90_999_999, false).start_by_s, via(90_999_999, false).missed), (Some(1), None));
        let missed = via(91_000_000, false).missed.unwrap();
        assert_eq!((missed.due.as_str(), missed.late_s, missed.window_s), ("2026-11-23T04:05:00Z", 91, 90));
        assert_eq!(via(1_500_000, false).overlap, Overlap::Skip { since: None });
        assert_eq!(via(1_500_000, true).overlap, Overlap::Skip { since: Some(1_795_406_700_000) });
    }

    #[test]
    fn overlap_says_what_gives_way() {
        let with = |overlap, dual| {
            let schedule = Schedule { overlap, ..Schedule::of(&tool(json!({"schedule": "@daily"}))).unwrap() };
            let via = schedule.via(Tick { code: "DOT-1", at: 7 }, 9_000_000, dual);
            (via.waits, via.overlap)
        };
        assert_eq!(with(Policy::Queue, false), (true, Overlap::Allow));
        assert_eq!(with(Policy::Allow, false), (false, Overlap::Allow));
        assert_eq!(with(Policy::Queue, true), (true, Overlap::Covered { since: 7000 }));
        assert_eq!(
            ["skip", "queue", "allow", "other"].map(Policy::parse),
            [Some(Policy::Skip), Some(Policy::Queue), Some(Policy::Allow), None]
        );
    }
}
