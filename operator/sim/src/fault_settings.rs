//! The faults of a world and their frequency.

use slipway_objects::ManagedKind;

/// How much goes wrong, as chances a second, or a write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultSettings {
    /// The operator crashes, before and after every write.
    pub crash: f64,
    /// A write fails.
    pub lost_write: f64,
    /// A write succeeds, but its response is lost.
    pub lost_answer: f64,
    /// The view gets a new lag of up to this number of seconds.
    pub max_view_lag: i64,
    /// A pod is evicted.
    pub evict: f64,
    /// A gateway pod crashes and is replaced.
    pub gateway: f64,
    /// The watch of a gateway is delayed for a while, or its connection to the operator breaks.
    pub stuck: f64,
    /// Prometheus becomes unavailable, or available again.
    pub prometheus: f64,
    /// The operator's clock jumps.
    pub clock: f64,
    /// The status is deleted.
    pub wipe: f64,
    /// Another client scales a ReplicaSet.
    pub meddle: f64,
    /// Another client overwrites the model at the URI of a version.
    pub overwrite: f64,
    /// Another client changes an object of the operator.
    pub alter: f64,
    /// A user deletes the ModelDeployment without its children, and creates it again.
    pub orphan: f64,
    /// Another controller changes the child of this kind each time that it is as we want it.
    pub contested_kind: Option<ManagedKind>,
    /// Applies of this kind are refused for good, also when all other faults end.
    pub refused_kind: Option<ManagedKind>,
    /// A second operator believes that it leads, too.
    pub two_leaders: bool,
    /// An operator is suspended between a plan and its first write, and then executes the plan (a
    /// process that is stopped, a machine that is migrated).
    pub suspend: f64,
}
