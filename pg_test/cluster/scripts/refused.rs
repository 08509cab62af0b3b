//! What is not started: files that somebody else could have changed, paths that lead elsewhere, arguments that would be
//! options. Each is asked twice, and a last time before the start.

use std::os::unix::fs::{chown, symlink};

use serde_json::{Value, json};

use super::{Stage, make_dir, mode, write_script};
use crate::harness::run::Ask;
use crate::harness::{Bench, Run};

#[track_caller]
fn refuses(stage: &Stage, code: &str, gate: &str, reason: &str) {
    let run = stage.ask(code, "apply", json!({}));
    assert_eq!((run.status(), run.reason()), ("refused", reason), "{run:?}");
    assert_eq!(stage.bench.block(&run, "request"), (gate.to_owned(), reason.to_owned()));
}

#[test]
fn without_roots_the_engine_is_off() {
    let bench = Bench::shared();
    bench.exec("INSERT INTO dot_tools (code, name, status, execution_engine, script_path) VALUES ('S', 'S', 'active', 'script', '/bin/true')");
    let refused: Vec<Run> = ["plan", "apply"].map(|mode| bench.ask(&Ask::new("S", mode))).into();
    assert!(refused.iter().all(|run| (run.status(), run.reason()) == ("refused", "scripts_off")), "{refused:?}");
    let said: Vec<String> = bench.all("SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'script engine'", &[]);
    assert_eq!(said, ["WARN"]);
}

#[test]
fn only_a_superuser_sees_the_roots_and_nobody_sets_them_in_a_session() {
    let stage = Stage::shared();
    let role = stage.bench.role("curious");
    let mut session = stage.bench.connect_as(&role);
    assert!(session.batch_execute("SHOW dot_wrapper.script_roots").is_err());
    assert!(session.batch_execute("SET dot_wrapper.script_roots = '/'").is_err());
    assert!(stage.bench.session().batch_execute("SET dot_wrapper.script_roots = '/'").is_err());
}

#[test]
fn a_path_that_leads_out_of_the_roots_is_not_followed() {
    let stage = Stage::shared();
    let inside = stage.dir.join("in.sh");
    write_script(&inside, "true");
    for (name, target) in [("out.sh", "/bin/true"), ("same.sh", "in.sh")] {
        symlink(target, stage.dir.join(name)).unwrap();
    }
    symlink("/bin", stage.dir.join("bin")).unwrap();
    let dir = stage.dir.display();
    stage.catalogue("OUT", &format!("{dir}/out.sh"), "");
    stage.catalogue("DIR", &format!("{dir}/bin/true"), "");
    stage.catalogue("DOTS", &format!("{dir}/../../../../bin/true"), "");
    stage.catalogue("ELSEWHERE", "/bin/true", "");
    stage.catalogue("UP", "../../bin/true", "");
    for code in ["OUT", "DIR", "DOTS", "ELSEWHERE", "UP"] {
        refuses(&stage, code, "program", "program_outside_roots");
    }
    stage.catalogue("NONE", "", "");
    refuses(&stage, "NONE", "engine", "program_unnamed");
    stage.catalogue("GONE", &format!("{dir}/gone.sh"), "");
    refuses(&stage, "GONE", "program", "program_missing");
    // A link within, and a path relative to the root.
    stage.catalogue("SAME", &format!("{dir}/same.sh"), "");
    stage.catalogue("REL", &format!("{}/in.sh", stage.bench.name), "");
    for code in ["SAME", "REL"] {
        assert_eq!(stage.apply(code, json!({})).status(), "succeeded");
    }
}

#[test]
fn a_file_or_a_directory_that_others_can_write_is_refused() {
    let stage = Stage::shared();
    let dir = stage.dir.join("d");
    make_dir(&dir);
    let path = dir.join("x.sh");
    write_script(&path, "true");
    stage.catalogue("X", &path.to_string_lossy(), "");
    for (what, bits, reason) in [
        (&path, 0o775, "program_writable_by_others"),
        (&path, 0o757, "program_writable_by_others"),
        (&dir, 0o1777, "program_writable_by_others"),
        (&dir, 0o775, "program_writable_by_others"),
        (&path, 0o644, "program_not_executable"),
    ] {
        mode(what, bits);
        refuses(&stage, "X", "program", reason);
        mode(what, 0o755);
    }
    chown(&path, Some(65_534), None).expect("these tests run as root, the servers do not");
    refuses(&stage, "X", "program", "program_owner");
    chown(&path, Some(0), None).unwrap();
    chown(&dir, Some(65_534), None).unwrap();
    refuses(&stage, "X", "program", "program_owner");
    chown(&dir, Some(0), None).unwrap();
    assert_eq!(stage.apply("X", json!({})).status(), "succeeded");
    stage.catalogue("Y", &dir.to_string_lossy(), "");
    refuses(&stage, "Y", "program", "program_not_a_file");
}

#[test]
fn an_argument_never_becomes_an_option_and_never_goes_half() {
    let stage = Stage::shared();
    stage.tool("A", "echo \"$@\"", "script_args = ARRAY['{args.x}']");
    for args in [
        json!({"x": "--all"}),
        json!({"x": ["ok", "-f"]}),
        json!({"x": -5}),
        json!({"x": {"y": 1}}),
        json!({"x": "a", "y": "z".repeat(131_072)}),
    ] {
        let run = stage.ask("A", "apply", args);
        assert_eq!((run.status(), run.reason()), ("refused", "request_unformed"));
    }
    // Of what is missing nothing else takes the place: here it would have been --dry-run.
    stage.tool(
        "B",
        "echo \"$@\"",
        "dry_run_arg = '--dry-run', script_args = ARRAY['--table', '{args.table}', '{dry_run}']",
    );
    let run = stage.ask("B", "verify", json!({}));
    assert_eq!((run.status(), run.reason()), ("refused", "request_unformed"));
    assert_eq!(stage.apply("A", json!({"x": "a-b"})).0["result"]["stdout"], "a-b\n");
}

#[test]
fn the_second_gate_asks_for_the_toggle_and_the_path_again_and_leaves_the_file_to_the_engine() {
    let stage = Stage::shared();
    let (notes, bench) = (stage.notes("late"), &stage.bench);
    let script = format!("echo ran >> {}", notes.path());
    write_script(&stage.dir.join("OTHER.sh"), &script);
    for (code, change, gate, reason) in [
        (
            "TOGGLE",
            "UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'",
            "toggle",
            "toggle_off",
        ),
        ("RETIRED", "UPDATE dot_tools SET status = 'retired' WHERE code = 'RETIRED'", "tool", "inactive"),
        (
            "MOVED",
            "UPDATE dot_tools SET script_path = replace(script_path, 'MOVED', 'OTHER')",
            "engine",
            "program_changed",
        ),
    ] {
        stage.tool(code, &script, "");
        let run = bench.between(&Ask::new(code, "apply"), change);
        let ended = stage.ended(&run);
        assert_eq!((ended.status(), ended.reason()), ("refused", reason));
        assert_eq!(bench.block(&run, "send"), (gate.to_owned(), reason.to_owned()));
        bench.open();
    }
    let path = stage.tool("WRITABLE", &script, "");
    let mut session = bench.connect();
    let mut transaction = session.transaction().unwrap();
    let run = Ask::new("WRITABLE", "apply").on(&mut transaction).unwrap();
    assert_eq!(run.status(), "queued");
    mode(&path, 0o757);
    transaction.commit().unwrap();
    // The worker's own thread has not looked, since a file system that hangs would stop it; the engine has.
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("failed", "program_writable_by_others"));
    let detail = stage.detail(&run, "failed");
    assert_eq!(detail["reach"], "not_sent");
    let asked: Value = bench.one(
        "SELECT gate FROM dot_wrapper.dot_run_event, jsonb_array_elements(detail -> 'gates') gate
             WHERE run_id = $1 AND event = 'running' AND gate ->> 'gate' = 'program'",
        &[&run.id()],
    );
    assert_eq!((&asked["verdict"], &asked["inputs"]["looked_at"]), (&json!("OK"), &json!("start")));
    assert!(notes.lines().is_empty());
}

#[test]
fn a_job_is_taken_without_a_look_at_the_file() {
    let stage = Stage::shared();
    let notes = stage.notes("job");
    let script = format!("echo ran >> {}", notes.path());
    stage.tool("GOOD", &script, "");
    mode(&stage.tool("BAD", &script, ""), 0o757);
    let jobs = crate::jobs::Jobs::on(stage.bench);
    for (code, status, reason) in [("GOOD", "succeeded", ""), ("BAD", "failed", "program_writable_by_others")] {
        let id = jobs.apply(code);
        jobs.until(id, status);
        let runs = jobs.runs(id);
        assert_eq!(runs.iter().map(|run| (run.status(), run.reason())).collect::<Vec<_>>(), [(status, reason)]);
    }
    assert_eq!(notes.lines(), ["ran"]);
}

#[test]
fn the_file_is_looked_at_a_last_time_before_it_is_started() {
    let stage = Stage::own();
    let notes = stage.notes("last");
    let path = stage.tool("LAST", &format!("echo ran >> {}", notes.path()), "");
    let points = stage.bench.cluster.fail_points(&["claim_after_commit=wait(LAST)"]);
    let run = stage.ask("LAST", "apply", json!({}));
    points.wait_for(1);
    mode(&path, 0o775);
    drop(points);
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("failed", "program_writable_by_others"));
    assert_eq!(stage.detail(&run, "failed")["reach"], "not_sent");
    assert!(notes.lines().is_empty());
    // What the kernel does not execute was not started either.
    write_script(&path, "");
    std::fs::write(&path, "#!/nonexistent\n").unwrap();
    stage.bench.exec("UPDATE dot_wrapper.policy SET max_attempts = 1 WHERE name = 'LAST'");
    let ended = stage.apply("LAST", json!({}));
    assert_eq!((ended.status(), ended.reason()), ("failed", "not_started"));
    assert_eq!(stage.detail(&ended, "failed")["reach"], "not_sent");
}

#[test]
fn roots_that_are_taken_away_stop_what_waits_and_the_doctor_tells_what_is_wrong_with_them() {
    let stage = Stage::own();
    let bench = &stage.bench;
    let path = stage.tool("ROOT", "true", "");
    let said = || -> Vec<String> {
        let sql = "SELECT check_name || ' ' || verdict || ' ' || detail FROM fn_dot_doctor() WHERE check_name IN ('script engine', 'programs')";
        bench.all(sql, &[])
    };
    assert!(
        matches!(&said()[..], [root, programs] if root.starts_with("script engine OK") && programs.starts_with("programs OK"))
    );
    let root = stage.dir.parent().unwrap();
    mode(root, 0o777);
    let told = said();
    assert!(
        told[0].starts_with("script engine BLOCK") && told[1].contains("ROOT: program_writable_by_others"),
        "{told:?}"
    );
    mode(root, 0o755);
    bench.cluster.set(&[("dot_wrapper.worker_enabled", "off")]);
    crate::harness::until("the worker has gone", || bench.worker_now().is_none().then_some(()));
    let run = stage.ask("ROOT", "apply", json!({}));
    assert_eq!(run.status(), "queued");
    bench.cluster.set(&[("dot_wrapper.script_roots", "relative, /a/../b"), ("dot_wrapper.worker_enabled", "on")]);
    let ended = stage.ended(&run);
    assert_eq!((ended.status(), ended.reason()), ("refused", "scripts_off"));
    assert_eq!(said().iter().filter(|line| line.starts_with("script engine BLOCK")).count(), 2, "{:?}", said());
    bench.cluster.set(&[("dot_wrapper.script_roots", "/usr")]);
    assert!(said()[0].starts_with("script engine WARN"), "shells: {:?}", said());
    assert!(path.exists());
}
