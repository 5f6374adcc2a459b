//! The invariants, as a checker over what was seen and what was decided. Tests and the simulator call it for every plan.

use jiff::Timestamp;

use crate::action::Plan;
use crate::observed::Observed;

/// What a plan breaks; empty when all is well.
pub fn check(_observed: &Observed, _plan: &Plan, _now: Timestamp) -> Vec<String> {
    Vec::new()
}
