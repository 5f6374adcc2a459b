//! Objects of Kubernetes as the operator wants them.

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use slipway_crds::labels;

/// Kinds that are deleted and adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildKind {
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
pub enum DesiredObject {
    /// A revision's pods. Applied when it is missing, and when a restart brings it up to date;
    /// scaled by an action of its own afterwards.
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

impl DesiredObject {
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
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
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

    /// Kind and name: what people call it, and the key of what was observed of disturbances.
    pub fn target(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// The hash that its builder stamped it with.
    pub fn applied_hash(&self) -> &str {
        let annotations = self.metadata().annotations.as_ref();
        annotations.and_then(|all| all.get(labels::APPLIED)).map(String::as_str).unwrap_or_default()
    }

    /// As it is sent.
    pub fn to_json(&self) -> Value {
        // Maps with string keys and plain data: there is nothing in these types that JSON cannot
        // express.
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
