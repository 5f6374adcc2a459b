//! Names, labels and owners.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use slipway_crds::labels;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::desired::DesiredObject;
use crate::reserved::GATEWAY;

/// Labels in the type that Kubernetes objects use.
pub(crate) type LabelMap = BTreeMap<String, String>;

/// Builds a map from pairs.
pub(crate) fn label_map<const N: usize>(pairs: [(&str, &str); N]) -> LabelMap {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Labels of an object of one ModelDeployment.
pub(crate) fn object_labels(name: &str) -> LabelMap {
    label_map([
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::PART_OF, name),
        (labels::COMPONENT, labels::COMPONENT_RUNTIME),
        (labels::MODEL_DEPLOYMENT, name),
    ])
}

/// Labels of an object of one revision.
pub(crate) fn revision_labels(name: &str, revision: &str) -> LabelMap {
    let mut of_revision = object_labels(name);
    of_revision.insert(labels::REVISION.to_owned(), revision.to_owned());
    of_revision
}

/// Selector of the runtime pods of all revisions: [`labels::scale_selector`] as labels.
pub(crate) fn runtime_selector(name: &str) -> LabelMap {
    label_map([(labels::COMPONENT, labels::COMPONENT_RUNTIME), (labels::MODEL_DEPLOYMENT, name)])
}

/// Selector of the runtime pods of one revision.
pub(crate) fn revision_selector(name: &str, revision: &str) -> LabelMap {
    let mut of_revision = runtime_selector(name);
    of_revision.insert(labels::REVISION.to_owned(), revision.to_owned());
    of_revision
}

/// Labels of the workers of one ModelDeployment, and of what belongs to them.
pub(crate) fn worker_labels(name: &str) -> LabelMap {
    let mut all = object_labels(name);
    all.insert(labels::COMPONENT.to_owned(), labels::COMPONENT_WORKER.to_owned());
    all
}

/// Selector of the workers of one ModelDeployment.
pub(crate) fn worker_selector(name: &str) -> LabelMap {
    label_map([(labels::COMPONENT, labels::COMPONENT_WORKER), (labels::MODEL_DEPLOYMENT, name)])
}

/// Labels of the gateway's objects and pods. They are shared, so they include no name of a
/// ModelDeployment.
pub(crate) fn gateway_labels() -> LabelMap {
    label_map([
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::PART_OF, GATEWAY),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ])
}

/// Selector of the gateway's pods.
pub(crate) fn gateway_selector() -> LabelMap {
    label_map([
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ])
}

/// A selector that matches labels.
pub(crate) fn label_selector(labels: LabelMap) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Metadata of an object that one ModelDeployment controls.
pub(crate) fn controlled_metadata(
    object: &ModelDeployment,
    name: String,
    labels: LabelMap,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: object.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(object)]),
        ..ObjectMeta::default()
    }
}

/// Maximum number of owners of a gateway object. With more it has no owners at all: each additional
/// one would rewrite the object in turn with all others, and every watcher would read it. The
/// operator then deletes the objects when no ModelDeployment uses them any more.
pub const MAX_OWNERS: usize = 16;

/// Metadata of a gateway object, which has several owners and therefore no controller.
pub(crate) fn shared_metadata(object: &ModelDeployment) -> ObjectMeta {
    let namespace = object.namespace();
    ObjectMeta {
        namespace,
        owner_references: Some(vec![owner_reference(object)]),
        ..unowned_metadata("")
    }
}

/// The same without any owner.
pub(crate) fn unowned_metadata(namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(GATEWAY.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(gateway_labels()),
        ..ObjectMeta::default()
    }
}

/// The owner reference with which a ModelDeployment controls an object.
pub fn controller_reference(object: &ModelDeployment) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..owner_reference(object)
    }
}

fn owner_reference(object: &ModelDeployment) -> OwnerReference {
    OwnerReference {
        api_version: ModelDeployment::api_version(&()).into_owned(),
        kind: ModelDeployment::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// Whether all ModelDeployments of the namespace share `desired`. See the documentation of the
/// crate.
pub fn is_shared(desired: &DesiredObject) -> bool {
    match desired {
        DesiredObject::ServiceAccount(_) | DesiredObject::RoleBinding(_) => true,
        DesiredObject::Deployment(deployment) => is_gateway_object(&deployment.metadata),
        DesiredObject::PodDisruptionBudget(budget) => is_gateway_object(&budget.metadata),
        DesiredObject::Service(service) => is_gateway_object(&service.metadata),
        DesiredObject::NetworkPolicy(policy) => is_gateway_object(&policy.metadata),
        DesiredObject::HorizontalPodAutoscaler(autoscaler) => {
            is_gateway_object(&autoscaler.metadata)
        }
        DesiredObject::ReplicaSet(_) => false,
    }
}

/// By its label, because a ModelDeployment may have the name of the gateway.
fn is_gateway_object(metadata: &ObjectMeta) -> bool {
    let component = metadata.labels.as_ref().and_then(|all| all.get(labels::COMPONENT));
    component.is_some_and(|component| component == labels::COMPONENT_GATEWAY)
}
