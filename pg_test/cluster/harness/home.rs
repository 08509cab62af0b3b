//! Where the clusters of one test process live, and who removes them whatever becomes of the process.

use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::os;

/// Waits for the end of the tests, which closes its input, then ends what is left and removes everything.
const REAPER: &str = r#"
trap '' HUP INT TERM
read -r _
for file in "$1"/*/data/postmaster.pid; do
    if [ -f "$file" ]; then kill -s QUIT "$(head -n 1 "$file")"; fi
done
tries=0
while rm -rf "$1"; [ -e "$1" ] && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

struct Home {
    dir: PathBuf,
    template: PathBuf,
    /// Never written to: what counts is that it is closed when this process ends, by whichever way.
    _reaper: ChildStdin,
}

fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(|| {
        // Short: a socket's path must stay below 108 bytes.
        let dir = PathBuf::from(os::run(Command::new("mktemp").args(["-d", "/tmp/dotc.XXXXXX"])).trim_end());
        let mut reaper = Command::new("sh");
        reaper.args(["-c", REAPER, "sh"]).arg(&dir).current_dir("/");
        let reaper = reaper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let reaper = reaper.expect("sh").stdin.expect("a pipe");
        if let Some(user) = os::server_user() {
            os::run(Command::new("chown").arg(user).arg(&dir));
        }
        let template = dir.join("template");
        let options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];
        os::run(os::pg("initdb").arg("-D").arg(&template).args(options));
        Home { dir, template, _reaper: reaper }
    })
}

/// A new folder.
pub fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = home().dir.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    os::run(os::as_server("mkdir").arg(&dir));
    dir
}

/// A new folder with a copy of a fresh data directory in it, as `data`.
pub fn new_cluster() -> PathBuf {
    let dir = new_folder();
    os::run(os::as_server("cp").args(["-a", "--reflink=auto"]).arg(&home().template).arg(dir.join("data")));
    dir
}

/// Writes a file that belongs to the server's user and is nobody else's business.
pub fn write(path: &Path, content: &str) {
    std::fs::write(path, content).expect("a writable folder");
    if let Some(user) = os::server_user() {
        os::run(Command::new("chown").arg(user).arg(path));
    }
    os::run(Command::new("chmod").arg("600").arg(path));
}
