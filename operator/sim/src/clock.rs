//! The time of the simulation.

use jiff::Timestamp;

/// Start time of every world.
pub(crate) const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
