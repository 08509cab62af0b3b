//! Scripts without processes: when one is started, and what is made of the end that is told. Real ones are in
//! pg_test/cluster/scripts.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Rig, assert_end, call};
use crate::domain::answer::{Reach, Verdict};
use crate::domain::doubt::Finding;
use crate::domain::order::Order;
use crate::domain::script::{Command, Limits, Roots};
use crate::engine::{Call, Config, Ends, Errand, Program, Report, Scripts, Start, Started};

/// Says on the pipes what the arguments say: first on stdout, then, where there is a second, on the life pipe.
fn start(program: &Program, ends: Ends) -> io::Result<Started> {
    for (text, end) in program.args.iter().zip([ends.stdout, ends.life]) {
        File::from(end).write_all(text.as_bytes())?;
    }
    Ok(Started { keeper: 0, stop: |_| {}, reap: |_| true })
}

fn rig(start: Start) -> Rig {
    let scripts = Scripts { roots: Roots::parse("/usr/bin, /bin"), user: 0, start: Some(start) };
    Rig::with(Config { scripts, ..Config::default() })
}

/// `/usr/bin/env` belongs to root wherever these tests run.
fn script(program: &str, args: &[&str]) -> Call {
    let limits = Limits { memory_mb: 64, cpu_s: 1, file_mb: 1 };
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let command = Command { program: program.into(), args, dry_run: None, env: Vec::new(), limits };
    Call { request: Order::Script(command), ..call(1) }
}

#[test]
fn an_end_that_is_told_is_an_answer_and_one_that_is_not_is_none() {
    let rig = rig(start);
    let answer = rig.run(script("/usr/bin/env", &["{\"n\": 1}", "S\0\0\0\0"]));
    assert_end(&answer, Reach::Answered, Verdict::Succeeded, "ok");
    assert_eq!(answer.result, Some(json!({"exit_code": 0, "json": {"n": 1}, "stdout": "{\"n\": 1}", "stderr": ""})));
    let answer = rig.run(script("/usr/bin/env", &["", "S\0\x02\0\0"]));
    assert_end(&answer, Reach::Answered, Verdict::Failed, "exit_2");
    assert_end(&rig.run(script("/usr/bin/env", &["words"])), Reach::Sent, Verdict::None, "keeper_lost");
    assert_end(&rig.run(script("/usr/bin/env", &["", "S\0"])), Reach::Sent, Verdict::None, "keeper_lost");
    // Not executed: an errno, and then the end of what was not it.
    let answer = rig.run(script("/usr/bin/env", &["", "E\x08\0\0\0S\0\x7f\0\0"]));
    assert_end(&answer, Reach::NotSent, Verdict::None, "not_started");
    assert!(answer.message.contains("os error 8"), "{}", answer.message);
}

/// The life pipe's end of the one program that lives, for as long as its keeper takes.
static LIFE: Mutex<Option<File>> = Mutex::new(None);
static WISHES: AtomicUsize = AtomicUsize::new(0);

#[test]
fn an_end_that_was_told_before_the_deadline_stands_though_its_keeper_was_still_clearing_away() {
    let rig = rig(|program, ends| {
        let mut life = File::from(ends.life);
        life.write_all(program.args[1].as_bytes())?;
        *LIFE.lock().unwrap() = Some(life);
        // It clears away until it is asked to for the second time: a run is not over before that, and nobody gives up.
        let stop = |_| match WISHES.fetch_add(1, Ordering::SeqCst) {
            0 => {}
            _ => drop(LIFE.lock().unwrap().take()),
        };
        Ok(Started { keeper: 0, stop, reap: |_| true })
    });
    let mut call = script("/usr/bin/env", &["", "S\0\x02\0\0"]);
    call.limits.total = Duration::from_millis(300);
    assert_end(&rig.run(call), Reach::Answered, Verdict::Failed, "exit_2");
    assert_eq!(WISHES.load(Ordering::SeqCst), 2);
}

#[test]
fn nothing_is_started_without_a_permission_or_from_elsewhere() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let rig = rig(|_, _| {
        STARTED.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(11))
    });
    let env = || script("/usr/bin/env", &[]);
    rig.engine.allow_until(Instant::now());
    assert_end(&rig.run(env()), Reach::NotSent, Verdict::None, "withheld");
    rig.engine.allow_until(Instant::now() + Duration::from_secs(60));
    assert_end(&rig.run(script("/etc/passwd", &[])), Reach::NotSent, Verdict::None, "program_outside_roots");
    assert_end(&rig.run(script("/usr/bin/no such", &[])), Reach::NotSent, Verdict::None, "program_missing");
    assert_eq!(STARTED.load(Ordering::SeqCst), 0);
    assert_end(&rig.run(env()), Reach::NotSent, Verdict::None, "not_started");
    assert_eq!(STARTED.load(Ordering::SeqCst), 1);
    rig.engine.reconfigure(Config::default());
    assert_end(&rig.run(env()), Reach::NotSent, Verdict::None, "program_outside_roots");
}

#[test]
fn a_script_is_not_asked_what_became_of_it() {
    let rig = rig(start);
    let mut question = script("/usr/bin/env", &[]);
    question.errand = Errand::Inquire("http://127.0.0.1:1/".parse().unwrap());
    rig.engine.submit(question);
    loop {
        match rig.engine.try_recv() {
            Some(Report::Learned { finding: Finding::NoAnswer { .. }, .. }) => return,
            Some(other) => panic!("{other:?}"),
            None => rig.sleep(),
        }
    }
}
