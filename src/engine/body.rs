//! Reads an answer's body: capped in size, in silence and in time. What the bytes mean is `reply`'s business.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::connection::Response;

/// Why a body is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// More bytes than allowed, or a length that announces them.
    TooLarge,
    /// The connection ended, or the framing broke, too early.
    Lost,
    /// Nothing came for too long.
    Silent,
    /// The delivery's time was over.
    Late,
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) max: u64,
    /// The longest silence.
    pub(super) idle: Duration,
    /// The end of all reading.
    pub(super) until: Instant,
}

/// Reads to the end. `bytes` counts what came, up to the cap.
///
/// # Errors
/// Why it is not whole; reading has stopped and the connection closes with the response.
pub(super) async fn read(response: &mut Response, bounds: Bounds, bytes: &mut u64) -> Result<Vec<u8>, Cut> {
    *bytes = 0;
    if response.content_length().is_some_and(|length| length > bounds.max) {
        return Err(Cut::TooLarge);
    }
    let mut whole = Vec::new();
    loop {
        // A flood is always ready, and what is always ready is never timed out.
        if Instant::now() >= bounds.until {
            return Err(Cut::Late);
        }
        let silent = after(Instant::now(), bounds.idle);
        let chunk = match timeout_at(silent.min(bounds.until), response.chunk()).await {
            Err(_) if silent < bounds.until => return Err(Cut::Silent),
            Err(_) => return Err(Cut::Late),
            Ok(Err(_)) => return Err(Cut::Lost),
            Ok(Ok(None)) => return Ok(whole),
            Ok(Ok(Some(chunk))) => chunk,
        };
        *bytes = bytes.saturating_add(chunk.len() as u64).min(bounds.max);
        if whole.len() as u64 + chunk.len() as u64 > bounds.max {
            return Err(Cut::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
}

/// A point in time; one that no clock reaches stands for a decade from now.
pub(super) fn after(start: Instant, wait: Duration) -> Instant {
    const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    start + wait.min(DECADE)
}
