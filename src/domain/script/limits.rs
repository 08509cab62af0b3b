//! What a policy says of scripts, and nothing that knows a policy: the two would import each other.

/// What stands for the endpoint of all scripts. No row of `dot_wrapper.endpoint` can have this name.
pub const SCRIPTS: &str = "(script)";

/// What the kernel is told not to let it exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// MiB of data segment and private memory, of each of its processes.
    pub memory_mb: i64,
    /// Seconds of processor time, of each of its processes.
    pub cpu_s: i64,
    /// MiB of the largest file that it writes.
    pub file_mb: i64,
}
