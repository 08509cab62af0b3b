//! Tests of schedules: what is read and what is refused, the calendar, clocks that are set, and all of it against a walk
//! back minute by minute.

use super::*;
use proptest::prelude::*;

/// 2026-11-23T04:05:06Z, a Monday.
const NOW: i64 = 1_795_406_706;

fn latest(schedule: &str) -> Option<String> {
    Cron::parse(schedule).unwrap().latest(NOW, |_| 0).map(rfc3339)
}

#[test]
fn the_latest_tick_is_the_one_at_or_before_now() {
    assert_eq!(rfc3339(NOW), "2026-11-23T04:05:06Z");
    let cases = [
        ("* * * * *", "2026-11-23T04:05:00Z"),
        ("5 4 * * *", "2026-11-23T04:05:00Z"),
        ("6 4 * * *", "2026-11-22T04:06:00Z"),
        ("*/15 * * * *", "2026-11-23T04:00:00Z"),
        ("@hourly", "2026-11-23T04:00:00Z"),
        ("@daily", "2026-11-23T00:00:00Z"),
        ("@weekly", "2026-11-22T00:00:00Z"),
        ("@monthly", "2026-11-01T00:00:00Z"),
        ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
        ("30 23 $ * *", "2026-10-31T23:30:00Z"),
        ("0 12 * JAN,mar-May Sun", "2026-05-31T12:00:00Z"),
        ("0 12 * * 7", "2026-11-22T12:00:00Z"),
        (" 10-20/5\t3  * * 1 ", "2026-11-23T03:20:00Z"),
        ("10 seconds", "2026-11-23T04:05:00Z"),
    ];
    for (schedule, tick) in cases {
        assert_eq!(latest(schedule).as_deref(), Some(tick), "{schedule}");
    }
    assert_eq!(latest("0 0 31 2 *"), None);
}

/// As pg_cron has it: with a star in front of either, both must allow the day; otherwise one of them.
#[test]
fn days_of_the_month_and_of_the_week_go_together_as_in_pg_cron() {
    assert_eq!(latest("0 0 1 * tue").as_deref(), Some("2026-11-17T00:00:00Z"));
    assert_eq!(latest("0 0 */30 * mon").as_deref(), Some("2026-08-31T00:00:00Z"));
    assert_eq!(latest("0 0 15 * */7").as_deref(), Some("2026-11-15T00:00:00Z"));
}

#[test]
fn what_pg_cron_would_misread_is_refused_and_says_why() {
    let cases = [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("60 * * * *", "\"60\" is no minute"),
        ("* 24 * * *", "is no hour"),
        ("* * 0 * *", "is no day of month"),
        ("* * * 13 *", "is no month"),
        ("* * * * 8", "is no day of week"),
        ("* * * * sunday", "is no day of week"),
        ("5/10 * * * *", "a step needs a range"),
        ("*/0 * * * *", "is no minute"),
        ("20-10 * * * *", "backwards"),
        ("+5 * * * *", "is no minute"),
        ("1,,2 * * * *", "\"\" is no minute"),
        ("@yearly", "0 0 1 1 *"),
        ("@reboot", "no time"),
        ("@never", "1 fields"),
        ("60 seconds", "1 to 59"),
        ("0 seconds", "1 to 59"),
    ];
    for (schedule, why) in cases {
        let error = Cron::parse(schedule).unwrap_err();
        assert!(error.contains(why), "{schedule}: {error}");
    }
}

/// A clock in Berlin: an hour east, two in summer of 2026.
fn berlin(at: i64) -> i64 {
    // 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z
    if (1_774_746_000..1_792_890_000).contains(&at) { 7200 } else { 3600 }
}

#[test]
fn a_clock_that_is_set_skips_a_tick_or_has_it_twice() {
    let at_half_past_two = Cron::parse("30 2 * * *").unwrap();
    let latest = |now| rfc3339(at_half_past_two.latest(now, berlin).unwrap());
    // In spring there is no half past two.
    assert_eq!(latest(1_774_746_000 + 7200), "2026-03-28T01:30:00Z");
    // In autumn there are two, an hour apart.
    assert_eq!(latest(1_792_890_000 - 1), "2026-10-25T00:30:00Z");
    assert_eq!(latest(1_792_890_000 + 1799), "2026-10-25T00:30:00Z");
    assert_eq!(latest(1_792_890_000 + 1800), "2026-10-25T01:30:00Z");
}

/// A clock that is set back from just after midnight to the day before.
#[test]
fn a_day_that_begins_twice_is_looked_at_from_both_sides() {
    // 2026-11-01T03:00Z is midnight at three hours west; there it becomes 23:00 of the day before.
    let change = 1_793_502_000;
    let clock = |at: i64| if at < change + 1800 { -10_800 } else { -14_400 };
    let cron = Cron::parse("15 0 * * *").unwrap();
    assert_eq!(cron.latest(change + 1800, clock), Some(change + 900));
    assert_eq!(cron.latest(change + 3600 + 899, clock), Some(change + 900));
    assert_eq!(cron.latest(change + 3600 + 900, clock), Some(change + 3600 + 900));
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let value = low..=high;
    let part = prop_oneof![
        2 => Just("*".to_owned()),
        1 => (2..9u32).prop_map(|step| format!("*/{step}")),
        2 => value.clone().prop_map(|v| v.to_string()),
        1 => (value.clone(), value, 1..5u32).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
    ];
    prop::collection::vec(part, 1..3).prop_map(|parts| parts.join(","))
}

/// Minute by minute, as pg_cron itself goes forward.
fn walk(fields: &Fields, now: i64, offset: impl Fn(i64) -> i64, minutes: i64) -> Option<i64> {
    let last = now - now.rem_euclid(60);
    (0..minutes).map(|back| last - back * 60).find(|at| {
        let local = at + offset(*at);
        fields.is_on(Date::of(local.div_euclid(DAY))) && fields.times().any(|m| m == local.rem_euclid(DAY) / 60)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_walk_back_minute_by_minute_finds_the_same(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 7),
        now in 1_774_000_000_i64..1_794_000_000,
    ) {
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let cron = Cron::parse(&text).unwrap();
        let Cron::Fields(fields) = &cron else { unreachable!() };
        let found = cron.latest(now, berlin);
        let walked = walk(fields, now, berlin, 3 * 1440);
        match walked {
            Some(_) => prop_assert_eq!(found, walked, "{} at {}", text, rfc3339(now)),
            None => prop_assert!(found.is_none_or(|at| at <= now - 3 * DAY + 60), "{} at {}", text, rfc3339(now)),
        }
    }

    #[test]
    fn no_text_panics(text in "[*0-9,/@$a-z \t-]{0,30}", now in any::<i32>()) {
        if let Ok(cron) = Cron::parse(&text) {
            let found = cron.latest(i64::from(now), |_| 0);
            prop_assert!(found.is_none_or(|at| at <= i64::from(now)));
        }
    }

    #[test]
    fn days_count_on(days in -1_000_000_i64..1_000_000) {
        let (one, next) = (Date::of(days), Date::of(days + 1));
        prop_assert_eq!((one.weekday + 1) % 7, next.weekday);
        let follows = if one.is_last { next.day == 1 } else { next.day == one.day + 1 && next.month == one.month };
        prop_assert!(follows);
    }
}
