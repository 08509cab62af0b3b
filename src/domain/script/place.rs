//! Where a script may be: the roots that a superuser allows, and the paths that a catalogued name can mean below them. By
//! the letters of the path alone; links are `host`'s business.

/// Why a program may not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The directories of `dot_wrapper.script_roots`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Absolute paths, without a slash at their end.
    pub good: Vec<String>,
    /// What is no absolute path, or has `.` or `..` in it.
    pub bad: Vec<String>,
}

/// A path that a catalogued name can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The root that it is below.
    pub root: String,
    /// The path.
    pub path: String,
}

impl Roots {
    /// Reads the setting.
    pub fn parse(setting: &str) -> Roots {
        let mut roots = Roots::default();
        for root in setting.split(',').map(str::trim).filter(|root| !root.is_empty()) {
            let bare = root.trim_end_matches('/');
            let list = if is_plain(bare) { &mut roots.good } else { &mut roots.bad };
            list.push(bare.to_owned());
        }
        roots
    }

    /// True when the script engine is off.
    pub fn is_empty(&self) -> bool {
        self.good.is_empty()
    }

    /// What a name can mean, in the order of the roots: an absolute one below its root, a relative one below each.
    ///
    /// # Errors
    /// `program_outside_roots` when it can mean nothing.
    pub fn candidates(&self, name: &str) -> Result<Vec<Candidate>, Refusal> {
        let outside = |why: &str| {
            let message = format!("the program's path {why}");
            Err(Refusal { reason: "program_outside_roots", message })
        };
        let under = |root: &String| {
            let path = if name.starts_with('/') { name.to_owned() } else { format!("{root}/{name}") };
            (is_plain(&path) && below(root, &path)).then(|| Candidate { root: root.clone(), path })
        };
        if !name.trim_start_matches('/').split('/').all(is_step) {
            return outside("has an empty step, a . or a .. in it");
        }
        match self.good.iter().filter_map(under).collect::<Vec<_>>() {
            found if found.is_empty() => outside("is not below one of dot_wrapper.script_roots"),
            found => Ok(found),
        }
    }

    /// The path among those that is `requested`, or else the first.
    ///
    /// # Errors
    /// As [`Roots::candidates`].
    pub fn meant(&self, name: &str, requested: Option<&str>) -> Result<String, Refusal> {
        let mut candidates = self.candidates(name)?;
        let place = candidates.iter().position(|candidate| Some(candidate.path.as_str()) == requested);
        Ok(candidates.swap_remove(place.unwrap_or(0)).path)
    }
}

fn is_step(step: &str) -> bool {
    !matches!(step, "" | "." | "..") && !step.contains('\0')
}

/// Absolute, and each step a name.
fn is_plain(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|steps| steps.split('/').all(is_step))
}

fn below(root: &str, path: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}
