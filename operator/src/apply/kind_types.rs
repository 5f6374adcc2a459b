//! The type of a kind, where a request needs it.

/// Evaluates an expression with the type of a kind under a name.
macro_rules! with_kind_type {
    ($kind:expr, $type:ident => $body:expr) => {
        match $kind {
            ::slipway_cluster_views::ManagedKind::ReplicaSet => {
                type $type = ::k8s_openapi::api::apps::v1::ReplicaSet;
                $body
            }
            ::slipway_cluster_views::ManagedKind::Service => {
                type $type = ::k8s_openapi::api::core::v1::Service;
                $body
            }
            ::slipway_cluster_views::ManagedKind::HorizontalPodAutoscaler => {
                type $type = ::k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
                $body
            }
            ::slipway_cluster_views::ManagedKind::PodDisruptionBudget => {
                type $type = ::k8s_openapi::api::policy::v1::PodDisruptionBudget;
                $body
            }
            ::slipway_cluster_views::ManagedKind::ServiceAccount => {
                type $type = ::k8s_openapi::api::core::v1::ServiceAccount;
                $body
            }
            ::slipway_cluster_views::ManagedKind::RoleBinding => {
                type $type = ::k8s_openapi::api::rbac::v1::RoleBinding;
                $body
            }
            ::slipway_cluster_views::ManagedKind::Deployment => {
                type $type = ::k8s_openapi::api::apps::v1::Deployment;
                $body
            }
            ::slipway_cluster_views::ManagedKind::NetworkPolicy => {
                type $type = ::k8s_openapi::api::networking::v1::NetworkPolicy;
                $body
            }
            ::slipway_cluster_views::ManagedKind::Pod => {
                type $type = ::k8s_openapi::api::core::v1::Pod;
                $body
            }
        }
    };
}

pub(crate) use with_kind_type;
