//! Writes the whole status by server-side apply on the subresource, only when it differs from the
//! stored one.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use slipway_cluster_views::{OwnWrites, status_hash};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::apply::applier::ModelIdentity;
use crate::apply::error::WriteError;
use crate::apply::request::with_timeout;

/// Field manager of the status.
pub const STATUS_MANAGER: &str = "slipway-status";

/// Whether the serialized forms of two statuses differ.
pub fn status_differs(
    stored: Option<&ModelDeploymentStatus>,
    wanted: &ModelDeploymentStatus,
) -> bool {
    status_hash(stored) != status_hash(Some(wanted))
}

/// Replaces the status from which the plan was made. The API server rejects the write when the
/// object has another `version`, so that a plan from a stale view, or of a second leader, is
/// detected before it can move weights backwards or delete objects.
///
/// # Errors
/// When the API server rejects the write or does not answer.
pub async fn apply_status(
    client: &Client,
    own: &OwnWrites,
    subject: &ModelIdentity,
    version: Option<&str>,
    status: &ModelDeploymentStatus,
) -> Result<(), WriteError> {
    let api = Api::<ModelDeployment>::namespaced(client.clone(), &subject.namespace);
    // With the UID, the status of a deleted object is not written to its successor of that name.
    let body = json!({
        "apiVersion": ModelDeployment::api_version(&()), "kind": ModelDeployment::kind(&()),
        "metadata": {"name": subject.name, "uid": subject.uid, "resourceVersion": version}, "status": status
    });
    own.record_sent(&subject.uid, status_hash(Some(status)));
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(&body);
    let request = api.patch_status(&subject.name, &params, &patch);
    let answer = with_timeout("status", "ModelDeployment", &subject.name, request).await?;
    own.record_answer(&subject.uid, answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use slipway_crds::v1alpha1::TrafficStatus;

    use super::*;

    #[test]
    fn fractions_of_seconds_are_no_difference() {
        let status = |millisecond: i64| {
            let at = Timestamp::from_millisecond(5000 + millisecond).unwrap();
            let time = TrafficStatus { confirmed_time: Some(Time(at)), ..TrafficStatus::default() };
            ModelDeploymentStatus { traffic: Some(time), ..ModelDeploymentStatus::default() }
        };
        assert!(!status_differs(Some(&status(0)), &status(300)));
        assert!(status_differs(None, &status(0)));
    }
}
