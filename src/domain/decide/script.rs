//! The gates of the script engine: `engine` for what the catalogue and the setting say, `program` for what is on the disk.

use serde_json::json;

use crate::domain::gate::{Decision, Gate};
use crate::domain::script::{self, Command, Refusal, Roots};
use crate::domain::tool::Tool;

/// The engine gate, first half: the engine is on, and the tool names a program.
///
/// # Errors
/// The decision that blocks.
pub fn named<'a>(tool: &'a Tool, roots: &Roots) -> Result<&'a str, Decision> {
    let block = |reason, message: &str, inputs| Err(Decision::block(Gate::Engine, reason, message, inputs));
    if roots.is_empty() {
        let message = "the script engine is off: dot_wrapper.script_roots names no directory";
        return block("scripts_off", message, json!({"engine": tool.engine, "setting": "dot_wrapper.script_roots"}));
    }
    match script::named(tool) {
        Some(name) => Ok(name),
        None => {
            let message = "the catalogue names no program: file_path and script_path are empty";
            block("program_unnamed", message, json!({"engine": tool.engine}))
        }
    }
}

/// The engine gate, second half: the command could be formed.
pub fn engine(tool: &Tool, command: Result<&Command, &str>) -> Decision {
    let inputs = |more: serde_json::Value| json!({"engine": tool.engine, "program": more});
    match command {
        Ok(command) => {
            Decision::ok(Gate::Engine, "the script engine starts it", inputs(command.program.as_str().into()))
        }
        Err(why) => Decision::block(Gate::Engine, "request_unformed", why.to_owned(), json!({"engine": tool.engine})),
    }
}

/// The program gate: the file may be started. `seen` is what the path comes to once links are followed; `None` where only the
/// path was asked about, and the file is looked at later.
pub fn program(path: &str, seen: Result<Option<&str>, &Refusal>) -> Decision {
    match seen {
        Ok(None) => {
            let message = "a path below an allowed root; the file is looked at directly before the start";
            Decision::ok(Gate::Program, message, json!({"program": path, "looked_at": "start"}))
        }
        Ok(Some(real)) => {
            let message = "a program below an allowed root that only trusted users can change";
            Decision::ok(Gate::Program, message, json!({"program": path, "resolved": real}))
        }
        Err(refusal) => {
            Decision::block(Gate::Program, refusal.reason, refusal.message.clone(), json!({"program": path}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn tool(row: Value) -> Tool {
        let mut whole = json!({"code": "D", "status": "active", "execution_engine": "script"});
        whole.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
        Tool::from_row(whole).unwrap()
    }

    #[test]
    fn without_roots_or_a_path_nothing_is_started() {
        let on = Roots::parse("/opt/dots");
        let whole = tool(json!({"script_path": "b.sh"}));
        assert_eq!(named(&whole, &Roots::default()).unwrap_err().reason, "scripts_off");
        assert_eq!(named(&whole, &Roots::parse("relative")).unwrap_err().reason, "scripts_off");
        for row in [json!({}), json!({"file_path": "", "script_path": null}), json!({"script_path": 5})] {
            assert_eq!(named(&tool(row), &on).unwrap_err().reason, "program_unnamed");
        }
        assert_eq!(named(&whole, &on), Ok("b.sh"));
        assert_eq!(named(&tool(json!({"file_path": "a.sh", "script_path": "b.sh"})), &on), Ok("a.sh"));
    }

    #[test]
    fn a_file_that_may_not_be_started_blocks_an_apply_and_no_plan() {
        let refusal = Refusal { reason: "program_missing", message: "there is no such file".into() };
        let decision = program("/opt/dots/b.sh", Err(&refusal));
        assert!(decision.blocks() && !decision.gate.blocks_plan() && decision.reason == "program_missing");
        assert!(!program("/opt/dots/b.sh", Ok(Some("/opt/dots/b.sh"))).blocks());
        let unseen = program("/opt/dots/b.sh", Ok(None));
        assert!(!unseen.blocks() && unseen.message.contains("before the start"), "{unseen:?}");
    }
}
