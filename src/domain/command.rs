//! A row of the IU-command layer's ledger, `dot_iu_command_run`, read tolerantly: an adopted one has columns and types of
//! its own. Does not live here: who may see it.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::moment;

/// One command of that layer, as far as its row tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// Its id, whatever type it is of.
    pub id: Option<String>,
    /// The process run that it names, in a column or in its details.
    pub process_run_id: Option<Uuid>,
    /// The command's name.
    pub name: Option<String>,
    /// plan, verify or apply, as it stands.
    pub mode: Option<String>,
    /// Its state, as it stands.
    pub status: Option<String>,
    /// Whether it changes anything.
    pub mutating: Option<bool>,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// Who asked.
    pub requested_by: Option<String>,
    /// When, in microseconds since 2000.
    pub at: Option<i64>,
    /// When it was over, likewise.
    pub finished_at: Option<i64>,
}

const DETAILS: [&str; 4] = ["detail", "details", "payload", "metadata"];
const TIMES: [&str; 10] = [
    "run_at",
    "requested_at",
    "at",
    "started_at",
    "created_at",
    "executed_at",
    "logged_at",
    "date_created",
    "occurred_at",
    "ts",
];

impl Command {
    /// Reads a row. What is not there, or of a type that makes no sense there, is `None`.
    pub fn from_row(row: &Value) -> Command {
        let none = Map::new();
        let row = row.as_object().unwrap_or(&none);
        let detail = DETAILS.iter().find_map(|name| row.get(*name)?.as_object()).unwrap_or(&none);
        let column = |names: &[&str]| names.iter().find_map(|name| text(row.get(*name)?));
        let either = |names: &[&str]| column(names).or_else(|| names.iter().find_map(|name| text(detail.get(*name)?)));
        let time = |names: &[&str]| names.iter().find_map(|name| moment::micros_since_2000(row.get(*name)?.as_str()?));
        let finished_at = time(&["finished_at", "completed_at", "ended_at"]);
        Command {
            id: column(&["run_id", "id", "command_run_id", "uuid"]),
            process_run_id: either(&["process_run_id"]).and_then(|id| id.parse().ok()),
            name: column(&["command_name", "command", "command_code", "name"]),
            mode: column(&["run_mode", "mode"]),
            status: column(&["run_status", "status", "state"]),
            mutating: ["mutating", "is_mutating"].iter().find_map(|name| row.get(*name)?.as_bool()),
            reason: either(&["reason", "refusal_reason", "reason_code"]),
            message: either(&["message", "error_message", "error"]),
            requested_by: column(&["run_by", "requested_by", "actor", "executed_by", "created_by", "user_created"]),
            at: time(&TIMES).or(finished_at),
            finished_at,
        }
    }
}

/// Texts, numbers and truth values; nothing that is built of others.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shipped_table_is_read_whole() {
        let row = json!({"run_id": 7, "command_name": "iu.cut", "run_mode": "apply", "run_status": "refused",
                         "mutating": true, "detail": {"reason": "gate_closed", "message": "no",
                         "process_run_id": "00000000-0000-7000-8000-000000000001"},
                         "run_by": "ann", "run_at": "2000-01-01T00:00:01+00:00"});
        let command = Command::from_row(&row);
        assert_eq!(command.id.as_deref(), Some("7"));
        assert_eq!(command.process_run_id, "00000000-0000-7000-8000-000000000001".parse().ok());
        assert_eq!((command.name.as_deref(), command.status.as_deref()), (Some("iu.cut"), Some("refused")));
        assert_eq!((command.mode.as_deref(), command.mutating), (Some("apply"), Some(true)));
        assert_eq!((command.reason.as_deref(), command.message.as_deref()), (Some("gate_closed"), Some("no")));
        assert_eq!((command.requested_by.as_deref(), command.at), (Some("ann"), Some(1_000_000)));
    }

    #[test]
    fn other_columns_and_types_are_found_by_their_usual_names() {
        let id = "00000000-0000-7000-8000-000000000002";
        let row = json!({"id": id, "process_run_id": id, "command": "x", "mode": "plan", "status": "ok",
                         "is_mutating": false, "actor": "bob", "created_at": "2000-01-01", "completed_at": "2000-01-02"});
        let command = Command::from_row(&row);
        assert_eq!((command.id.as_deref(), command.process_run_id), (Some(id), id.parse().ok()));
        assert_eq!((command.at, command.finished_at), (Some(0), Some(86_400_000_000)));
        assert_eq!((command.mutating, command.requested_by.as_deref()), (Some(false), Some("bob")));
    }

    #[test]
    fn what_makes_no_sense_is_nothing_and_never_an_error() {
        for row in [
            json!(null),
            json!([]),
            json!({}),
            json!({"run_id": [1], "mutating": "yes", "detail": "x",
                    "process_run_id": "no uuid", "run_at": 5, "run_mode": {"a": 1}}),
        ] {
            assert_eq!(Command::from_row(&row), Command::default(), "{row}");
        }
    }
}
