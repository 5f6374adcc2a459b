//! Bounds of the queue on JetStream.

use std::time::Duration;

/// How long an answer may take.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that counted nothing for so long is gone.
pub(crate) const SILENT_PROCESS_MS: u64 = 3_600_000;
/// How long dead letters are kept: 30 days.
pub(crate) const DEAD_LETTER_TTL_MS: u64 = 30 * 24 * 3_600_000;
/// Attempts at a step while others are faster.
pub(crate) const MAX_ATTEMPTS: usize = 100;
/// Bytes of a message that are not a result's: subject, headers.
pub(crate) const MESSAGE_OVERHEAD: usize = 64 << 10;
