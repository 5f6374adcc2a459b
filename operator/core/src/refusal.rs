//! Writes that are refused, as the plan sees them.

/// What is done, and to which object. Refusals are kept by it, and listed in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteTarget {
    /// What is done, in one word.
    pub verb: &'static str,
    /// Kind of the object, also one that no plan makes.
    pub kind: &'static str,
    /// Its name; empty for the ModelDeployment itself.
    pub name: String,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// A disruption budget lets the pod not go for now, which is no fault of anybody's.
    Budget,
    /// Somebody has to change something.
    Fault,
}

/// A refusal as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReport {
    /// Why.
    pub cause: RefusalCause,
    /// The error, for people.
    pub message: String,
}
