//! The doctor's findings about the job queue. Does not live here: the taking of jobs (`run::jobs`).

use super::check::{Check, block, ok, warn};
use crate::domain::error::DotError;
use crate::pg::object::Use;
use crate::pg::user;
use crate::run::jobs;
use crate::store::extension::Extension;
use crate::store::job::{self, Source};
use crate::store::job_link;

const NAME: &str = "jobs";

/// The doctor's findings about jobs.
///
/// # Errors
/// XX000 only.
pub(super) fn all(extension: &Extension) -> Result<Vec<Check>, DotError> {
    let schema = &extension.schema;
    let enabled = job::is_enabled(extension);
    let Some(source) = job::source()? else {
        return Ok(vec![match enabled {
            Ok(true) => warn(
                NAME,
                "queue.worker.enabled is true, but dot_wrapper.job_source has no row; no job is taken",
                "INSERT INTO dot_wrapper.job_source (run_as) VALUES ('a role that may call fn_dot_run');",
            ),
            _ => ok(NAME, "dot_wrapper.job_source has no row; no job is taken"),
        }]);
    };
    let (troubles, example, strays) = job_link::troubles(Some(&source.relation))?;
    let mut checks = vec![one_check(extension, &source, enabled, schema)];
    if let (true, Some(example)) = (troubles > 0, example) {
        let found = format!("{troubles} jobs could not be taken or told, one of them {example}");
        let advice =
            "They are tried again, within a minute; a thousand of them hold up all others. See the server's log.";
        checks.push(warn(NAME, found, advice));
    }
    if strays > 0 {
        let found = format!("{strays} jobs of another table wait to hear of their runs");
        checks.push(warn(NAME, found, "Set dot_wrapper.job_source.relation back until they have."));
    }
    Ok(checks)
}

fn one_check(extension: &Extension, source: &Source, enabled: Result<bool, String>, schema: &str) -> Check {
    let of = format!("{} of {}", source.families.join(", "), source.relation);
    let table = match job::open(extension, source, Use::Read) {
        Ok(table) => table,
        Err(why) => {
            let advice = "Put the row of dot_wrapper.job_source right; NULL for a column that the table does not have.";
            return block(NAME, format!("{why}; no job is taken"), advice);
        }
    };
    let unknown = table.unknown_words();
    if !unknown.is_empty() {
        let found = format!("the status column of {} cannot be {}", source.relation, unknown.join(", "));
        return block(NAME, found, "Name the table's own words in dot_wrapper.job_source.status_words.");
    }
    let Some(requester) = source.run_as.1 else {
        return block(NAME, jobs::no_role(source), "UPDATE dot_wrapper.job_source SET run_as = …");
    };
    match enabled {
        Err(why) => block(NAME, why, "Give dot_config to a trusted role."),
        Ok(false) => warn(
            NAME,
            format!("queue.worker.enabled is not the word true; {of} wait"),
            format!("UPDATE {schema}.dot_config SET value = 'true' WHERE key = 'queue.worker.enabled';"),
        ),
        Ok(true) if user::is_superuser(requester) => warn(
            NAME,
            format!("{of} run as {}, a superuser", source.run_as.0),
            "A role that may call fn_dot_run and nothing else is enough.",
        ),
        Ok(true) => ok(NAME, format!("{of} run as {}", source.run_as.0)),
    }
}
