//! `dot_wrapper.schedule`: what administrators declared.

use std::collections::HashMap;

use super::spi;
use crate::domain::error::DotError;
use crate::domain::mode::Mode;
use crate::domain::schedule::{Policy, Schedule};

/// The schedules of these tools (`None`: of all), by code.
///
/// # Errors
/// XX000 only.
pub fn declared(codes: Option<&[String]>) -> Result<HashMap<String, Schedule>, DotError> {
    let sql = "SELECT s.code, s.schedule, s.mode, s.args, s.overlap, s.window_s::bigint FROM dot_wrapper.schedule s
               WHERE $1::text[] IS NULL OR s.code = ANY ($1)";
    let rows = spi::rows(sql, &[codes.map(<[String]>::to_vec).into()], |row| {
        let schedule = Schedule {
            text: spi::need(row, 2)?,
            // The schema's CHECKs let nothing else in.
            mode: Mode::parse(&spi::need::<String>(row, 3)?).unwrap_or(Mode::Verify),
            args: spi::need_json(row, 4)?,
            overlap: Policy::parse(&spi::need::<String>(row, 5)?).unwrap_or_default(),
            window_s: spi::need(row, 6)?,
        };
        Ok((spi::need(row, 1)?, schedule))
    })?;
    Ok(rows.into_iter().collect())
}
