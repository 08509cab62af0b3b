//! Tests of `dry_run`: every combination of states, and the comparison's algebra.

use super::*;

fn seen(status: RunStatus, reason: &str) -> Seen {
    Seen { status, gate: Some("toggle".into()), reason: Some(reason.into()), message: Some("it is off".into()) }
}

fn outcome(verdict: &str, reason: Option<&str>, fingerprint: &str) -> Outcome {
    Outcome {
        code: "A".into(),
        verdict: verdict.into(),
        plan_status: Some("planned".into()),
        plan_reason: None,
        verify_status: Some("succeeded".into()),
        verify_reason: reason.map(str::to_owned),
        fingerprint: Some(fingerprint.into()),
    }
}

#[test]
fn only_planned_and_succeeded_passes() {
    let plans = [None, Some(RunStatus::Planned), Some(RunStatus::Refused)];
    let verifies = RunStatus::ALL.into_iter().filter(|s| *s != RunStatus::Planned).map(Some).chain([None]);
    let mut passes = 0;
    for verify in verifies {
        for plan in plans {
            let (p, v) = (plan.map(|s| seen(s, "toggle_off")), verify.map(|s| seen(s, "toggle_off")));
            let (verdict, why) = judge(p.as_ref(), v.as_ref());
            let expected = plan == Some(RunStatus::Planned) && verify == Some(RunStatus::Succeeded);
            assert_eq!(verdict == Verdict::Pass, expected, "{plan:?} {verify:?}");
            assert!(!why.is_empty() && !why.contains('\n'));
            passes += u32::from(expected);
        }
    }
    assert_eq!(passes, 1);
}

#[test]
fn a_verdict_says_what_stopped_the_tool() {
    let planned = seen(RunStatus::Planned, "");
    let cases = [
        (Some(RunStatus::Refused), Verdict::Refused, "verify refused: gate toggle: it is off"),
        (Some(RunStatus::Failed), Verdict::Failed, "verify failed: gate toggle: it is off"),
        (Some(RunStatus::Expired), Verdict::Failed, "verify expired: gate toggle: it is off"),
        (Some(RunStatus::Running), Verdict::Pending, "verify running"),
        (None, Verdict::Pending, "planned, and not verified in this process run"),
    ];
    for (verify, verdict, why) in cases {
        let verify = verify.map(|status| seen(status, "x"));
        assert_eq!(judge(Some(&planned), verify.as_ref()), (verdict, why.to_owned()));
    }
    let refused = seen(RunStatus::Refused, "x");
    assert_eq!(judge(Some(&refused), None).0, Verdict::Refused);
    assert_eq!(judge(None, Some(&seen(RunStatus::Succeeded, ""))).0, Verdict::Pending);
}

#[test]
fn a_tool_that_is_not_active_is_retired_and_not_a_failure() {
    let inactive = seen(RunStatus::Refused, "inactive");
    let planned = seen(RunStatus::Planned, "");
    for (plan, verify) in
        [(Some(&inactive), Some(&inactive)), (Some(&inactive), None), (Some(&planned), Some(&inactive))]
    {
        let (verdict, why) = judge(plan, verify);
        assert_eq!((verdict, why.as_str()), (Verdict::Retired, "it is off"));
        assert!(!verdict.is_trouble());
    }
    let succeeded = seen(RunStatus::Succeeded, "");
    assert_eq!(
        judge(Some(&inactive), Some(&succeeded)).0,
        Verdict::Refused,
        "it was active again when it was verified"
    );
}

#[test]
fn better_is_to_pass_again_and_worse_is_to_stop_passing() {
    let rows = [
        ("PASS", "PASS", Change::Same),
        ("PASS", "FAILED", Change::Better),
        ("PASS", "RETIRED", Change::Better),
        ("FAILED", "PASS", Change::Worse),
        ("REFUSED", "PASS", Change::Worse),
        ("PENDING", "PASS", Change::Worse),
        ("FAILED", "RETIRED", Change::Worse),
        ("RETIRED", "PASS", Change::Changed),
        ("RETIRED", "FAILED", Change::Changed),
        ("FAILED", "REFUSED", Change::Changed),
        ("RETIRED", "RETIRED", Change::Same),
    ];
    for (now, before, change) in rows {
        let (now, before) = (outcome(now, None, "f"), outcome(before, None, "f"));
        assert_eq!(compare(Some(&now), Some(&before)), change, "{now:?} after {before:?}");
    }
    let one = outcome("PASS", None, "f");
    assert_eq!(compare(Some(&one), None), Change::New);
    assert_eq!(compare(None, Some(&one)), Change::Gone);
}

#[test]
fn the_same_verdict_for_another_reason_or_request_is_a_change() {
    let one = outcome("FAILED", Some("http_500"), "f");
    assert_eq!(compare(Some(&one), Some(&outcome("FAILED", Some("timeout"), "f"))), Change::Changed);
    assert_eq!(compare(Some(&one), Some(&outcome("FAILED", Some("http_500"), "g"))), Change::Changed);
    assert_eq!(compare(Some(&one), Some(&one.clone())), Change::Same);
}
