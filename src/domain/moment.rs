//! Points in time as PostgreSQL writes them in JSON. Does not live here: clocks.

/// From 1970 to 2000, from which PostgreSQL counts.
const EPOCH_2000_S: i64 = 946_684_800;

/// Microseconds since 2000-01-01 00:00 UTC of a text like `2026-01-31T23:59:59.123456+02:00`: with a space instead of the
/// `T`, without fractions, without an offset (then it is UTC) or without a time of day. `None` for anything else.
pub fn micros_since_2000(text: &str) -> Option<i64> {
    let text = text.trim();
    if !text.is_ascii() {
        return None;
    }
    let days = days_since_1970(text.get(..10)?)?;
    let rest = &text[10..];
    let (time, offset_s) = if rest.is_empty() { (0, 0) } else { clock_and_offset(rest.strip_prefix(['T', ' '])?)? };
    let seconds = days * 86_400 - EPOCH_2000_S - offset_s;
    Some(seconds * 1_000_000 + time)
}

fn days_since_1970(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || year < 1 || !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468)
}

/// Microseconds of the day, and the offset in seconds.
fn clock_and_offset(text: &str) -> Option<(i64, i64)> {
    let at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, offset) = text.split_at(at);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let seconds = clock_s(whole, 24)?;
    let micros = if fraction.len() <= 6 { number(fraction, fraction.len())? } else { return None };
    let scale = 10_i64.pow(u32::try_from(6 - fraction.len()).ok()?);
    let offset_s = match offset.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [b'+', ..] => clock_s(&offset[1..], 16)?,
        [b'-', ..] => -clock_s(&offset[1..], 16)?,
        _ => return None,
    };
    Some((seconds * 1_000_000 + micros * scale, offset_s))
}

/// `hh`, `hh:mm` or `hh:mm:ss` in seconds; less than so many hours.
fn clock_s(text: &str, hours: i64) -> Option<i64> {
    let mut seconds = 0;
    let mut unit = 3600;
    for (n, part) in text.split(':').enumerate() {
        let value = number(part, 2)?;
        if n > 2 || value >= if n == 0 { hours } else { 60 } {
            return None;
        }
        seconds += value * unit;
        unit /= 60;
    }
    Some(seconds)
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let fits = text.len() == digits && digits > 0 && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::micros_since_2000 as read;

    #[test]
    fn what_postgresql_writes_is_read_to_the_microsecond() {
        assert_eq!(read("2000-01-01T00:00:00+00:00"), Some(0));
        assert_eq!(read("2000-01-01T00:00:01.5+00"), Some(1_500_000));
        assert_eq!(read("2000-01-01 01:00:00.000001"), Some(3_600_000_001));
        assert_eq!(read("2000-03-01"), Some(60 * 86_400_000_000));
        assert_eq!(read("1999-12-31T23:59:59Z"), Some(-1_000_000));
        assert_eq!(read("2000-01-01T05:30:00+05:30"), Some(0));
        assert_eq!(read("1999-12-31T20:00:00-04:00"), Some(0));
        assert_eq!(read("2026-11-23T03:39:56.123456+00:00"), Some(848_720_396_123_456));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "infinity",
            "now",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-01-00",
            "0000-01-01",
            "2026-01-01T24:00:00",
            "2026-01-01T00:60",
            "2026-01-01T00:00:00.1234567",
            "2026-01-01T00:00:00+16",
            "2026-01-01X00:00",
            "2026-01-01 BC",
            "20260101",
            "1e3",
            "2026-01-01T00:00:00.",
            "２０２６-01-01",
            "2026-01-01T00:00:00Zz",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected = read("1896-01-01").unwrap();
        for year in 1896..2110 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in lengths.into_iter().enumerate() {
                for day in 1..=length {
                    assert_eq!(read(&format!("{year:04}-{:02}-{day:02}", month + 1)), Some(expected));
                    expected += 86_400_000_000;
                }
            }
        }
    }
}
