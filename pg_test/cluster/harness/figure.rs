//! The figures that tests of promises reach, for docs/guarantees.md: printed, and kept where `cat` finds them.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

/// Keeps what was measured for a promise: `figure("D2", "200 crashes, 0 requests without an intent")`.
pub fn figure(promise: &str, reached: &str) {
    let line = format!("{promise}: {reached}\n");
    print!("{line}");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(promise), line)).expect("a writable target folder");
}

/// How often a test repeats what is random: `full` times when DOT_TEST_FULL is set, else `quick` times.
pub fn rounds(quick: usize, full: usize) -> usize {
    if std::env::var_os("DOT_TEST_FULL").is_some() { full } else { quick }
}
