//! The kinds of objects that the operator writes, each with its type in Rust, and which of them is
//! meant.

use std::fmt::{self, Display, Formatter};

use k8s_openapi::Resource;

/// A kind that we write; their order is that of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManagedKind {
    Deployment,
    HorizontalPodAutoscaler,
    NetworkPolicy,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    RoleBinding,
    Service,
    ServiceAccount,
}

/// Evaluates an expression with the type of a kind under a name.
#[macro_export]
macro_rules! with_kind_type {
    ($kind:expr, $type:ident => $body:expr) => {
        match $kind {
            $crate::ManagedKind::Deployment => {
                type $type = ::k8s_openapi::api::apps::v1::Deployment;
                $body
            }
            $crate::ManagedKind::HorizontalPodAutoscaler => {
                type $type = ::k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
                $body
            }
            $crate::ManagedKind::NetworkPolicy => {
                type $type = ::k8s_openapi::api::networking::v1::NetworkPolicy;
                $body
            }
            $crate::ManagedKind::Pod => {
                type $type = ::k8s_openapi::api::core::v1::Pod;
                $body
            }
            $crate::ManagedKind::PodDisruptionBudget => {
                type $type = ::k8s_openapi::api::policy::v1::PodDisruptionBudget;
                $body
            }
            $crate::ManagedKind::ReplicaSet => {
                type $type = ::k8s_openapi::api::apps::v1::ReplicaSet;
                $body
            }
            $crate::ManagedKind::RoleBinding => {
                type $type = ::k8s_openapi::api::rbac::v1::RoleBinding;
                $body
            }
            $crate::ManagedKind::Service => {
                type $type = ::k8s_openapi::api::core::v1::Service;
                $body
            }
            $crate::ManagedKind::ServiceAccount => {
                type $type = ::k8s_openapi::api::core::v1::ServiceAccount;
                $body
            }
        }
    };
}

impl ManagedKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::NetworkPolicy,
        Self::Pod,
        Self::PodDisruptionBudget,
        Self::ReplicaSet,
        Self::RoleBinding,
        Self::Service,
        Self::ServiceAccount,
    ];

    /// Name of the kind.
    pub const fn kind_name(self) -> &'static str {
        with_kind_type!(self, K => <K as Resource>::KIND)
    }

    /// API group; nothing for the core group.
    pub const fn api_group(self) -> &'static str {
        with_kind_type!(self, K => <K as Resource>::GROUP)
    }

    /// Name of the resource, as in paths and in RBAC.
    pub const fn resource(self) -> &'static str {
        with_kind_type!(self, K => <K as Resource>::URL_PATH_SEGMENT)
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.kind_name() == name)
    }
}

impl Display for ManagedKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind_name())
    }
}

/// One of the objects that we write, within its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectTarget {
    /// Kind.
    pub kind: ManagedKind,
    /// Name.
    pub name: String,
}

impl ObjectTarget {
    /// The object of a kind and a name.
    pub fn new(kind: ManagedKind, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }
}

impl Display for ObjectTarget {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_type_of_its_name_and_is_in_the_order_of_names() {
        for kind in ManagedKind::ALL {
            assert_eq!(kind.kind_name(), format!("{kind:?}"));
            assert_eq!(ManagedKind::from_name(kind.kind_name()), Some(kind));
        }
        assert!(ManagedKind::ALL.is_sorted());
        assert!(ManagedKind::ALL.is_sorted_by_key(|kind| kind.kind_name()));
    }

    #[test]
    fn kinds_have_the_names_of_paths_and_of_rbac() {
        let kind = ManagedKind::HorizontalPodAutoscaler;
        assert_eq!(
            (kind.api_group(), kind.resource()),
            ("autoscaling", "horizontalpodautoscalers")
        );
        assert_eq!((ManagedKind::Pod.api_group(), ManagedKind::Pod.resource()), ("", "pods"));
    }
}
