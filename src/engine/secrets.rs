//! Values of secrets, by name: a file in the secrets directory, else an environment variable.
//! Which names are allowed and how a value is hidden is in `domain::secret`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::secret::{self, Secret};

/// The largest secret, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where values come from. Files are read anew for every delivery, so that a rotated secret counts at once.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    dir: Option<PathBuf>,
    env: Arc<HashMap<String, Secret>>,
}

impl Secrets {
    /// Takes the `DOT_SECRET_*` variables as they are now. To be called on the owner's thread: reading the environment
    /// on another one would race with C code that changes it.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        let env = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("DOT_SECRET_"))?;
            Some((name, Secret::new(value.into_string().ok()?)))
        });
        Secrets { dir, env: Arc::new(env.collect()) }
    }

    /// The same environment with another directory.
    pub(super) fn with_dir(&self, dir: Option<PathBuf>) -> Self {
        Secrets { dir, env: Arc::clone(&self.env) }
    }

    /// The value. May block on the file system.
    ///
    /// # Errors
    /// A line for people that names the secret and never shows a value. A file that is there and not usable is an error
    /// and not a reason to look further.
    pub(super) fn value(&self, name: &str) -> Result<Secret, String> {
        if !secret::is_name(name) {
            return Err("the endpoint's secret has a name that cannot be one".into());
        }
        if let Some(dir) = &self.dir
            && let Some(found) = read(&dir.join(name)).map_err(|why| format!("secret \"{name}\": {why}"))?
        {
            return Ok(found);
        }
        let variable = secret::env_var(name);
        match self.env.get(&variable) {
            Some(found) if !found.reveal().is_empty() => Ok(found.clone()),
            _ if self.dir.is_some() => {
                Err(format!("secret \"{name}\": no such file in the secrets directory, and {variable} is not set"))
            }
            _ => Err(format!("secret \"{name}\": no secrets directory is set, and {variable} is not set")),
        }
    }
}

/// The file's content without trailing line ends; `None` when there is no such file.
fn read(path: &Path) -> Result<Option<Secret>, String> {
    let meta = match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("its file cannot be read ({})", error.kind())),
        Ok(meta) => meta,
    };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !meta.is_file() {
        return Err("its file is not a regular file".into());
    }
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
        .map_err(|error| format!("its file cannot be read ({})", error.kind()))?;
    if content.len() as u64 > MAX_BYTES {
        return Err("its file is larger than 64 KiB".into());
    }
    let text = String::from_utf8(content).map_err(|_| "its file is not UTF-8")?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err("its file is empty".into()),
        value => Ok(Some(Secret::new(value))),
    }
}
