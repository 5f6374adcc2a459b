//! Writes `spec.replicas` of a ModelDeployment whose owner omits it.

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use slipway_cluster_views::SCALE_MANAGER;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::apply::applier::ActionApplier;
use crate::apply::error::WriteError;
use crate::apply::request::with_timeout;

/// Writes it through the scale subresource, as an autoscaler does, because the permission for it
/// covers no other field of the spec. The API server rejects the write when the object has another
/// version, so that a value that another client has set in the meantime stays.
///
/// # Errors
/// When the API server rejects the write or does not answer.
pub(crate) async fn write_replicas(
    applier: &ActionApplier<'_>,
    replicas: i32,
) -> Result<(), WriteError> {
    let subject = applier.subject;
    // The preceding status write has changed the object's version.
    let mut object = applier.own_writes.newest(applier.object);
    let metadata = ObjectMeta {
        name: Some(subject.name.clone()),
        namespace: Some(subject.namespace.clone()),
        uid: Some(subject.uid.clone()),
        resource_version: object.resource_version(),
        ..ObjectMeta::default()
    };
    let scale =
        Scale { metadata, spec: Some(ScaleSpec { replicas: Some(replicas) }), status: None };
    let params =
        PostParams { field_manager: Some(SCALE_MANAGER.to_owned()), ..PostParams::default() };
    let api = Api::<ModelDeployment>::namespaced(applier.client.clone(), &subject.namespace);
    let request = api.replace_scale(&subject.name, &params, &scale);
    let answer = with_timeout("scale", "ModelDeployment", &subject.name, request).await?;
    object.spec.replicas = Some(replicas);
    object.metadata.resource_version = answer.metadata.resource_version;
    applier.own_writes.record_answer(&subject.uid, object);
    Ok(())
}
