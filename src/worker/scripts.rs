//! Hands the engine somebody who starts programs: the engine knows nothing of the server, and the keeper that is forked from
//! the server's process must let go of its shared memory.

use std::io;

use crate::engine::{Ends, Program, Started};
use crate::pg::{child, open_files, process};

const MIB: u64 = 1 << 20;

/// Starts one. Call it on the engine's thread, which lives as long as the worker.
///
/// # Errors
/// As [`child::start`].
pub fn start(program: &Program, ends: Ends) -> io::Result<Started> {
    let at_least_one = |number: i64| u64::try_from(number).unwrap_or(0).max(1);
    let spec = child::Spec {
        program: &program.path,
        args: &program.args,
        env: &program.env,
        most: program.most,
        memory: at_least_one(program.limits.memory_mb).saturating_mul(MIB),
        cpu_s: at_least_one(program.limits.cpu_s),
        file: at_least_one(program.limits.file_mb).saturating_mul(MIB),
        files: open_files::at_start(),
        detach: process::let_go_of_shared_memory,
    };
    let Ends { stdout, stderr, life } = ends;
    let keeper = child::start(&spec, child::Ends { stdout, stderr, life })?;
    Ok(Started { keeper, stop: child::stop, reap: child::reap })
}
