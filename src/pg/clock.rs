//! The server's clock, and clocks of other time zones. Does not live here: when anything is due (`domain::cron`).

use std::ffi::CString;

use pgrx::pg_sys;

const UNIX_TO_POSTGRES_US: i64 = 946_684_800_000_000;

/// Now, in microseconds since 1970; goes on inside of a transaction.
pub fn now_us() -> i64 {
    // SAFETY: reads the system's clock.
    unsafe { pg_sys::GetCurrentTimestamp() + UNIX_TO_POSTGRES_US }
}

/// A time zone.
#[derive(Clone, Copy, Debug)]
pub struct Zone(*const pg_sys::pg_tz);

impl Zone {
    /// The zone of that name, as PostgreSQL knows it.
    pub fn find(name: &str) -> Option<Zone> {
        let name = CString::new(name).ok()?;
        // SAFETY: a C string; the zone that comes back is kept for the life of the process.
        let zone = unsafe { pg_sys::pg_tzset(name.as_ptr()) };
        (!zone.is_null()).then_some(Zone(zone))
    }

    /// How far east of Greenwich it is at a moment (seconds since 1970), in seconds.
    pub fn offset(self, at: i64) -> i64 {
        // SAFETY: `find` has checked the zone; the result is NULL, for years that an int does not hold, or a static.
        unsafe { pg_sys::pg_localtime(&raw const at, self.0).as_ref().map_or(0, |local| local.tm_gmtoff) }
    }
}
