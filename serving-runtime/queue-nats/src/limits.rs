//! Limits of the queue on JetStream.

use std::time::Duration;

/// Time limit for an answer.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a process counts as departed, in milliseconds.
pub(crate) const SILENT_PROCESS_MS: u64 = 3_600_000;
/// How long dead letters are kept: 30 days.
pub(crate) const DEAD_LETTER_TTL_MS: u64 = 30 * 24 * 3_600_000;
/// Largest number of attempts at a step that conflicts with others.
pub(crate) const MAX_ATTEMPTS: usize = 100;
/// Size of a message without the result, in bytes: subject, headers.
pub(crate) const MESSAGE_OVERHEAD: usize = 64 << 10;
