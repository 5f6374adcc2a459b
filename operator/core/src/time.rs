//! Arithmetic of times that cannot overflow.

use jiff::{SignedDuration, Timestamp};

/// A time and some seconds; the end of time when there is none so late.
pub(crate) fn add_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
