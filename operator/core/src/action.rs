//! Output of the plan. The executor of the actions makes no decisions of its own.

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
    /// Server-side apply, forced, with the operator's field manager.
    Apply(Box<DesiredObject>),
    /// The same for an object that another client changed or deleted. After the write the event
    /// [`ForeignChange::to_event`] is published.
    Restore {
        /// The object as the operator wants it.
        desired: Box<DesiredObject>,
        /// The change by the other client.
        change: ForeignChange,
    },
    /// Makes the ModelDeployment the controller of an object that has none, because its earlier
    /// ModelDeployment was deleted without its children. Preconditioned on the UID.
    Adopt {
        /// Kind.
        kind: ManagedKind,
        /// Name.
        name: String,
        /// UID, used as precondition.
        uid: String,
        owner: Box<OwnerReference>,
    },
    /// Writes `spec.replicas` of the ModelDeployment through the scale subresource, if its owner
    /// did not set it.
    WriteReplicas { replicas: i32 },
    /// Sets `spec.replicas` of a ReplicaSet: server-side apply with the field manager for scale,
    /// preconditioned on the UID.
    Scale {
        /// Name of the ReplicaSet.
        name: String,
        /// UID, used as precondition.
        uid: String,
        /// New value of `spec.replicas`.
        replicas: i32,
    },
    /// Pins a ReplicaSet to a digest: in its annotation, and in the environment of its template, so
    /// that future pods reject other models. Existing pods do not change. Preconditioned on the
    /// UID.
    Pin {
        /// Name of the ReplicaSet.
        name: String,
        /// UID, used as precondition.
        uid: String,
        /// `sha256:<hex>`.
        digest: String,
    },
    /// Writes the history of the revision to the annotations of its ReplicaSet. Preconditioned on
    /// the UID.
    Mark {
        /// Name of the ReplicaSet.
        name: String,
        /// UID, used as precondition.
        uid: String,
        /// Both annotations as they have to be.
        marks: RevisionMarks,
    },
    /// Evicts a pod as `kubectl drain` does, so that disruption budgets apply. Preconditioned on
    /// the UID.
    Evict {
        /// Name of the pod.
        name: String,
        /// UID, used as precondition.
        uid: String,
    },
    /// Deletes an object with background propagation, preconditioned on the UID.
    Delete {
        /// Kind.
        kind: ManagedKind,
        /// Name.
        name: String,
        /// UID, used as precondition.
        uid: String,
    },
}

/// The actions and the status that the operator decided on for one ModelDeployment.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconcilePlan {
    /// Writes, in order. Each is useful even if another one is rejected.
    pub actions: Vec<PlanAction>,
    /// The complete desired status. It is written only if it differs from the stored one.
    pub status: ModelDeploymentStatus,
    /// Write the status before the actions, and execute no action if that write fails. Set in
    /// three cases: the status contains new weights, so that traffic moves first; it contains any
    /// other decision, so that a crash between the writes does not undo the consequences of that
    /// decision; or the actions remove something, so that a stale view is detected before it does
    /// harm, because the API server rejects the write by its resourceVersion. In the last case the
    /// status is written even if it does not differ.
    pub status_first: bool,
    /// Only counts of pods differ: the write may be delayed a little so that several changes are
    /// combined into one write.
    pub status_may_wait: bool,
    pub events: Vec<PlannedEvent>,
    /// When to plan again even if nothing changed.
    pub wake_at: Option<Timestamp>,
    /// The queries for the metrics poller; `None` stops it.
    pub evidence: Option<EvidenceRequest>,
}
