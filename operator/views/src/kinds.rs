//! The kinds of objects that the operator writes.

use slipway_core::desired::{ChildKind, DesiredObject};

/// A kind that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the kinds")]
pub enum ManagedKind {
    ReplicaSet,
    Service,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    ServiceAccount,
    RoleBinding,
    Deployment,
    NetworkPolicy,
    Pod,
}

impl ManagedKind {
    /// Name of the kind.
    pub fn kind_name(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::Service => "Service",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::ServiceAccount => "ServiceAccount",
            Self::RoleBinding => "RoleBinding",
            Self::Deployment => "Deployment",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Pod => "Pod",
        }
    }
}

impl From<&DesiredObject> for ManagedKind {
    fn from(desired: &DesiredObject) -> Self {
        match desired {
            DesiredObject::ReplicaSet(_) => Self::ReplicaSet,
            DesiredObject::Service(_) => Self::Service,
            DesiredObject::HorizontalPodAutoscaler(_) => Self::HorizontalPodAutoscaler,
            DesiredObject::PodDisruptionBudget(_) => Self::PodDisruptionBudget,
            DesiredObject::ServiceAccount(_) => Self::ServiceAccount,
            DesiredObject::RoleBinding(_) => Self::RoleBinding,
            DesiredObject::Deployment(_) => Self::Deployment,
            DesiredObject::NetworkPolicy(_) => Self::NetworkPolicy,
        }
    }
}

impl From<ChildKind> for ManagedKind {
    fn from(kind: ChildKind) -> Self {
        match kind {
            ChildKind::ReplicaSet => Self::ReplicaSet,
            ChildKind::Service => Self::Service,
            ChildKind::HorizontalPodAutoscaler => Self::HorizontalPodAutoscaler,
            ChildKind::Deployment => Self::Deployment,
            ChildKind::NetworkPolicy => Self::NetworkPolicy,
        }
    }
}
