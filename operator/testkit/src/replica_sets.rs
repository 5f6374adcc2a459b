//! ReplicaSets as the API server has them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use slipway_crds::labels;

/// ReplicaSet `digits-aaaa` of namespace `ns` in the middle of a change, controlled by the
/// ModelDeployment `digits` with the UID `controller`.
pub fn replica_set_of(controller: &str) -> ReplicaSet {
    let text = |pairs: &[(&str, &str)]| -> Option<BTreeMap<String, String>> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    let owner = OwnerReference {
        api_version: "ml.slipway.dev/v1alpha1".to_owned(),
        kind: "ModelDeployment".to_owned(),
        name: "digits".to_owned(),
        uid: controller.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some("digits-aaaa".to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some("u-rs".to_owned()),
            generation: Some(3),
            creation_timestamp: Some(Time(Timestamp::constant(1_767_323_045, 0))),
            labels: text(&[
                (labels::MANAGED_BY, labels::MANAGER),
                (labels::MODEL_DEPLOYMENT, "digits"),
                (labels::REVISION, "aaaa"),
            ]),
            annotations: text(&[(labels::VERSION, "v1")]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec { replicas: Some(4), ..ReplicaSetSpec::default() }),
        status: Some(ReplicaSetStatus {
            replicas: 3,
            ready_replicas: Some(2),
            available_replicas: Some(1),
            observed_generation: Some(2),
            ..ReplicaSetStatus::default()
        }),
    }
}
