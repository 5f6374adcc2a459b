//! Kubernetes objects as the operator wants them.

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

use crate::kinds::{ManagedKind, ObjectTarget};

/// A desired object, with only the fields that the operator sets.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredObject {
    /// The pods of a revision. Applied if it is missing, and when a restart updates it; later
    /// changes of its size use a separate action.
    ReplicaSet(ReplicaSet),
    Service(Service),
    /// The autoscaler of the model, of the workers or of the gateway.
    HorizontalPodAutoscaler(HorizontalPodAutoscaler),
    PodDisruptionBudget(PodDisruptionBudget),
    /// The gateway's account.
    ServiceAccount(ServiceAccount),
    /// The gateway's permissions.
    RoleBinding(RoleBinding),
    /// The gateway, or the workers.
    Deployment(Deployment),
    /// Network access to pods.
    NetworkPolicy(NetworkPolicy),
}

/// Evaluates an expression with the object of whatever kind under a name.
macro_rules! with_object {
    ($desired:expr, $object:ident => $body:expr) => {
        match $desired {
            DesiredObject::ReplicaSet($object) => $body,
            DesiredObject::Service($object) => $body,
            DesiredObject::HorizontalPodAutoscaler($object) => $body,
            DesiredObject::PodDisruptionBudget($object) => $body,
            DesiredObject::ServiceAccount($object) => $body,
            DesiredObject::RoleBinding($object) => $body,
            DesiredObject::Deployment($object) => $body,
            DesiredObject::NetworkPolicy($object) => $body,
        }
    };
}

impl DesiredObject {
    pub fn metadata(&self) -> &ObjectMeta {
        with_object!(self, object => object.metadata())
    }

    /// The metadata, for changes.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        with_object!(self, object => object.metadata_mut())
    }

    /// Its kind.
    pub const fn kind(&self) -> ManagedKind {
        match self {
            Self::ReplicaSet(_) => ManagedKind::ReplicaSet,
            Self::Service(_) => ManagedKind::Service,
            Self::HorizontalPodAutoscaler(_) => ManagedKind::HorizontalPodAutoscaler,
            Self::PodDisruptionBudget(_) => ManagedKind::PodDisruptionBudget,
            Self::ServiceAccount(_) => ManagedKind::ServiceAccount,
            Self::RoleBinding(_) => ManagedKind::RoleBinding,
            Self::Deployment(_) => ManagedKind::Deployment,
            Self::NetworkPolicy(_) => ManagedKind::NetworkPolicy,
        }
    }

    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Its kind and name.
    pub fn target(&self) -> ObjectTarget {
        ObjectTarget::new(self.kind(), self.name())
    }

    /// The hash that the builder set in the annotation.
    pub fn applied_hash(&self) -> &str {
        let annotations = self.metadata().annotations.as_ref();
        annotations.and_then(|all| all.get(labels::APPLIED)).map(String::as_str).unwrap_or_default()
    }

    /// The JSON that is sent to the API server.
    pub fn to_json(&self) -> Value {
        // Maps with string keys and plain data: there is nothing in these types that JSON cannot
        // express.
        with_object!(self, object => serde_json::to_value(object)).unwrap_or_default()
    }
}
