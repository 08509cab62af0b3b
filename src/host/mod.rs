//! What the machine's file system says about programs: whether a path, once links are followed, is one that may be started.
//!
//! Lives here: looks at files and directories, with std alone. Does not live here: which path a tool means (`domain`),
//! starting it (`pg::child`), PostgreSQL.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::domain::script::{Candidate, Refusal, Roots};

#[cfg(test)]
mod tests;

/// A program that may be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// As the catalogue means it: below a root, links not followed.
    pub path: String,
    /// What it is: this is to be started.
    pub real: String,
}

/// Finds what a catalogued name means on this machine: of a relative one the first root that has it. `me` is the server's
/// user. What can be said of the path although it may not be started comes with the refusal.
///
/// # Errors
/// Why it may not be started.
pub fn find(roots: &Roots, name: &str, me: u32) -> Result<Program, (String, Refusal)> {
    let candidates = roots.candidates(name).map_err(|refusal| (name.to_owned(), refusal))?;
    let there = candidates.iter().find(|candidate| Path::new(&candidate.path).symlink_metadata().is_ok());
    let Some(candidate) = there.or(candidates.first()) else {
        return Err((name.to_owned(), refuse("program_outside_roots", "it is not below a root")));
    };
    match examine(candidate, me) {
        Ok(real) => Ok(Program { path: candidate.path.clone(), real }),
        Err(refusal) => Err((candidate.path.clone(), refusal)),
    }
}

/// A root as the doctor looks at it.
///
/// # Errors
/// What is wrong with it.
pub fn root(path: &str, me: u32) -> Result<(), Refusal> {
    let meta = Path::new(path).metadata().map_err(|error| refuse("program_missing", format!("{path}: {error}")))?;
    if !meta.is_dir() {
        return Err(refuse("program_missing", format!("{path} is not a directory")));
    }
    trusted(Path::new(path), &meta, &[0, me, meta.uid()])
}

/// The most links that are followed, as many as the kernel follows.
const MAX_LINKS: usize = 40;

fn examine(candidate: &Candidate, me: u32) -> Result<String, Refusal> {
    let (root, path) = (Path::new(&candidate.root), Path::new(&candidate.path));
    let real_root = root.canonicalize().map_err(|error| unseen(root, &error))?;
    let trustees = [0, me, look(&real_root)?.uid()];
    let real = Way { root, real_root: &real_root, trustees }.walk(path)?;
    let meta = look(&real)?;
    if !meta.is_file() {
        return Err(refuse("program_not_a_file", format!("{} is not a regular file", real.display())));
    }
    trusted(&real, &meta, &trustees)?;
    if meta.mode() & 0o111 == 0 {
        return Err(refuse("program_not_executable", format!("{} is not executable", real.display())));
    }
    real.into_os_string().into_string().map_err(|_| refuse("program_missing", "its real path is not UTF-8"))
}

/// The way from a root to a program, link by link.
struct Way<'a> {
    root: &'a Path,
    real_root: &'a Path,
    trustees: [u32; 3],
}

impl Way<'_> {
    /// What the path is, without a link in it. No step of the way, nor one of a link's, leaves the root, and each directory on it
    /// is one that only trusted users change: who can change any of them can change what is started.
    fn walk(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let outside = || {
            let message = format!("{} leads out of {}", path.display(), self.root.display());
            refuse("program_outside_roots", message)
        };
        let mut steps = steps(path.strip_prefix(self.root).map_err(|_| outside())?);
        let (mut at, mut links) = (self.real_root.to_path_buf(), 0);
        trusted(&at, &look(&at)?, &self.trustees)?;
        while let Some(step) = steps.pop() {
            if step == ".." {
                if at == self.real_root || !at.pop() {
                    return Err(outside());
                }
                continue;
            }
            let next = at.join(&step);
            let meta = next.symlink_metadata().map_err(|error| unseen(&next, &error))?;
            if meta.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse("program_missing", format!("{}: too many links", path.display())));
                }
                let target = next.read_link().map_err(|error| unseen(&next, &error))?;
                if target.is_absolute() {
                    let below = target.strip_prefix(self.root).or_else(|_| target.strip_prefix(self.real_root));
                    steps.extend(self::steps(below.map_err(|_| outside())?));
                    at = self.real_root.to_path_buf();
                } else {
                    steps.extend(self::steps(&target));
                }
                continue;
            }
            if meta.is_dir() {
                trusted(&next, &meta, &self.trustees)?;
            } else if !steps.is_empty() {
                return Err(refuse("program_missing", format!("{} is not a directory", next.display())));
            }
            at = next;
        }
        Ok(at)
    }
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|step| !matches!(step, Component::CurDir));
    named.rev().map(|step| step.as_os_str().to_owned()).collect()
}

fn look(path: &Path) -> Result<Metadata, Refusal> {
    path.metadata().map_err(|error| unseen(path, &error))
}

fn unseen(path: &Path, error: &std::io::Error) -> Refusal {
    let what = if error.kind() == ErrorKind::NotFound { "there is no".into() } else { format!("{error}:") };
    refuse("program_missing", format!("{what} {}", path.display()))
}

/// Only those who are trusted own it, and nobody else writes it. A sticky bit is no excuse: it keeps others from removing
/// what is there, not from adding.
fn trusted(path: &Path, meta: &Metadata, trustees: &[u32]) -> Result<(), Refusal> {
    let shown = path.display();
    if meta.mode() & 0o022 != 0 {
        let message = format!("{shown} is writable by its group or by others (mode {:o})", meta.mode() & 0o7777);
        return Err(refuse("program_writable_by_others", message));
    }
    if !trustees.contains(&meta.uid()) {
        let message = format!(
            "{shown} belongs to user {}, who is neither root, nor the server's user, nor the root directory's owner",
            meta.uid()
        );
        return Err(refuse("program_owner", message));
    }
    Ok(())
}

fn refuse(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}
