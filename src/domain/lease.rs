//! Lease keys and renewal times. Who holds a lease is known to the database's lease functions alone.

use serde_json::Value;

use super::canonical;

/// Longest key that is stored as it is; a longer one is replaced by its digest.
const MAX_KEY: usize = 200;

/// The lease key of a run, or `None` for a tool that declares that it needs none.
///
/// The template is literal text with `{code}` and `{args.NAME}`; an argument is spelled as JSON unless it is a string,
/// and a missing one as nothing.
pub fn key(template: &str, code: &str, args: &Value) -> Option<String> {
    if template == "none" {
        return None;
    }
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            rest = after;
            out.push('{');
            continue;
        };
        match name.strip_prefix("args.") {
            Some(arg) => out.push_str(&spell(args.get(arg))),
            None if name == "code" => out.push_str(code),
            None => out.push_str(&format!("{{{name}}}")),
        }
        rest = tail;
    }
    out.push_str(rest);
    Some(if out.len() > MAX_KEY { canonical::digest(&Value::from(out)) } else { out })
}

/// Who holds a run's lease: the name handed to the lease functions.
pub fn holder(run_id: uuid::Uuid) -> String {
    format!("dot_run:{run_id}")
}

fn spell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => canonical::text(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_can_be_the_tool_a_resource_an_argument_or_none() {
        let args = json!({"scope": "eu", "n": 3});
        let key = |template| key(template, "DOT-1", &args);
        assert_eq!(key("tool:{code}"), Some("tool:DOT-1".into()));
        assert_eq!(key("graph"), Some("graph".into()));
        assert_eq!(key("{code}/{args.scope}/{args.n}/{args.none}"), Some("DOT-1/eu/3/".into()));
        assert_eq!(key("none"), None);
        assert_eq!(key("odd {x} {"), Some("odd {x} {".into()));
    }

    #[test]
    fn a_long_key_is_digested_and_stays_distinct() {
        let long = |c: &str| key("{args.x}", "D", &json!({"x": c.repeat(300)})).unwrap();
        assert_eq!(long("a").len(), 64);
        assert_ne!(long("a"), long("b"));
    }
}
