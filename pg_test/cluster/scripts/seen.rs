//! What a script finds when it is started: arguments, environment, and nothing of the server.

use serde_json::{Value, json};

use super::Stage;
use crate::harness::{os, until};

fn lines(run: &crate::harness::Run) -> Vec<&str> {
    run.0["result"]["stdout"].as_str().expect("its output").lines().collect()
}

#[test]
fn a_script_gets_its_arguments_as_an_array_and_its_environment_cleared() {
    let stage = Stage::shared();
    let policy = "script_args = ARRAY['run', '--scope={args.scope}', '{args.files}', '{args.none?}']";
    stage.tool("DOT-S1", "for a in \"$@\"; do echo \"arg=$a\"; done; env | sort", policy);
    let args = json!({"scope": "a b; $(touch /tmp/x) '\"", "files": ["one two", "*"]});
    let run = stage.apply("DOT-S1", args.clone());
    assert_eq!((run.status(), run.reason()), ("succeeded", ""), "{run:?}");
    let lines = lines(&run);
    assert_eq!(lines[..4], ["arg=run", "arg=--scope=a b; $(touch /tmp/x) '\"", "arg=one two", "arg=*"]);
    let env: Vec<(&str, &str)> = lines[4..].iter().filter_map(|line| line.split_once('=')).collect();
    let get = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let names: Vec<&str> =
        env.iter().map(|(name, _)| *name).filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "_" | "SHLVL")).collect();
    assert_eq!(
        names,
        [
            "DOT_ARGS",
            "DOT_ATTEMPT",
            "DOT_CODE",
            "DOT_DEADLINE",
            "DOT_FENCING_TOKEN",
            "DOT_MODE",
            "DOT_PROCESS_RUN_ID",
            "DOT_RUN_ID",
            "HOME",
            "LANG",
            "PATH",
            "TRACEPARENT"
        ]
    );
    assert_eq!(get("DOT_RUN_ID"), Some(run.id().to_string()).as_deref());
    assert_eq!(get("DOT_PROCESS_RUN_ID"), Some(run.text("process_run_id")));
    assert_eq!((get("DOT_CODE"), get("DOT_MODE"), get("DOT_ATTEMPT")), (Some("DOT-S1"), Some("apply"), Some("1")));
    assert_eq!(get("DOT_FENCING_TOKEN"), Some(run.token().to_string()).as_deref());
    assert_eq!(serde_json::from_str::<Value>(get("DOT_ARGS").unwrap()).unwrap(), args);
    assert!(get("DOT_DEADLINE").is_some_and(|text| text.contains('T')), "{env:?}");
}

#[test]
fn a_script_has_a_session_and_a_group_of_its_own_and_no_descriptor_of_the_server() {
    let stage = Stage::shared();
    let script = "cut -d' ' -f5,6 /proc/$$/stat; echo $$ $PPID; pwd; readlink /proc/self/fd/0; ls /proc/$$/fd | sort -n | xargs
        grep -E '^(Sig(Blk|Ign)|NoNewPrivs)' /proc/$$/status | tr -d '\\t'
        ulimit -c; ulimit -n; ulimit -d; ulimit -t; ulimit -f; cat /proc/$$/oom_score_adj; umask; cat /proc/$PPID/comm; ls /proc/$PPID/fd | wc -l";
    stage.tool("DOT-S1", script, "max_memory_mb = 128, max_cpu_s = 9, max_file_mb = 2");
    let run = stage.apply("DOT-S1", json!({}));
    let lines = lines(&run);
    let [group, session] = lines[0].split(' ').collect::<Vec<_>>()[..] else { panic!("{lines:?}") };
    let [me, keeper] = lines[1].split(' ').collect::<Vec<_>>()[..] else { panic!("{lines:?}") };
    assert_eq!((group, session), (me, keeper), "its own group in its keeper's session");
    assert_eq!(lines[2..4], ["/", "/dev/null"]);
    assert_eq!(lines[4], "0 1 2 10", "10 is the shell's, for its script");
    let mut flags = lines[5..8].to_vec();
    flags.sort_unstable();
    assert_eq!(flags, ["NoNewPrivs:1", "SigBlk:0000000000000000", "SigIgn:0000000000000000"]);
    assert_eq!(lines[8..13], ["0", "1024", "131072", "9", "4096"]);
    assert_eq!(lines[13..17], ["0", "0022", "dot_wrapper kpr", "1"], "the keeper has its life pipe and nothing else");
}

/// A worker of a server with a low soft limit raises its own; what it starts is not told to expect as much.
#[test]
fn a_worker_may_open_what_the_hard_limit_allows_and_a_script_what_the_server_may() {
    const SERVER: &str = "700";
    let stage = Stage::own();
    let (bench, postmaster) = (&stage.bench, stage.bench.cluster.postmaster().to_string());
    let limits = |pid: &str| -> (u64, u64) {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |field: &str| if field == "unlimited" { u64::MAX } else { field.parse().unwrap() };
        (number(fields[3]), number(fields[4]))
    };
    let (_, hard) = limits(&postmaster);
    assert!(hard > 1024, "a hard limit of {hard} is too low for this test");
    os::run(os::as_server("prlimit").args(["--pid", &postmaster, &format!("--nofile={SERVER}:{hard}")]));
    let worker = bench.worker();
    assert!(bench.one::<bool>("SELECT pg_terminate_backend($1)", &[&worker]));
    until("there is another worker", || bench.worker_now().filter(|pid| *pid != worker));
    stage.tool("DOT-S1", "ulimit -n; ulimit -Hn", "");
    let run = stage.apply("DOT-S1", json!({}));
    assert_eq!(lines(&run), [SERVER, "1024"]);
    assert_eq!(limits(&bench.worker().to_string()), (hard.min(65_536), hard));
    bench.forget_session();
    let session: i32 = bench.one("SELECT pg_backend_pid()", &[]);
    assert_eq!(limits(&session.to_string()).0.to_string(), SERVER, "nobody else's is raised");
}

#[test]
fn a_verify_runs_with_the_dry_run_argument_and_is_offered_with_nothing_else() {
    let stage = Stage::shared();
    let script = "[ \"$1\" = --dry-run ] && echo would || echo did; echo $DOT_MODE";
    stage.tool("DOT-DRY", script, "dry_run_arg = '--dry-run', script_args = '{x}'");
    stage.tool("DOT-WET", script, "modes = '{verify,apply}'");
    let verified = stage.ended(&stage.ask("DOT-DRY", "verify", json!({})));
    assert_eq!(lines(&verified), ["would", "verify"]);
    assert_eq!(lines(&stage.apply("DOT-DRY", json!({}))), ["did", "apply"]);
    let refused = stage.ask("DOT-WET", "verify", json!({}));
    assert_eq!((refused.status(), refused.reason()), ("refused", "mode_not_offered"));
    assert!(refused.text("message").contains("dry_run_arg"), "{refused:?}");
}

#[test]
fn a_plan_shows_what_would_be_run_and_starts_nothing() {
    let stage = Stage::shared();
    let notes = stage.notes("plan");
    let path =
        stage.tool("DOT-S1", &format!("echo ran >> {}", notes.path()), "script_args = ARRAY['--scope={args.scope}']");
    let plan = stage.ask("DOT-S1", "plan", json!({"scope": "eu"}));
    assert_eq!(plan.status(), "planned");
    let request = &plan.0["request"];
    assert_eq!((&request["program"], &request["args"]), (&json!(path), &json!(["--scope=eu"])));
    assert_eq!(request["env"]["DOT_MODE"], "apply");
    assert_eq!(request["limits"], json!({"memory_mb": 1024, "cpu_s": 60, "file_mb": 1024}));
    assert_eq!(plan.gate("program").expect("a gate")["inputs"]["resolved"], json!(path));
    // A file that may not be started refuses the apply, and the plan tells.
    super::mode(&path, 0o777);
    let plan = stage.ask("DOT-S1", "plan", json!({"scope": "eu"}));
    assert_eq!(
        (plan.status(), &plan.gate("program").unwrap()["reason"]),
        ("planned", &json!("program_writable_by_others"))
    );
    stage.bench.drain();
    assert!(notes.lines().is_empty());
    super::mode(&path, 0o755);
    let apply = stage.apply("DOT-S1", json!({"scope": "eu"}));
    assert_eq!((apply.status(), notes.lines().len()), ("succeeded", 1));
    assert_eq!(apply.0["fingerprint"], plan.0["fingerprint"]);
}

#[test]
fn scripts_wait_for_room_and_the_lease_keeps_two_of_one_tool_apart() {
    let stage = Stage::own();
    stage.bench.cluster.set(&[("dot_wrapper.max_scripts", "2")]);
    let notes = stage.notes("room");
    let (gate, log) = (stage.dir.join("go"), notes.path());
    let script = format!("echo $$ >> {log}; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let codes: Vec<String> = (0..4).map(|n| format!("DOT-R{n}")).collect();
    codes.iter().for_each(|code| drop(stage.tool(code, &script, "")));
    let runs: Vec<_> = codes.iter().map(|code| stage.ask(code, "apply", json!({}))).collect();
    notes.pids(2);
    let again = stage.ask(&codes[0], "apply", json!({}));
    assert_eq!((again.status(), again.reason()), ("refused", "lease_held"));
    // The worker goes on with others, and starts no third one.
    stage.bench.drain();
    assert_eq!(notes.lines().len(), 2);
    std::fs::write(&gate, "").unwrap();
    let ended: Vec<_> = runs.iter().map(|run| stage.ended(run)).collect();
    assert!(ended.iter().all(|run| run.status() == "succeeded"), "{ended:?}");
    let mut tokens: Vec<i64> = ended.iter().map(crate::harness::Run::token).collect();
    tokens.dedup();
    assert!(tokens.len() == 4 && tokens.iter().all(|token| *token > 0));
}

#[test]
fn the_example_scripts_do_what_they_say() {
    let stage = Stage::shared();
    for (code, policy) in [
        ("disk_room", "script_args = ARRAY['{args.dir}', '{args.limit}']"),
        ("sweep", "dry_run_arg = '--dry-run', script_args = ARRAY['{args.dir}', '{args.days?}'], max_attempts = 1"),
        ("slow_copy", "dry_run_arg = '-n', script_args = ARRAY['{dry_run}', '{args.from}', '{args.to}']"),
    ] {
        let path = stage.dir.join(code);
        let example = format!("{}/examples/scripts/{code}.sh", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(example, &path).unwrap();
        stage.catalogue(code, &path.to_string_lossy(), policy);
    }
    let said = |run: &crate::harness::Run| (run.status().to_owned(), run.0["result"]["json"].clone());
    let run = stage.apply("disk_room", json!({"dir": "/", "limit": 100}));
    assert_eq!((run.status(), &run.0["result"]["json"]["limit_percent"]), ("succeeded", &json!(100)));
    assert_eq!(stage.apply("disk_room", json!({"dir": "/", "limit": "0"})).reason(), "exit_1");

    // The scripts run as the server's user, and so must be able to write here.
    let dir = stage.dir.join("old");
    super::make_dir(&dir);
    super::mode(&dir, 0o777);
    let args = json!({"dir": dir, "days": 1});
    for name in ["new", "old"] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(5 * 86_400);
    std::fs::File::options().write(true).open(dir.join("old")).unwrap().set_modified(past).unwrap();
    let verified = stage.ended(&stage.ask("sweep", "verify", args.clone()));
    assert_eq!(said(&verified), ("succeeded".into(), json!({"would_remove": 1, "fencing_token": verified.token()})));
    assert!(dir.join("old").exists());
    let swept = stage.apply("sweep", args);
    assert_eq!(said(&swept), ("succeeded".into(), json!({"removed": 1, "fencing_token": swept.token()})));
    assert!(!dir.join("old").exists() && dir.join("new").exists());
    assert_eq!(stage.apply("sweep", json!({"dir": "/nonexistent"})).reason(), "exit_75");

    let args = json!({"from": dir.join("new"), "to": dir.join("copy")});
    let verified = stage.ended(&stage.ask("slow_copy", "verify", args.clone()));
    assert_eq!((said(&verified).1, dir.join("copy").exists()), (json!({"bytes": 1}), false));
    assert_eq!((said(&stage.apply("slow_copy", args)).1, dir.join("copy").exists()), (json!({"bytes": 1}), true));
}
