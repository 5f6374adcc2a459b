//! What the plan wants done. No meaningful choice is left to who carries it out.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_judge::evidence::EvidenceRequest;
use slipway_objects::ManagedKind;
use slipway_objects::desired::DesiredObject;

use crate::event::PlannedEvent;
use crate::fields::ForeignChange;
use crate::marks::RevisionMarks;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanAction {
    /// Server-side apply, forced, with our field manager.
    Apply(Box<DesiredObject>),
    /// The same, of an object that somebody else changed or removed. When it was written, people
    /// are told ([`ForeignChange::note`]).
    Restore {
        /// The object as we want it.
        desired: Box<DesiredObject>,
        /// What was done to it.
        change: ForeignChange,
    },
    /// Makes the ModelDeployment the controller of an object that was left without one when the
    /// ModelDeployment was deleted and its children were not. Preconditioned on the UID.
    Adopt {
        /// Kind.
        kind: ManagedKind,
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
        /// The reference to the ModelDeployment.
        owner: Box<OwnerReference>,
    },
    /// Writes `spec.replicas` of the ModelDeployment, which its owner left out, through the scale
    /// subresource.
    WriteReplicas {
        /// The value.
        replicas: i32,
    },
    /// Sets `spec.replicas` of a ReplicaSet: server-side apply with the field manager for scale,
    /// preconditioned on the UID.
    Scale {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// New value.
        replicas: i32,
    },
    /// Makes a digest that of a ReplicaSet: in its annotation, and in the environment of its
    /// template, so that pods to come refuse other bytes. Preconditioned on the UID. Pods that are
    /// there stay as they are.
    Pin {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// `sha256:<hex>`.
        digest: String,
    },
    /// Writes what a ReplicaSet says of its revision's past into its annotations. Preconditioned on
    /// the UID.
    Mark {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// Both, as they shall be.
        marks: RevisionMarks,
    },
    /// Evicts a pod, preconditioned on the UID: as `kubectl drain` does, so that disruption budgets
    /// hold.
    Evict {
        /// Pod.
        name: String,
        /// Precondition.
        uid: String,
    },
    /// Deletes an object, preconditioned on the UID, background propagation.
    Delete {
        /// Kind.
        kind: ManagedKind,
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
    },
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconcilePlan {
    /// Writes, in order. Each is worth doing although another one is refused.
    pub actions: Vec<PlanAction>,
    /// The whole status as it shall be. It is written only when it differs from the stored one.
    pub status: ModelDeploymentStatus,
    /// Write the status before the actions, and carry out no action when that write fails. Set
    /// when the status carries new weights, so that traffic moves first; when it carries any other
    /// decision, so that a crash in between does not undo what it led to; and when the actions
    /// take something away, so that a stale view is found out (the write is refused by its
    /// resourceVersion) before it can do harm. Then it is written also when it does not differ.
    pub status_first: bool,
    /// The difference is only in counts of pods: writing may wait a little so that several changes
    /// become one write.
    pub status_may_wait: bool,
    /// Events to publish.
    pub events: Vec<PlannedEvent>,
    /// When to look again although nothing changed.
    pub wake_at: Option<Timestamp>,
    /// What the metrics poller shall read; nothing: it rests.
    pub evidence: Option<EvidenceRequest>,
}
