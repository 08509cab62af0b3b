//! The verdict on a tool that was planned and then verified, and how it compares with an earlier one.
//! Does not live here: which runs are looked at, and who may see them.

use serde::Deserialize;

use super::state::RunStatus;

/// A plan or a verify, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands.
    pub status: RunStatus,
    /// The gate that stopped it.
    pub gate: Option<String>,
    /// Why, for machines.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
}

/// What is to be said of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Planned, and its verify succeeded.
    Pass,
    /// A gate refused the plan or the verify.
    Refused,
    /// The verify was sent, or could not be, and did not succeed.
    Failed,
    /// Not planned, not verified, or not over.
    Pending,
    /// The catalogue says that the tool is not active: the gates refuse it, as they should.
    Retired,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 5] =
        [Verdict::Pass, Verdict::Refused, Verdict::Failed, Verdict::Pending, Verdict::Retired];

    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Refused => "REFUSED",
            Verdict::Failed => "FAILED",
            Verdict::Pending => "PENDING",
            Verdict::Retired => "RETIRED",
        }
    }

    /// True where somebody has to look.
    pub fn is_trouble(self) -> bool {
        matches!(self, Verdict::Refused | Verdict::Failed | Verdict::Pending)
    }
}

/// The verdict, and why in one line.
pub fn judge(plan: Option<&Seen>, verify: Option<&Seen>) -> (Verdict, String) {
    if let Some(seen) = verify.or(plan).filter(|seen| is_retired(seen)) {
        return (Verdict::Retired, seen.message.clone().unwrap_or_else(|| "the tool is not active".into()));
    }
    use RunStatus as S;
    let planned = plan.is_some_and(|plan| plan.status == S::Planned);
    match (plan, verify) {
        (_, Some(verify)) if matches!(verify.status, S::Failed | S::Expired | S::Cancelled | S::InDoubt) => {
            (Verdict::Failed, format!("verify {}: {}", verify.status.as_str(), told(verify)))
        }
        (Some(plan), _) if plan.status == S::Refused => (Verdict::Refused, format!("plan refused: {}", told(plan))),
        (_, Some(verify)) if verify.status == S::Refused => {
            (Verdict::Refused, format!("verify refused: {}", told(verify)))
        }
        (_, Some(verify)) if verify.status == S::Succeeded && planned => (Verdict::Pass, "planned and verified".into()),
        (_, Some(verify)) if verify.status == S::Succeeded => {
            (Verdict::Pending, "verified, and not planned in this process run".into())
        }
        (_, Some(verify)) => (Verdict::Pending, format!("verify {}", verify.status.as_str())),
        (_, None) => (Verdict::Pending, "planned, and not verified in this process run".into()),
    }
}

fn is_retired(seen: &Seen) -> bool {
    seen.status == RunStatus::Refused && seen.reason.as_deref() == Some("inactive")
}

/// `gate toggle: the master toggle is off`
fn told(seen: &Seen) -> String {
    let said = seen.message.as_deref().or(seen.reason.as_deref()).unwrap_or("no reason was given");
    match &seen.gate {
        Some(gate) => format!("gate {gate}: {said}"),
        None => said.to_owned(),
    }
}

/// What two dry runs of a tool are compared by: no time, no id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Outcome {
    /// The tool.
    pub code: String,
    /// [`Verdict::as_str`].
    pub verdict: String,
    /// State of the plan.
    pub plan_status: Option<String>,
    /// Why it stands there.
    pub plan_reason: Option<String>,
    /// State of the verify.
    pub verify_status: Option<String>,
    /// Why it stands there.
    pub verify_reason: Option<String>,
    /// Of the plan: tool, arguments, target.
    pub fingerprint: Option<String>,
}

/// A tool's newest plan and verify in a process run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Its plan.
    pub plan: Option<Seen>,
    /// Its verify.
    pub verify: Option<Seen>,
    /// Of the plan.
    pub fingerprint: Option<String>,
}

impl Tried {
    /// What it came to, and why in one line.
    pub fn outcome(self, code: String) -> (Outcome, String) {
        let (verdict, why) = judge(self.plan.as_ref(), self.verify.as_ref());
        let split = |seen: Option<Seen>| {
            let status = seen.as_ref().map(|seen| seen.status.as_str().to_owned());
            (status, seen.and_then(|seen| seen.reason))
        };
        let ((plan_status, plan_reason), (verify_status, verify_reason)) = (split(self.plan), split(self.verify));
        let verdict = verdict.as_str().to_owned();
        let fingerprint = self.fingerprint;
        let outcome = Outcome { code, verdict, plan_status, plan_reason, verify_status, verify_reason, fingerprint };
        (outcome, why)
    }
}

/// How a tool stands against the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// In every respect.
    Same,
    /// It passes, and did not.
    Better,
    /// It does not pass any more, or a retired one makes trouble.
    Worse,
    /// The same verdict for another reason or for another request, or another verdict that is neither better nor worse.
    Changed,
    /// The baseline does not have it.
    New,
    /// Only the baseline has it.
    Gone,
}

impl Change {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Same => "same",
            Change::Better => "better",
            Change::Worse => "worse",
            Change::Changed => "changed",
            Change::New => "new",
            Change::Gone => "gone",
        }
    }
}

/// Compares; `None` for "not there".
pub fn compare(now: Option<&Outcome>, before: Option<&Outcome>) -> Change {
    let (now, before) = match (now, before) {
        (Some(now), Some(before)) => (now, before),
        (Some(_), None) => return Change::New,
        (None, _) => return Change::Gone,
    };
    if now == before {
        return Change::Same;
    }
    let (passes, passed) = (now.verdict == Verdict::Pass.as_str(), before.verdict == Verdict::Pass.as_str());
    let troubled = Verdict::ALL.iter().any(|v| v.is_trouble() && v.as_str() == now.verdict);
    let was_well = passed || before.verdict == Verdict::Retired.as_str();
    match (passes, passed) {
        (true, false) => Change::Better,
        _ if troubled && was_well => Change::Worse,
        _ => Change::Changed,
    }
}

#[cfg(test)]
#[path = "dry_run_tests.rs"]
mod tests;
