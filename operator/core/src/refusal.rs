//! Writes that are refused, as the plan sees them.

/// What is done, and to which object: by this a write that was refused is known again. In the order
/// in which the status lists them.
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

/// A refusal that the status shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReport {
    /// Why.
    pub cause: RefusalCause,
    /// The error, for people.
    pub message: String,
}
