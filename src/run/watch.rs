//! The master toggle, looked at again while calls that were claimed have not begun to send: what was open when the intent
//! was recorded may be closed by the time that a connection is made.

use crate::domain::decide;
use crate::domain::error::DotError;
use crate::store::extension::Extension;
use crate::store::port;

/// True when the toggle lets through at this moment.
///
/// # Errors
/// XX000 only.
pub fn is_open(_: &Extension) -> Result<bool, DotError> {
    Ok(!decide::toggle(&port::load()?.toggle()).blocks())
}
