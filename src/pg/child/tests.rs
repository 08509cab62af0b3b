//! Real programs, without a server: what they find, and that nothing of them is left.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use super::*;

fn shell(script: &str) -> Child {
    run("/bin/sh", &["-c".to_owned(), script.to_owned()])
}

struct Child {
    keeper: i32,
    stdout: io::PipeReader,
    life: io::PipeReader,
    _stderr: io::PipeReader,
}

fn run(program: &str, args: &[String]) -> Child {
    let env = [("PATH", "/usr/bin:/bin".to_owned())];
    let spec = Spec {
        program,
        args,
        env: &env,
        most: Duration::from_secs(600),
        memory: 1 << 30,
        cpu_s: 60,
        file: 1 << 20,
        files: 1 << 20,
        detach: || {},
    };
    let ((stdout, out), (stderr, err), (life, end)) = (io::pipe().unwrap(), io::pipe().unwrap(), io::pipe().unwrap());
    let keeper = start(&spec, Ends { stdout: out.into(), stderr: err.into(), life: end.into() }).unwrap();
    Child { keeper, stdout, life, _stderr: stderr }
}

/// What it printed, and what the life pipe said; nothing of it is left then.
fn end(mut child: Child) -> (String, Vec<u8>) {
    let (mut out, mut life) = (String::new(), Vec::new());
    child.stdout.read_to_string(&mut out).unwrap();
    child.life.read_to_end(&mut life).unwrap();
    until(|| reap(child.keeper));
    (out.trim_end().to_owned(), life)
}

fn until(mut look: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !look() {
        assert!(Instant::now() < end, "it took too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn status(life: &[u8]) -> Option<i32> {
    let number: [u8; 4] = life.strip_prefix(b"S")?.try_into().ok()?;
    Some(i32::from_le_bytes(number))
}

#[test]
fn a_program_ends_with_its_status_and_inherits_three_descriptors() {
    let kept = File::open("/").unwrap();
    let (out, life) = end(shell("ls /proc/self/fd | tr '\\n' ' '; umask; pwd; ulimit -c; cat; exit 7"));
    assert_eq!(out, "0 1 2 3 0022\n/\n0", "3 is ls's own");
    assert_eq!(status(&life), Some(7 << 8));
    drop(kept);
}

#[test]
fn what_cannot_be_executed_says_why() {
    let (_, life) = end(run("/nonexistent/x", &[]));
    assert_eq!(life[..5], [b'E', libc::ENOENT as u8, 0, 0, 0]);
    let (_, life) = end(run("/etc/passwd", &[]));
    assert_eq!(life[..5], [b'E', libc::EACCES as u8, 0, 0, 0]);
}

#[test]
fn a_daemon_does_not_outlive_the_program() {
    let (out, life) = end(shell("setsid sh -c 'sleep 600 & echo $!; setsid sleep 600 & echo $!' & wait; exit 0"));
    assert_eq!(status(&life), Some(0));
    let pids: Vec<&str> = out.lines().collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| !is_alive(pid)), "{pids:?}");
}

#[test]
fn a_stop_is_a_wish_first_and_force_for_all_then() {
    let child = shell("trap 'echo bye; exit 9' TERM; echo ready; sleep 600 & wait");
    let mut first = [0; 6];
    let mut out = child.stdout.try_clone().unwrap();
    out.read_exact(&mut first).unwrap();
    stop(child.keeper);
    let (said, life) = end(child);
    assert_eq!((said.as_str(), status(&life)), ("bye", Some(9 << 8)));

    let child = shell("trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; sleep 600; sleep 600' & sleep 600");
    let mut out = child.stdout.try_clone().unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        pid.push(byte[0] as char);
    }
    stop(child.keeper);
    let (_, life) = end(child);
    assert_eq!(status(&life), Some(libc::SIGKILL));
    assert!(!is_alive(pid.trim()));
}

#[test]
fn a_leader_that_joins_another_group_is_ended_all_the_same() {
    let script = "use POSIX; $SIG{TERM} = 'IGNORE'; $| = 1; my $c = fork; if (!$c) { setpgid(0, 0); sleep 600; exit }
        select undef, undef, undef, 0.05 until setpgid(0, $c) && getpgrp == $c; print \"moved\\n\"; sleep 600 while 1";
    let mut child = run("/usr/bin/perl", &["-e".to_owned(), script.to_owned()]);
    let mut said = [0; 6];
    child.stdout.read_exact(&mut said).unwrap();
    stop(child.keeper);
    assert_eq!(status(&end(child).1), Some(libc::SIGKILL));
}

#[test]
fn memory_and_files_are_bounded() {
    let (_, life) =
        end(shell("head -c 2000000 /dev/zero > /tmp/dot_child_$$; rc=$?; rm -f /tmp/dot_child_$$; exit $rc"));
    // 128 + SIGXFSZ, as the shell tells it.
    assert_eq!(status(&life), Some((128 + libc::SIGXFSZ) << 8));
    let args = ["-e".to_owned(), "my $x = 'y' x (2 << 30); exit 0".to_owned()];
    let (_, life) = end(run("/usr/bin/perl", &args));
    assert_ne!(status(&life), Some(0), "2 GiB under a limit of 1");
}
