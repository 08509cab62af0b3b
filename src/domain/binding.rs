//! A tool bound to the changes of a table: what of them asks for a run, and with which arguments.

use serde_json::{Map, Value, json};

use super::mode::Mode;
use super::schedule::Schedule;
use super::via::{Source, Via};

/// A binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The tool.
    pub code: String,
    /// The table, with its schema, as PostgreSQL quotes it.
    pub relation: String,
    /// Of `insert`, `update`, `delete`.
    pub events: Vec<String>,
    /// Only updates that set one of these; empty: any.
    pub columns: Vec<String>,
    /// One event per row, not per statement.
    pub per_row: bool,
    /// A queued run that is like it will do.
    pub coalesce: bool,
    /// What is asked for.
    pub mode: Mode,
    /// Arguments that every event has.
    pub args: Value,
    /// The role that asks.
    pub run_as: String,
}

/// What happened to a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub op: &'static str,
    /// The key of the row that changed; `None` where a statement did.
    pub key: Option<Value>,
}

impl Binding {
    /// Whether it is meant for this kind of change.
    pub fn wants(&self, event: &Event) -> bool {
        self.events.iter().any(|wanted| wanted.eq_ignore_ascii_case(event.op)) && self.per_row == event.key.is_some()
    }

    /// The arguments of the run: the binding's own, and what happened.
    pub fn args(&self, event: Event) -> Value {
        let mut args = self.args.as_object().cloned().unwrap_or_else(Map::new);
        args.insert("table".to_owned(), json!(self.relation));
        args.insert("op".to_owned(), json!(event.op));
        if let Some(key) = event.key {
            args.insert("key".to_owned(), key);
        }
        Value::Object(args)
    }

    /// Why no run of its events does the work of a tick of this schedule; `None` where one does. As `store::crowd` has it.
    pub fn leaves(&self, schedule: &Schedule) -> Option<&'static str> {
        if self.per_row {
            return Some("they are per row");
        }
        if self.mode != schedule.mode {
            return Some("their mode is another");
        }
        // An event's own words count for nothing, unless the schedule says them too.
        let [own, scheduled] = [&self.args, &schedule.args].map(|args| args.as_object().cloned().unwrap_or_default());
        let said = |args: &Map<String, Value>, name| args.get(name).cloned();
        let rest = |mut args: Map<String, Value>| {
            args.retain(|name, _| name != "table" && name != "op");
            args
        };
        let is_said =
            |op: &String| said(&scheduled, "op").is_none_or(|wanted| wanted == json!(op.to_ascii_uppercase()));
        let is_met = said(&scheduled, "table").is_none_or(|table| table == json!(self.relation))
            && self.events.iter().any(is_said)
            && rest(own) == rest(scheduled.clone());
        (!is_met).then_some("their arguments are others")
    }

    /// How the run is asked for. It waits where the tool is busy: an event that was refused for that would be lost.
    pub fn via(&self, requester: u32) -> Via {
        Via {
            source: Source::Trigger,
            source_ref: Some(self.relation.clone()),
            requester: Some(requester),
            waits: true,
            coalesce: self.coalesce,
            ..Via::call()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::Policy;

    fn binding() -> Binding {
        Binding {
            code: "DOT-1".into(),
            relation: "public.t".into(),
            events: vec!["update".into()],
            columns: vec![],
            per_row: true,
            coalesce: true,
            mode: Mode::Apply,
            args: json!({"scope": "one", "op": "mine"}),
            run_as: "r".into(),
        }
    }

    #[test]
    fn the_arguments_say_what_happened_over_what_the_binding_says() {
        let event = Event { op: "UPDATE", key: Some(json!({"id": 7})) };
        assert_eq!(
            binding().args(event),
            json!({"scope": "one", "table": "public.t", "op": "UPDATE", "key": {"id": 7}})
        );
        let statement = Event { op: "DELETE", key: None };
        assert_eq!(binding().args(statement), json!({"scope": "one", "table": "public.t", "op": "DELETE"}));
    }

    #[test]
    fn a_trigger_that_the_binding_does_not_ask_for_is_not_meant() {
        let key = || Some(json!({"id": 7}));
        assert!(binding().wants(&Event { op: "UPDATE", key: key() }));
        assert!(!binding().wants(&Event { op: "INSERT", key: key() }));
        assert!(!binding().wants(&Event { op: "UPDATE", key: None }));
    }

    #[test]
    fn only_an_event_with_the_schedule_s_own_work_covers_a_tick() {
        let schedule = |args: Value| Schedule {
            text: "@daily".into(),
            mode: Mode::Apply,
            args,
            overlap: Policy::Skip,
            window_s: 60,
        };
        let scope = json!({"scope": "one"});
        assert_eq!(binding().leaves(&schedule(scope.clone())), Some("they are per row"));
        let whole = Binding { per_row: false, ..binding() };
        assert_eq!(whole.leaves(&schedule(scope.clone())), None);
        assert_eq!(
            Binding { mode: Mode::Verify, ..whole.clone() }.leaves(&schedule(scope)),
            Some("their mode is another")
        );
        let others = Some("their arguments are others");
        assert_eq!(whole.leaves(&schedule(json!({}))), others);
        assert_eq!(whole.leaves(&schedule(json!({"scope": "one", "n": 1}))), others);
        // What the schedule says of table and kind has to be what happened.
        assert_eq!(whole.leaves(&schedule(json!({"scope": "one", "table": "public.t", "op": "UPDATE"}))), None);
        assert_eq!(whole.leaves(&schedule(json!({"scope": "one", "table": "public.u"}))), others);
        assert_eq!(whole.leaves(&schedule(json!({"scope": "one", "op": "DELETE"}))), others);
    }

    #[test]
    fn an_event_waits_for_a_busy_tool() {
        let via = binding().via(7);
        assert!(via.waits && via.coalesce);
        assert_eq!(
            (via.source, via.requester, via.source_ref.as_deref()),
            (Source::Trigger, Some(7), Some("public.t"))
        );
    }
}
