//! RFC 3339 times, read strictly, and the clock that deadlines are held against.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that never goes back, so that what was too late once is too late for good.
#[derive(Debug)]
pub struct Clock {
    latest: SystemTime,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { latest: UNIX_EPOCH }
    }
}

impl Clock {
    /// The later of what the system says and what it said before.
    pub fn now(&mut self) -> SystemTime {
        self.latest = self.latest.max(SystemTime::now());
        self.latest
    }
}

/// `2026-11-22T10:00:00Z`, with a fraction or an offset where there is one. `None` when it is none, or before 1970.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (day, mut rest) = (text.get(..19)?, text.get(19..)?);
    let shape = day.bytes().zip(b"0000-00-00T00:00:00").all(|(b, p)| match p {
        b'0' => b.is_ascii_digit(),
        b'T' => matches!(b, b'T' | b't'),
        _ => b == *p,
    });
    let number = |part: &str| part.parse::<i64>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
    let within = |part: &str, min, max| number(part).filter(|n| (min..=max).contains(n));
    if !shape {
        return None;
    }
    let days = days(within(&day[..4], 0, 9999)?, within(&day[5..7], 1, 12)?, within(&day[8..10], 1, 31)?);
    let time = (within(&day[11..13], 0, 23)? * 60 + within(&day[14..16], 0, 59)?) * 60 + within(&day[17..], 0, 60)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        nanos = format!("{:0<9}", &fraction[..digits])[..9].parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let seconds = (within(rest.get(1..3)?, 0, 23)? * 60 + within(rest.get(4..6)?, 0, 59)?) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = u64::try_from(days * 86_400 + time - offset).ok()?;
    Some(UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: each year is counted from March, so that the leap day is
/// its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(text: &str) -> Option<f64> {
        parse(text).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
    }

    #[test]
    fn times_are_read_to_the_second() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2026-11-22T10:00:00Z", 1_795_341_600.0),
            ("2026-11-22t10:00:00.5z", 1_795_341_600.5),
            ("2026-11-22T17:00:00+07:00", 1_795_341_600.0),
            ("2026-11-22T06:30:00.000000001-03:30", 1_795_341_600.000_000_001),
            ("2100-03-01T00:00:00Z", 4_107_542_400.0),
        ] {
            assert_eq!(unix(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2026-11-22",
            "2026-13-22T10:00:00Z",
            "2026-11-32T10:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:00:00",
            "2026-11-22T10:00:00.Z",
            "2026-11-22 10:00:00Z",
            "2026-11-22T10:00:00+7:00",
            "2026-11-22T10:00:00++7:00",
            "1969-12-31T23:59:59Z",
            "２026-11-22T10:00:00Z",
        ] {
            assert_eq!(unix(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        let mut clock = Clock { latest: ahead };
        assert_eq!(clock.now(), ahead);
    }
}
