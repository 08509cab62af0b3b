//! `fn_dot_resume`: an operator says that this copy of the database may execute, and which queued runs.

use serde_json::json;
use uuid::Uuid;

use super::bind::require_owner;
use super::claim;
use crate::domain::error::DotError;
use crate::domain::permit;
use crate::pg::session;
use crate::store::candidate::{self, QueuedRun};
use crate::store::event::{self, Remark};
use crate::store::{extension, mirror, queue};

/// Stamps the database and gives the runs (`None`: all that are queued) new permits; how many.
///
/// # Errors
/// 42501 for callers who are not the extension's owner.
pub fn resume(run_ids: Option<Vec<Uuid>>) -> Result<i64, DotError> {
    let extension = extension::for_writing()?;
    require_owner(&extension, "resume it")?;
    extension::as_owner(&extension, || {
        extension::stamp(session::system_identifier())?;
        let instance = extension::instance(session::system_identifier())?;
        let runs = candidate::to_resume(run_ids)?;
        for (run_id, run) in &runs {
            let permit = permit::issue(&instance.permit_key, &claim::claims(*run_id, run));
            queue::permit(*run_id, &permit, run.requested_by_oid)?;
        }
        mirror::adopt(&runs.iter().map(|(run_id, _)| *run_id).collect::<Vec<_>>())?;
        // Whatever changes a run's row comes with an event: by that the sealing finds it.
        event::remark(&runs.iter().map(|(run_id, run)| resumed(*run_id, run)).collect::<Vec<_>>())?;
        Ok(i64::try_from(runs.len()).unwrap_or(i64::MAX))
    })
}

fn resumed(run_id: Uuid, run: &QueuedRun) -> Remark {
    let detail = json!({"message": "an operator let it go on in this database", "requested_by": run.requested_by});
    Remark { run_id, attempt: None, event: "resumed", detail }
}
