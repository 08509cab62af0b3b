//! The five fields of a schedule: which values each allows, and how days of the month and of the week go together.

use super::Date;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A set of small numbers.
type Set = u64;

/// What a field may hold.
struct Kind {
    name: &'static str,
    low: u32,
    high: u32,
    /// Names for the values from `low` on.
    names: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { name: "minute", low: 0, high: 59, names: &[] },
    Kind { name: "hour", low: 0, high: 23, names: &[] },
    Kind { name: "day of month", low: 1, high: 31, names: &[] },
    Kind { name: "month", low: 1, high: 12, names: &MONTHS },
    Kind { name: "day of week", low: 0, high: 7, names: &DAYS },
];

/// The values that each field allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    minute: Set,
    hour: Set,
    day: Set,
    /// The last day of the month, whichever that is.
    last_day: bool,
    month: Set,
    weekday: Set,
    /// A day has to be allowed by both fields for days, not by one of them.
    both: bool,
}

impl Fields {
    /// Reads `minute hour day-of-month month day-of-week`, or one of pg_cron's words for that.
    ///
    /// # Errors
    /// A line for people.
    pub fn parse(text: &str) -> Result<Fields, String> {
        let text = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => return Err(format!("pg_cron never runs {text}; write 0 0 1 1 *")),
            "@reboot" | "@restart" => return Err(format!("{text} is no time, so that it could run twice or never")),
            other => other,
        };
        let fields: Vec<&str> = text.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "it has {} fields, not five: minute, hour, day of month, month, day of week",
                fields.len()
            ));
        };
        let read = |kind: usize, text: &str| KINDS[kind].parse(text);
        let last_day = day == "$";
        let weekdays = read(4, weekday)?;
        Ok(Fields {
            minute: read(0, minute)?,
            hour: read(1, hour)?,
            day: if last_day { 0 } else { read(2, day)? },
            last_day,
            month: read(3, month)?,
            // 7 is Sunday, as 0 is.
            weekday: (weekdays | weekdays >> 7) & 0x7f,
            both: day.starts_with('*') || weekday.starts_with('*'),
        })
    }

    /// Whether it is due at all on that day.
    pub fn is_on(&self, date: Date) -> bool {
        let by_day = has(self.day, date.day) || (self.last_day && date.is_last);
        let by_weekday = has(self.weekday, date.weekday);
        has(self.month, date.month) && if self.both { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// The minutes of a day at which it is due.
    pub fn times(&self) -> impl Iterator<Item = i64> + '_ {
        let hours = (0..24).filter(|hour| has(self.hour, *hour));
        hours.flat_map(|hour| {
            (0..60).filter(|minute| has(self.minute, *minute)).map(move |minute| i64::from(hour * 60 + minute))
        })
    }
}

fn has(set: Set, value: u32) -> bool {
    set >> value & 1 == 1
}

impl Kind {
    /// A list of values, ranges, and stars or ranges with a step.
    fn parse(&self, text: &str) -> Result<Set, String> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.range(part)?))
    }

    fn range(&self, part: &str) -> Result<Set, String> {
        let wrong = || format!("\"{}\" is no {}", crate::domain::call::shorten(part), self.name);
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0).ok_or_else(wrong)?)),
            None => (part, None),
        };
        let (low, high) = if range == "*" {
            (self.low, self.high)
        } else if let Some((low, high)) = range.split_once('-') {
            (self.value(low).ok_or_else(wrong)?, self.value(high).ok_or_else(wrong)?)
        } else if step.is_some() {
            return Err(format!("{}; a step needs a range before it, or *", wrong()));
        } else {
            let one = self.value(range).ok_or_else(wrong)?;
            (one, one)
        };
        if low > high {
            return Err(format!("{}; the range goes backwards", wrong()));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((low..=high).step_by(step).fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().zip(self.low..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map(|(_, value)| value).or_else(|| number(text)).filter(|value| (self.low..=self.high).contains(value))
    }
}

/// Digits and nothing else; a sign is none.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
