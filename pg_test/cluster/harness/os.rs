//! Programs of the server under test, and signals. Nothing here knows what a cluster is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A variable that .ci/cluster-tests sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run .ci/cluster-tests"))
}

/// Whom the server runs as, when it must not be who runs the tests.
pub fn server_user() -> Option<String> {
    std::env::var("DOT_TEST_RUNAS").ok().filter(|user| !user.is_empty())
}

/// Any program, as the server's user.
pub fn as_server(program: &str) -> Command {
    let mut command = match server_user() {
        Some(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", &user, "--", program]);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// A program of the server under test, as the server's user.
pub fn pg(program: &str) -> Command {
    static BINDIR: OnceLock<PathBuf> = OnceLock::new();
    let bindir = BINDIR
        .get_or_init(|| PathBuf::from(run(Command::new(variable("DOT_TEST_PG_CONFIG")).arg("--bindir")).trim_end()));
    as_server(&bindir.join(program).to_string_lossy())
}

/// Runs a program to its end; what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    match try_run(command) {
        Ok(out) => out,
        Err(why) => panic!("{command:?}: {why}"),
    }
}

/// As [`run`], with the failure as a value.
pub fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Sends a signal. `false` when there is no such process.
pub fn signal(pid: i32, name: &str) -> bool {
    try_run(Command::new("kill").args(["-s", name, "--", &pid.to_string()])).is_ok()
}

/// What a process has spent of the processors so far, in milliseconds.
pub fn cpu_ms(pid: i32) -> u128 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // After the name in parentheses: the 12th and 13th are user and system time, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u128>().ok()).expect("a time");
    (ticks(11) + ticks(12)) * 10
}

/// True where the server has this library; those of 16 and 18 come without contrib. Says that the test is skipped if not.
pub fn has_library(name: &str) -> bool {
    let libraries = run(Command::new(variable("DOT_TEST_PG_CONFIG")).arg("--pkglibdir"));
    let has = Path::new(libraries.trim_end()).join(format!("{name}.so")).exists();
    if !has {
        println!("skipped: this server has no {name}");
    }
    has
}
