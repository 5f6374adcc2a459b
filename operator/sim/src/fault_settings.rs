//! What goes wrong in a world, and how often.

use slipway_objects::ManagedKind;

/// How much goes wrong, as chances a second, or a write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultSettings {
    /// The operator dies, before and after every write.
    pub crash: f64,
    /// A write fails.
    pub lost_write: f64,
    /// A write happens, and its answer is lost.
    pub lost_answer: f64,
    /// The view gets another lag of up to so many seconds.
    pub max_view_lag: i64,
    /// A pod is evicted.
    pub evict: f64,
    /// A gateway dies and another comes.
    pub gateway: f64,
    /// A gateway's watch gets stuck for a while, or its link to the operator breaks.
    pub stuck: f64,
    /// Prometheus goes down, or comes back.
    pub prometheus: f64,
    /// The operator's clock jumps.
    pub clock: f64,
    /// The status is wiped.
    pub wipe: f64,
    /// Somebody scales a ReplicaSet by hand.
    pub meddle: f64,
    /// Somebody writes other bytes to the address of a model.
    pub overwrite: f64,
    /// Somebody changes one of our objects.
    pub alter: f64,
    /// Somebody deletes the ModelDeployment without its children, and makes it again.
    pub orphan: f64,
    /// Another controller changes the child of this kind each time that it is as we want it.
    pub contested_kind: Option<ManagedKind>,
    /// Applies of this kind are refused for good, also when all other faults end.
    pub refused_kind: Option<ManagedKind>,
    /// A second operator believes that it leads, too.
    pub two_leaders: bool,
    /// An operator sleeps between a plan and its first write, and then does what it had planned (a
    /// process that is stopped, a machine that is moved).
    pub suspend: f64,
}
