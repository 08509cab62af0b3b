//! A process that is stopped and goes on later: what it was allowed to do then is not what it may do now.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::tls::{ca_file, held, over_tls, trusting};
use super::{Rig, TempDir, assert_end};
use crate::domain::answer::{Reach, Verdict};

const ALLOWED: Duration = Duration::from_secs(3);

#[test]
fn a_permission_runs_out_while_the_process_is_stopped() {
    let ((came, arrived), (release, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = Mutex::new(wait);
    let (server, heard) = held(move || {
        came.send(()).unwrap();
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(60));
    });
    let dir = ca_file();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::tests::stopped::child_that_is_stopped", "--nocapture"])
        .env("DOT_TEST_PORT", server.port.to_string())
        .env("DOT_TEST_CA_DIR", &dir.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    arrived.recv_timeout(Duration::from_secs(60)).unwrap();
    let signal = |name: &str| {
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
    };
    signal("STOP");
    // The answer to its greeting waits in its socket when it goes on.
    release.send(()).unwrap();
    std::thread::sleep(ALLOWED);
    signal("CONT");
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && said.contains("1 passed"), "{said}");
    assert!(heard.lock().unwrap().is_empty(), "it sent after all");
}

#[test]
fn child_that_is_stopped() {
    let (Ok(port), Some(dir)) = (std::env::var("DOT_TEST_PORT"), std::env::var_os("DOT_TEST_CA_DIR")) else { return };
    // Whoever made the folder removes it.
    let dir = std::mem::ManuallyDrop::new(TempDir(dir.into()));
    let rig = Rig::with(trusting(&dir));
    rig.engine.allow_until(Instant::now() + ALLOWED);
    let answer = rig.run(over_tls("localhost", port.parse().unwrap()));
    assert_end(&answer, Reach::NotSent, Verdict::None, "withheld");
}
