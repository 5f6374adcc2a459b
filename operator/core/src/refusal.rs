//! Writes that the API server rejected, as input of the plan.

/// A write: the action and its object. Refusals are keyed by it, and listed in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteTarget {
    /// The action, one word such as `apply`.
    pub verb: &'static str,
    /// The kind of the object; includes kinds that no plan creates.
    pub kind: &'static str,
    /// The name of the object; empty for the ModelDeployment itself.
    pub name: String,
}

/// Why a write was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// A disruption budget does not allow the eviction now. A later attempt may succeed.
    Budget,
    /// A user or an administrator has to change something.
    Fault,
}

/// A refusal in the form of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReport {
    /// Decides which condition reports it.
    pub cause: RefusalCause,
    /// The error message for users.
    pub message: String,
}
