//! The kinds of objects that the operator writes.

use slipway_objects::desired::{ChildKind, DesiredObject};

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
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ReplicaSet,
        Self::Service,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
        Self::ServiceAccount,
        Self::RoleBinding,
        Self::Deployment,
        Self::NetworkPolicy,
        Self::Pod,
    ];

    /// Name of the kind.
    pub const fn kind_name(self) -> &'static str {
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

    /// API group; nothing for the core group.
    pub const fn api_group(self) -> &'static str {
        match self {
            Self::ReplicaSet | Self::Deployment => "apps",
            Self::Service | Self::ServiceAccount | Self::Pod => "",
            Self::HorizontalPodAutoscaler => "autoscaling",
            Self::PodDisruptionBudget => "policy",
            Self::RoleBinding => "rbac.authorization.k8s.io",
            Self::NetworkPolicy => "networking.k8s.io",
        }
    }

    /// Name of the resource, as in paths and in RBAC.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::ReplicaSet => "replicasets",
            Self::Service => "services",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
            Self::ServiceAccount => "serviceaccounts",
            Self::RoleBinding => "rolebindings",
            Self::Deployment => "deployments",
            Self::NetworkPolicy => "networkpolicies",
            Self::Pod => "pods",
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
    use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use k8s_openapi::api::rbac::v1::RoleBinding;
    use kube::Resource;

    use super::*;

    fn names<K: Resource<DynamicType = ()>>() -> [String; 3] {
        [K::kind(&()), K::group(&()), K::plural(&())].map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn properties_are_those_of_the_types() {
        let types = [
            names::<ReplicaSet>(),
            names::<Service>(),
            names::<HorizontalPodAutoscaler>(),
            names::<PodDisruptionBudget>(),
            names::<ServiceAccount>(),
            names::<RoleBinding>(),
            names::<Deployment>(),
            names::<NetworkPolicy>(),
            names::<Pod>(),
        ];
        for (kind, names) in ManagedKind::ALL.into_iter().zip(types) {
            assert_eq!([kind.kind_name(), kind.api_group(), kind.resource()], names);
        }
    }
}
