//! Hands the number of pods of a Deployment over to an autoscaler.
//!
//! When only the operator has applied a field and stops applying it, the API server removes the
//! field and sets its default: one pod, whatever the load, until the autoscaler has evaluated the
//! Deployment. To prevent this, a second field manager of the operator first applies the current
//! number and keeps it until another writer changes it.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use slipway_cluster_views::{HANDOVER_MANAGER, KnownObject};
use slipway_objects::desired::DesiredObject;

use crate::apply::error::WriteError;
use crate::apply::request::with_timeout;

/// Whether applying `desired` would remove the number of pods from an object on which the operator
/// has set it.
pub(crate) fn needs_handover(desired: &DesiredObject, known: &KnownObject) -> bool {
    let DesiredObject::Deployment(deployment) = desired else { return false };
    let left_out = deployment.spec.as_ref().is_some_and(|spec| spec.replicas.is_none());
    let ours = known
        .managed
        .fields
        .as_ref()
        .is_some_and(|fields| !fields["f:spec"]["f:replicas"].is_null());
    left_out && ours
}

/// Applies the current number of pods. The resource version makes the API server reject the apply
/// if the object was changed in the meantime; the reconcile then retries.
///
/// # Errors
/// When the API server rejects the apply or does not answer.
pub(crate) async fn claim_replicas(
    client: Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), WriteError> {
    let api = Api::<Deployment>::namespaced(client, namespace);
    let there = with_timeout("get", "Deployment", name, api.get(name)).await?;
    let Some(replicas) = there.spec.and_then(|spec| spec.replicas) else { return Ok(()) };
    let body = json!({
        "apiVersion": Deployment::api_version(&()),
        "kind": Deployment::kind(&()),
        "metadata": {"name": name, "uid": uid, "resourceVersion": there.metadata.resource_version},
        "spec": {"replicas": replicas},
    });
    let params = PatchParams::apply(HANDOVER_MANAGER);
    with_timeout("apply", "Deployment", name, api.patch(name, &params, &Patch::Apply(body)))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DeploymentSpec;
    use serde_json::Value;
    use slipway_core::fields::ManagedFields;

    use super::*;

    #[test]
    fn only_what_would_be_taken_away_is_handed_over() {
        let desired = |replicas| {
            let spec = Some(DeploymentSpec { replicas, ..DeploymentSpec::default() });
            DesiredObject::Deployment(Deployment { spec, ..Deployment::default() })
        };
        let known = |fields: Value| KnownObject {
            uid: String::new(),
            version: 1,
            owners: Vec::new(),
            controller: None,
            applied: String::new(),
            managed: ManagedFields { fields: Some(fields.into()), changed_by: None },
        };
        let ours = json!({"f:spec": {"f:replicas": {}}});
        assert!(needs_handover(&desired(None), &known(ours.clone())));
        assert!(!needs_handover(&desired(Some(2)), &known(ours)), "it stays ours");
        assert!(
            !needs_handover(&desired(None), &known(json!({"f:spec": {"f:template": {}}}))),
            "an autoscaler has written it"
        );
    }
}
