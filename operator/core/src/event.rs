//! Events of Kubernetes about a ModelDeployment.

/// An event that the plan wants to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEvent {
    /// Whether the type is Warning instead of Normal.
    pub warning: bool,
    /// Reason in CamelCase.
    pub reason: String,
    /// What was done, a verb in CamelCase.
    pub action: String,
    /// Message for users; at most 1 kB.
    pub note: String,
}
