//! The time of the simulation.

use jiff::Timestamp;

/// When every world begins.
pub(crate) const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
