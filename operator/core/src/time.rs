//! Arithmetic on times that cannot overflow.

use jiff::{SignedDuration, Timestamp};

/// Adds seconds to a time; saturates at the latest possible time.
pub(crate) fn add_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
