//! How a script ends, what that makes of the run, and what is kept of its words.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Stage;

#[test]
fn exit_codes_become_outcomes() {
    let stage = Stage::shared();
    stage.tool("DOT-X", "echo out; echo bad >&2; exit $1", "script_args = ARRAY['{args.n}']");
    let ok = stage.apply("DOT-X", json!({"n": 0}));
    assert_eq!(
        (ok.status(), &ok.0["result"]),
        ("succeeded", &json!({"exit_code": 0, "stdout": "out\n", "stderr": "bad\n"}))
    );
    for code in [1, 2, 64, 126, 255] {
        let run = stage.apply("DOT-X", json!({"n": code}));
        assert_eq!((run.status(), run.reason()), ("failed", format!("exit_{code}").as_str()));
        assert_eq!((&run.0["result"]["exit_code"], &run.0["result"]["stderr"]), (&json!(code), &json!("bad\n")));
    }
}

#[test]
fn exit_75_is_tried_again_later_also_by_a_tool_that_is_not_idempotent() {
    let stage = Stage::shared();
    let notes = stage.notes("tries");
    let script = format!("echo $DOT_ATTEMPT >> {0}; [ $(wc -l < {0}) -ge 3 ] || exit 75", notes.path());
    stage.tool("DOT-T", &script, "retry_base_ms = 10, retry_max_ms = 10");
    let run = stage.apply("DOT-T", json!({}));
    assert_eq!((run.status(), notes.lines()), ("succeeded", vec!["1".into(), "2".into(), "3".into()]));
    stage.tool("DOT-U", "exit 75", "retry_base_ms = 10, retry_max_ms = 10, max_attempts = 2");
    let run = stage.apply("DOT-U", json!({}));
    assert_eq!((run.status(), run.reason()), ("failed", "exit_75"), "nothing was changed");
}

#[test]
fn a_signal_that_was_not_ours_leaves_an_apply_in_doubt_and_an_idempotent_one_is_repeated() {
    let stage = Stage::shared();
    let notes = stage.notes("kills");
    let script = format!("echo $$ >> {0}; [ $(wc -l < {0}) -ge 2 ] || kill -9 $$", notes.path());
    let policy = "retry_base_ms = 10, retry_max_ms = 10";
    stage.tool("DOT-K", "echo last words; kill -SEGV $$", policy);
    let run = stage.apply("DOT-K", json!({}));
    assert_eq!((run.status(), run.reason()), ("in_doubt", "signal_11"));
    let kept = &stage.detail(&run, "in_doubt")["result"];
    assert_eq!(
        (&kept["stdout"], &kept["signal"], &kept["exit_code"]),
        (&json!("last words\n"), &json!(11), &Value::Null)
    );
    stage.tool("DOT-I", &script, &format!("{policy}, idempotent = true"));
    assert_eq!(stage.apply("DOT-I", json!({})).status(), "succeeded");
    assert_eq!(notes.lines().len(), 2);
}

#[test]
fn the_processor_limit_ends_a_script_that_spins() {
    let stage = Stage::shared();
    stage.tool("DOT-C", "while :; do :; done", "max_cpu_s = 1");
    let run = stage.apply("DOT-C", json!({}));
    assert_eq!((run.status(), run.reason()), ("in_doubt", "signal_24"), "SIGXCPU");
}

#[test]
fn a_flood_is_read_to_its_end_and_its_tail_is_kept() {
    let stage = Stage::shared();
    let script = "head -c 300000000 /dev/zero | tr '\\0' 'x'; echo; echo the end; head -c 100000 /dev/zero >&2; printf 'a\\377b' >&2";
    stage.tool("DOT-F", script, "max_response_bytes = 4096");
    let run = stage.apply("DOT-F", json!({}));
    assert_eq!(run.status(), "succeeded", "{}", run.text("message"));
    let result = &run.0["result"];
    let out = result["stdout"].as_str().unwrap();
    assert!(out.len() == 4096 && out.ends_with("x\nthe end\n"), "{}", out.len());
    assert_eq!((&result["stdout_bytes"], &result["stderr_bytes"]), (&json!(300_000_009), &json!(100_003)));
    let err = result["stderr"].as_str().unwrap();
    assert!(err.ends_with("\u{fffd}a\u{fffd}b") && !err.contains('\0'));
}

#[test]
fn one_json_document_on_stdout_is_kept_as_json() {
    let stage = Stage::shared();
    stage.tool("DOT-J", r#"echo '{"n": 1.50, "nul": "a\u0000b"}'"#, "");
    let run = stage.apply("DOT-J", json!({}));
    let json = &run.0["result"]["json"];
    assert_eq!(
        (run.status(), json["n"].to_string().as_str(), &json["nul"]),
        ("succeeded", "1.50", &json!("a\u{fffd}b"))
    );
}

#[test]
fn what_a_script_leaves_behind_ends_with_it() {
    let stage = Stage::shared();
    let notes = stage.notes("left");
    let log = notes.path();
    let script = format!("sleep 600 & echo $! >> {log}; setsid sh -c 'echo $$ >> {log}; setsid sleep 601 & echo $! >> {log}; wait' >/dev/null 2>&1 &
        while [ $(wc -l < {log}) -lt 3 ]; do sleep 0.02; done");
    stage.tool("DOT-D", &script, "");
    let run = stage.apply("DOT-D", json!({}));
    assert_eq!(run.status(), "succeeded");
    let pids = notes.pids(3);
    assert!(pids.iter().all(|pid| !super::is_alive(*pid)), "{pids:?}: the run is over only when nothing of it is left");
}

/// How many pipes one process has open (its tables it opens and closes as it likes), and how many of its children nobody has
/// taken leave of.
fn open_and_undead(pid: i32) -> (usize, usize) {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
    let is_pipe =
        |path: PathBuf| std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"));
    let open = open.filter(|entry| is_pipe(entry.path())).count();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let children =
        tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    (open, children.map(|line| line.split_whitespace().count()).sum())
}

#[test]
fn a_hundred_scripts_leave_no_descriptor_and_no_process() {
    let stage = Stage::own();
    stage.tool("DOT-H", "exit $(( $1 % 2 ))", "script_args = ARRAY['{args.n}'], lease = 'none'");
    stage.bench.drain();
    let worker = stage.bench.worker();
    let round = |from: i64| {
        let runs: Vec<_> = (from..from + 50).map(|n| stage.ask("DOT-H", "apply", json!({"n": n}))).collect();
        let ends: Vec<_> = runs.iter().map(|run| stage.ended(run).status().to_owned()).collect();
        assert_eq!(ends.iter().filter(|end| *end == "succeeded").count(), 25, "{ends:?}");
    };
    round(0);
    crate::harness::until("the keepers are gone", || (open_and_undead(worker).1 == 0).then_some(()));
    let before = open_and_undead(worker);
    round(50);
    crate::harness::until("nothing is left of the second half", || (open_and_undead(worker) == before).then_some(()));
    assert_eq!(stage.bench.worker(), worker);
}
