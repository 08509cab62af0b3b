//! A catalogue row, read tolerantly: real catalogues have more columns, and other types, than ours.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::canonical;
use super::mode::Mode;

/// Columns that change without the tool changing: they are left out of its version.
/// The first two are the wrapper's own doing; the others are what Directus and similar tools maintain.
const VOLATILE: [&str; 8] = [
    "usage_count",
    "last_executed",
    "updated_at",
    "date_updated",
    "modified_at",
    "user_updated",
    "updated_by",
    "modified_on",
];

/// One tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// `code`.
    pub code: String,
    /// `name`; the code where there is none.
    pub name: String,
    /// `status`, as it stands.
    pub status: String,
    /// `execution_engine`, as it stands.
    pub engine: String,
    /// The modes, where the catalogue itself declares them (a column `modes` or `supported_modes`).
    pub declared_modes: Option<Vec<Mode>>,
    /// Digest of everything that is not volatile.
    pub version: String,
    /// The whole row.
    pub row: Arc<Value>,
}

impl Tool {
    /// Reads a catalogue row.
    ///
    /// # Errors
    /// A line for people when the row is no object or has no code.
    pub fn from_row(row: Value) -> Result<Tool, String> {
        let Value::Object(map) = &row else { return Err("the catalogue row is no object".into()) };
        let code = text(map, "code").ok_or("the catalogue row has no code")?;
        Ok(Tool {
            name: text(map, "name").unwrap_or_else(|| code.clone()),
            status: text(map, "status").unwrap_or_default(),
            engine: text(map, "execution_engine").unwrap_or_default(),
            declared_modes: map.get("modes").or_else(|| map.get("supported_modes")).and_then(modes),
            version: version(map),
            code,
            row: Arc::new(row),
        })
    }

    /// True for a tool that may be run.
    pub fn is_active(&self) -> bool {
        self.status.trim().eq_ignore_ascii_case("active")
    }

    /// True when every key of the filter names a column whose value is the given one, or one of the given ones.
    ///
    /// # Errors
    /// The name of a key that is no column of the catalogue.
    pub fn matches(&self, filter: &Map<String, Value>) -> Result<bool, String> {
        let mut all = true;
        for (column, wanted) in filter {
            let Some(found) = self.row.get(column) else { return Err(column.clone()) };
            all &= match wanted {
                Value::Array(any) => any.iter().any(|one| same(one, found)),
                one => same(one, found),
            };
        }
        Ok(all)
    }
}

/// Values are compared as people write them: `1` and `"1"` are the same.
fn same(wanted: &Value, found: &Value) -> bool {
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    wanted == found || (!wanted.is_null() && !found.is_null() && plain(wanted) == plain(found))
}

fn text(map: &Map<String, Value>, key: &str) -> Option<String> {
    match map.get(key)? {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// `["plan","verify"]`, `"{plan,verify}"` or `"plan, verify"`. Unknown words are ignored: they grant nothing.
fn modes(value: &Value) -> Option<Vec<Mode>> {
    match value {
        Value::Array(items) => Some(items.iter().filter_map(|v| Mode::parse(v.as_str()?)).collect()),
        Value::String(s) => Some(
            s.trim_matches(['{', '}']).split(',').filter_map(|w| Mode::parse(w.trim().trim_matches('"'))).collect(),
        ),
        _ => None,
    }
}

fn version(map: &Map<String, Value>) -> String {
    let mut kept = map.clone();
    kept.retain(|key, _| !VOLATILE.contains(&key.as_str()));
    canonical::digest(&Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(extra: Value) -> Tool {
        let mut row = json!({"code": "DOT-1", "name": "one", "status": "active", "execution_engine": "agent_api"});
        row.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Tool::from_row(row).unwrap()
    }

    #[test]
    fn other_columns_and_types_are_tolerated() {
        let tool = tool(json!({"tier": 1, "status": " Active ", "tags": ["x"], "name": null}));
        assert!(tool.is_active());
        assert_eq!(tool.name, "DOT-1");
        assert!(Tool::from_row(json!({"name": "x"})).is_err());
        assert!(Tool::from_row(json!([])).is_err());
        assert!(!super::Tool::from_row(json!({"code": 7})).unwrap().is_active());
    }

    #[test]
    fn the_version_ignores_what_running_the_tool_changes() {
        let plain = tool(json!({}));
        assert_eq!(plain.version, tool(json!({"usage_count": 5, "last_executed": "2026-01-01"})).version);
        assert_ne!(plain.version, tool(json!({"script_path": "x"})).version);
    }

    #[test]
    fn declared_modes_are_read_in_every_usual_spelling() {
        for spelling in [json!(["plan", "verify"]), json!("{plan,verify}"), json!("plan, verify, teleport")] {
            assert_eq!(tool(json!({"modes": spelling})).declared_modes, Some(vec![Mode::Plan, Mode::Verify]));
        }
        assert_eq!(tool(json!({})).declared_modes, None);
    }

    #[test]
    fn filters_select_and_refuse_unknown_columns() {
        let tool = tool(json!({"tier": 2}));
        let ask = |filter: Value| tool.matches(filter.as_object().unwrap());
        assert_eq!(ask(json!({})), Ok(true));
        assert_eq!(ask(json!({"execution_engine": ["script", "agent_api"], "tier": "2"})), Ok(true));
        assert_eq!(ask(json!({"status": "retired"})), Ok(false));
        assert_eq!(ask(json!({"colour": "red"})), Err("colour".into()));
    }
}
