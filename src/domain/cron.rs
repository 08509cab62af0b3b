//! When a schedule comes due, in the dialect of pg_cron, whose word it has to be: five fields, or `N seconds`.
//!
//! Lives here: reading a schedule, and the latest moment at or before another one at which it was due. Does not live here:
//! what is done then. No crate for it: the ticks that are computed here have to be the ones at which pg_cron calls, and
//! pg_cron reads day fields in a way of its own (with a star in front, both must match; without, one of them). What
//! pg_cron reads as something else than it looks, or as never, is refused.

mod fields;

use fields::Fields;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
/// How far back is looked: any date that comes up at all does so within the 28 years after which weekdays repeat, but for
/// the centuries without a leap day.
const HORIZON_DAYS: i64 = 41 * 366;

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cron {
    /// Minute, hour, day of month, month, day of week.
    Fields(Fields),
    /// Every so many seconds, 1 to 59; newer versions of pg_cron only.
    Seconds(i64),
}

impl Cron {
    /// Reads a schedule.
    ///
    /// # Errors
    /// A line for people.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let text = text.trim_matches([' ', '\t']);
        if let Some(seconds) = seconds(text) {
            return match seconds {
                1..60 => Ok(Cron::Seconds(seconds)),
                _ => Err("seconds are 1 to 59".to_owned()),
            };
        }
        Fields::parse(text).map(Cron::Fields)
    }

    /// The latest moment at or before `now` at which it was due, in seconds since 1970; `None` when there is none.
    /// `offset` says how far east of Greenwich the clock of the schedule was at a moment, in seconds.
    pub fn latest(&self, now: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        match self {
            Cron::Seconds(every) => Some(now - now.rem_euclid(*every)),
            Cron::Fields(fields) => latest(fields, now, offset),
        }
    }
}

fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_once([' ', '\t'])?;
    let unit = unit.trim_start_matches([' ', '\t']);
    let is_unit = unit.eq_ignore_ascii_case("second") || unit.eq_ignore_ascii_case("seconds");
    if is_unit && number.bytes().all(|b| b.is_ascii_digit()) { number.parse().ok() } else { None }
}

/// Goes back day by day of the schedule's own calendar. Where clocks are set back, times of one day, and even days, come in
/// another order than the moments that they stand for; so one day more is looked at on either side.
fn latest(fields: &Fields, now: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
    let today = (now + offset(now)).div_euclid(DAY);
    let on = |day: i64| fields.is_on(Date::of(day)).then(|| latest_on(fields, day, now, &offset)).flatten();
    let found = (today - HORIZON_DAYS..=today + 1).rev().find_map(|day| on(day).map(|at| (day, at)));
    found.map(|(day, at)| on(day - 1).map_or(at, |before| before.max(at)))
}

fn latest_on(fields: &Fields, day: i64, now: i64, offset: &impl Fn(i64) -> i64) -> Option<i64> {
    let start = day * DAY;
    // Clocks are set at most once in two days.
    let offsets = [offset(start - DAY), offset(start + 2 * DAY)];
    let moments = |local: i64| offsets.iter().map(move |east| (local - east, *east));
    let times = fields.times().map(|minute| start + minute * MINUTE);
    times.flat_map(moments).filter(|(at, east)| *at <= now && offset(*at) == *east).map(|(at, _)| at).max()
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 6, from Sunday on.
    pub weekday: u32,
    /// Whether it is the last of its month.
    pub is_last: bool,
}

impl Date {
    /// The day so many days after 1970-01-01.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "remainders of small numbers")]
    pub fn of(days: i64) -> Date {
        let (year, month, day) = civil(days);
        Date { year, month, day, weekday: (days + 4).rem_euclid(7) as u32, is_last: civil(days + 1).2 == 1 }
    }
}

/// Year, month and day, counted in eras of 400 years that begin on 1 March.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "remainders of small numbers")]
fn civil(days: i64) -> (i64, u32, u32) {
    let since = days + 719_468;
    let (era, day_of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// A moment as people and machines write it: `2026-11-23T04:00:00Z`.
pub fn rfc3339(at: i64) -> String {
    let (date, second) = (Date::of(at.div_euclid(DAY)), at.rem_euclid(DAY));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year, date.month, date.day)
}

#[cfg(test)]
mod tests;
