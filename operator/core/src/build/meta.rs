//! Names, labels and owners.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use slipway_crds::labels;
use slipway_crds::v1alpha1::ModelDeployment;

use super::GATEWAY;
use crate::desired::Desired;

/// Labels as Kubernetes has them.
pub(super) type Labels = BTreeMap<String, String>;

/// A map from pairs.
pub(super) fn map<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Labels of an object of one ModelDeployment.
pub(super) fn object_labels(name: &str) -> Labels {
    map([
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::PART_OF, name),
        (labels::COMPONENT, labels::COMPONENT_RUNTIME),
        (labels::MODEL_DEPLOYMENT, name),
    ])
}

/// Labels of an object of one revision.
pub(super) fn revision_labels(name: &str, revision: &str) -> Labels {
    let mut of_revision = object_labels(name);
    of_revision.insert(labels::REVISION.to_owned(), revision.to_owned());
    of_revision
}

/// Selector of the runtime pods of all revisions: [`labels::scale_selector`] as labels.
pub(super) fn runtime_selector(name: &str) -> Labels {
    map([(labels::COMPONENT, labels::COMPONENT_RUNTIME), (labels::MODEL_DEPLOYMENT, name)])
}

/// Selector of the runtime pods of one revision.
pub(super) fn revision_selector(name: &str, revision: &str) -> Labels {
    let mut of_revision = runtime_selector(name);
    of_revision.insert(labels::REVISION.to_owned(), revision.to_owned());
    of_revision
}

/// Labels of the workers of one ModelDeployment, and of what belongs to them.
pub(super) fn worker_labels(name: &str) -> Labels {
    let mut all = object_labels(name);
    all.insert(labels::COMPONENT.to_owned(), labels::COMPONENT_WORKER.to_owned());
    all
}

/// Selector of the workers of one ModelDeployment.
pub(super) fn worker_selector(name: &str) -> Labels {
    map([(labels::COMPONENT, labels::COMPONENT_WORKER), (labels::MODEL_DEPLOYMENT, name)])
}

/// Labels of the gateway's objects and pods. They are shared, so no ModelDeployment's name is among them.
pub(super) fn gateway_labels() -> Labels {
    map([
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::PART_OF, GATEWAY),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ])
}

/// Selector of the gateway's pods.
pub(super) fn gateway_selector() -> Labels {
    map([(labels::MANAGED_BY, labels::MANAGER), (labels::COMPONENT, labels::COMPONENT_GATEWAY)])
}

/// A selector that matches labels.
pub(super) fn matching(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Metadata of an object that one ModelDeployment controls.
pub(super) fn controlled(object: &ModelDeployment, name: String, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: object.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(object)]),
        ..ObjectMeta::default()
    }
}

/// An object of the gateway has so many owners at most. Beyond it none: each further one would rewrite the object with all the others, and every watcher read
/// it. The operator takes away what no ModelDeployment uses any more.
pub const MAX_OWNERS: usize = 16;

/// Metadata of an object of the gateway, which has several owners and thus no controller.
pub(super) fn shared(object: &ModelDeployment) -> ObjectMeta {
    let namespace = object.namespace();
    ObjectMeta { namespace, owner_references: Some(vec![owner(object)]), ..unowned("") }
}

/// The same without any owner.
pub(super) fn unowned(namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(GATEWAY.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(gateway_labels()),
        ..ObjectMeta::default()
    }
}

/// The reference by which a ModelDeployment controls an object.
pub fn controller_reference(object: &ModelDeployment) -> OwnerReference {
    OwnerReference { controller: Some(true), block_owner_deletion: Some(true), ..owner(object) }
}

fn owner(object: &ModelDeployment) -> OwnerReference {
    OwnerReference {
        api_version: ModelDeployment::api_version(&()).into_owned(),
        kind: ModelDeployment::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// Whether `desired` belongs to all ModelDeployments of its namespace together. See the module's documentation.
pub fn is_shared(desired: &Desired) -> bool {
    match desired {
        Desired::ServiceAccount(_) | Desired::RoleBinding(_) => true,
        Desired::Deployment(deployment) => is_of_gateway(&deployment.metadata),
        Desired::PodDisruptionBudget(budget) => is_of_gateway(&budget.metadata),
        Desired::Service(service) => is_of_gateway(&service.metadata),
        Desired::NetworkPolicy(policy) => is_of_gateway(&policy.metadata),
        Desired::HorizontalPodAutoscaler(autoscaler) => is_of_gateway(&autoscaler.metadata),
        Desired::ReplicaSet(_) => false,
    }
}

/// By its label: a ModelDeployment may be called like the gateway.
fn is_of_gateway(metadata: &ObjectMeta) -> bool {
    let component = metadata.labels.as_ref().and_then(|all| all.get(labels::COMPONENT));
    component.is_some_and(|component| component == labels::COMPONENT_GATEWAY)
}
