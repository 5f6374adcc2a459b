//! What the plan wants done. No meaningful choice is left to who carries it out.

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;
use slipway_crds::v1alpha1::ModelDeploymentStatus;

use crate::evidence::EvidenceRequest;
use crate::fields::Change;
use crate::marks::Marks;

/// Annotation with the hash of what was applied last. A child is applied again when it differs, and only then.
pub const APPLIED: &str = "ml.slipway.dev/applied";

/// What the error of an eviction says that a disruption budget refuses for now, after the name of the pod. By it the plan tells such a refusal, which is no fault
/// of anybody's, from others.
pub const HELD_BY_BUDGET: &str = "held by a disruption budget";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Server-side apply, forced, with our field manager.
    Apply(Box<Desired>),
    /// The same, of an object that somebody else changed or removed. When it was written, people are told ([`Change::note`]).
    Restore {
        /// The object as we want it.
        desired: Box<Desired>,
        /// What was done to it.
        change: Change,
    },
    /// Makes the ModelDeployment the controller of an object that was left without one when the ModelDeployment was deleted and its children were not.
    /// Preconditioned on the UID.
    Adopt {
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
        /// The reference to the ModelDeployment.
        owner: Box<OwnerReference>,
    },
    /// Writes `spec.replicas` of the ModelDeployment, which its owner left out, through the scale subresource.
    WriteReplicas {
        /// The value.
        replicas: i32,
    },
    /// Sets `spec.replicas` of a ReplicaSet: server-side apply with the field manager for scale, preconditioned on the UID.
    Scale {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// New value.
        replicas: i32,
    },
    /// Makes a digest that of a ReplicaSet: in its annotation, and in the environment of its template, so that pods to come refuse other bytes.
    /// Preconditioned on the UID. Pods that are there stay as they are.
    Pin {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// `sha256:<hex>`.
        digest: String,
    },
    /// Writes what a ReplicaSet says of its revision's past into its annotations. Preconditioned on the UID.
    Mark {
        /// ReplicaSet.
        name: String,
        /// Precondition.
        uid: String,
        /// Both, as they shall be.
        marks: Marks,
    },
    /// Evicts a pod, preconditioned on the UID: as `kubectl drain` does, so that disruption budgets hold.
    Evict {
        /// Pod.
        name: String,
        /// Precondition.
        uid: String,
    },
    /// Deletes an object, preconditioned on the UID, background propagation.
    Delete {
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
    },
}

/// Kinds that are deleted and adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// apps/v1 ReplicaSet.
    ReplicaSet,
    /// v1 Service.
    Service,
    /// autoscaling/v2 HorizontalPodAutoscaler.
    HorizontalPodAutoscaler,
    /// apps/v1 Deployment.
    Deployment,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
}

/// An object as we want it: only the fields that we mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// A revision's pods. Applied when it is missing, and when a restart brings it up to date; scaled by [`Action::Scale`] afterwards.
    ReplicaSet(ReplicaSet),
    /// A Service.
    Service(Service),
    /// The autoscaler.
    HorizontalPodAutoscaler(HorizontalPodAutoscaler),
    /// A disruption budget.
    PodDisruptionBudget(PodDisruptionBudget),
    /// The gateway's identity.
    ServiceAccount(ServiceAccount),
    /// The gateway's rights.
    RoleBinding(RoleBinding),
    /// The gateway, or the workers.
    Deployment(Deployment),
    /// Who may reach pods.
    NetworkPolicy(NetworkPolicy),
}

impl Desired {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ReplicaSet(object) => object.metadata(),
            Self::Service(object) => object.metadata(),
            Self::HorizontalPodAutoscaler(object) => object.metadata(),
            Self::PodDisruptionBudget(object) => object.metadata(),
            Self::ServiceAccount(object) => object.metadata(),
            Self::RoleBinding(object) => object.metadata(),
            Self::Deployment(object) => object.metadata(),
            Self::NetworkPolicy(object) => object.metadata(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::ReplicaSet(object) => object.metadata_mut(),
            Self::Service(object) => object.metadata_mut(),
            Self::HorizontalPodAutoscaler(object) => object.metadata_mut(),
            Self::PodDisruptionBudget(object) => object.metadata_mut(),
            Self::ServiceAccount(object) => object.metadata_mut(),
            Self::RoleBinding(object) => object.metadata_mut(),
            Self::Deployment(object) => object.metadata_mut(),
            Self::NetworkPolicy(object) => object.metadata_mut(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ReplicaSet(_) => "ReplicaSet",
            Self::Service(_) => "Service",
            Self::HorizontalPodAutoscaler(_) => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget(_) => "PodDisruptionBudget",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::RoleBinding(_) => "RoleBinding",
            Self::Deployment(_) => "Deployment",
            Self::NetworkPolicy(_) => "NetworkPolicy",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Kind and name: what people call it, and the key of [`crate::observed::Observed::disturbances`].
    pub fn target(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// The hash that its builder stamped it with.
    pub fn stamp(&self) -> &str {
        let annotations = self.metadata().annotations.as_ref();
        annotations.and_then(|all| all.get(APPLIED)).map(String::as_str).unwrap_or_default()
    }

    /// As it is sent.
    pub fn to_json(&self) -> Value {
        // Maps with string keys and plain data: there is nothing in these types that JSON cannot express.
        match self {
            Self::ReplicaSet(object) => serde_json::to_value(object),
            Self::Service(object) => serde_json::to_value(object),
            Self::HorizontalPodAutoscaler(object) => serde_json::to_value(object),
            Self::PodDisruptionBudget(object) => serde_json::to_value(object),
            Self::ServiceAccount(object) => serde_json::to_value(object),
            Self::RoleBinding(object) => serde_json::to_value(object),
            Self::Deployment(object) => serde_json::to_value(object),
            Self::NetworkPolicy(object) => serde_json::to_value(object),
        }
        .unwrap_or_default()
    }
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Writes, in order. Each is worth doing although another one is refused.
    pub actions: Vec<Action>,
    /// The whole status as it shall be. It is written only when it differs from the stored one.
    pub status: ModelDeploymentStatus,
    /// Write the status before the actions, and carry out no action when that write fails. Set when the status carries new weights, so that traffic moves first;
    /// when it carries any other decision, so that a crash in between does not undo what it led to; and when the actions take something away, so that a stale
    /// view is found out (the write is refused by its resourceVersion) before it can do harm. Then it is written also when it does not differ.
    pub status_first: bool,
    /// The difference is only in counts of pods: writing may wait a little so that several changes become one write.
    pub status_may_wait: bool,
    /// Events to publish.
    pub events: Vec<Note>,
    /// When to look again although nothing changed.
    pub wake_at: Option<Timestamp>,
    /// What the metrics poller shall read; nothing: it rests.
    pub evidence: Option<EvidenceRequest>,
}

/// An Event about the ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Normal or Warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// CamelCase verb: what was done.
    pub action: String,
    /// For people; at most 1 kB.
    pub note: String,
}
