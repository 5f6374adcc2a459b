//! Events of Kubernetes about a ModelDeployment.

/// An Event about the ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEvent {
    /// Normal or Warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// CamelCase verb: what was done.
    pub action: String,
    /// For people; at most 1 kB.
    pub note: String,
}
