//! Translates actions of a plan into API requests. This module makes no rollout decision; it only
//! decides whether an object may be written by this ModelDeployment.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::{NamespaceResourceScope, Resource as _};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use slipway_cluster_views::{
    DIGEST_MANAGER, MARK_MANAGER, OWNERS_MANAGER, SCALE_MANAGER, version_of,
};
use slipway_core::action::PlanAction;
use slipway_core::marks::RevisionMarks;
use slipway_core::refusal::WriteTarget;
use slipway_crds::labels;
use slipway_crds::v1alpha1::SERVER_CONTAINER;
use slipway_objects::{DIGEST_VARIABLE, FETCH, ManagedKind, with_kind_type};

use crate::apply::applier::{ActionApplier, ApplyOutcome};
use crate::apply::error::{WriteError, WriteFault};
use crate::apply::expectation::{AwaitedState, WriteExpectation};
use crate::apply::replicas;
use crate::apply::request::with_timeout;

/// What an action writes to.
pub fn action_target(action: &PlanAction) -> WriteTarget {
    let (verb, kind, name) = match action {
        PlanAction::Apply(desired) | PlanAction::Restore { desired, .. } => {
            ("apply", desired.kind(), desired.name())
        }
        PlanAction::Adopt { kind, name, .. } => ("adopt", *kind, name.as_str()),
        PlanAction::WriteReplicas { .. } => {
            return WriteTarget { verb: "scale", kind: "ModelDeployment", name: String::new() };
        }
        PlanAction::Scale { name, .. } => ("scale", ManagedKind::ReplicaSet, name.as_str()),
        PlanAction::Pin { name, .. } => ("pin", ManagedKind::ReplicaSet, name.as_str()),
        PlanAction::Mark { name, .. } => ("mark", ManagedKind::ReplicaSet, name.as_str()),
        PlanAction::Evict { name, .. } => ("evict", ManagedKind::Pod, name.as_str()),
        PlanAction::Delete { kind, name, .. } => ("delete", *kind, name.as_str()),
    };
    WriteTarget { verb, kind: kind.kind_name(), name: name.to_owned() }
}

impl ActionApplier<'_> {
    /// Executes one action. The result contains the change that the watch is expected to report.
    ///
    /// # Errors
    /// When the API server rejects the request or does not answer, or when the object belongs to
    /// another owner.
    pub async fn execute(&self, action: &PlanAction) -> Result<ApplyOutcome, WriteError> {
        let done = match action {
            PlanAction::Apply(desired) => return self.apply(desired, false).await,
            PlanAction::Restore { desired, .. } => return self.apply(desired, true).await,
            PlanAction::Adopt { kind, name, uid, owner } => {
                self.adopt(*kind, name, uid, owner).await
            }
            PlanAction::WriteReplicas { replicas } => {
                replicas::write_replicas(self, *replicas).await?;
                return Ok(ApplyOutcome::default());
            }
            PlanAction::Scale { name, uid, replicas } => self.scale(name, uid, *replicas).await,
            PlanAction::Pin { name, uid, digest } => self.pin_digest(name, uid, digest).await,
            PlanAction::Mark { name, uid, marks } => self.mark(name, uid, marks).await,
            PlanAction::Evict { name, uid } => self.evict(name, uid).await,
            PlanAction::Delete { kind, name, uid } => self.delete(*kind, name, uid).await,
        };
        done.map(ApplyOutcome::from)
    }

    async fn scale(
        &self,
        name: &str,
        uid: &str,
        replicas: i32,
    ) -> Result<WriteExpectation, WriteError> {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &self.subject.namespace);
        let body = json!({
            "apiVersion": ReplicaSet::api_version(&()), "kind": ReplicaSet::kind(&()),
            "metadata": {"name": name, "uid": uid}, "spec": {"replicas": replicas}
        });
        let params = PatchParams::apply(SCALE_MANAGER).force();
        let answer = with_timeout(
            "scale",
            "ReplicaSet",
            name,
            api.patch_metadata(name, &params, &Patch::Apply(&body)),
        )
        .await?;
        let awaited = AwaitedState::Version(version_of(&answer));
        Ok(WriteExpectation {
            child: ManagedKind::ReplicaSet,
            owner: self.model_owner(),
            name: name.to_owned(),
            awaited,
        })
    }

    async fn adopt(
        &self,
        kind: ManagedKind,
        name: &str,
        uid: &str,
        owner: &OwnerReference,
    ) -> Result<WriteExpectation, WriteError> {
        // The API server rejects a second controller if another one was set in the meantime.
        let body = json!({"metadata": {"uid": uid, "ownerReferences": [owner]}});
        with_kind_type!(kind, K => {
            self.merge_patch::<K>("adopt", kind, name, OWNERS_MANAGER, &body).await
        })
    }

    /// Uses a merge patch instead of an apply, because the content of the ReplicaSet can be built
    /// only while the spec still has its revision.
    async fn pin_digest(
        &self,
        name: &str,
        uid: &str,
        digest: &str,
    ) -> Result<WriteExpectation, WriteError> {
        let container =
            |name| json!({"name": name, "env": [{"name": DIGEST_VARIABLE, "value": digest}]});
        let body = json!({
            "metadata": {"uid": uid, "annotations": {labels::MODEL_DIGEST: digest}},
            "spec": {"template": {"spec": {"containers": [container(SERVER_CONTAINER)], "initContainers": [container(FETCH)]}}}
        });
        self.merge_patch::<ReplicaSet>("pin", ManagedKind::ReplicaSet, name, DIGEST_MANAGER, &body)
            .await
    }

    async fn mark(
        &self,
        name: &str,
        uid: &str,
        marks: &RevisionMarks,
    ) -> Result<WriteExpectation, WriteError> {
        let annotations: Map<_, _> = marks
            .to_annotations()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        let body = json!({"metadata": {"uid": uid, "annotations": annotations}});
        self.merge_patch::<ReplicaSet>("mark", ManagedKind::ReplicaSet, name, MARK_MANAGER, &body)
            .await
    }

    /// Merges a change into an object of this ModelDeployment.
    async fn merge_patch<K>(
        &self,
        verb: &'static str,
        child: ManagedKind,
        name: &str,
        manager: &str,
        body: &Value,
    ) -> Result<WriteExpectation, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        let params =
            PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let answer = with_timeout(
            verb,
            child.kind_name(),
            name,
            api.patch_metadata(name, &params, &Patch::Strategic(body)),
        )
        .await?;
        let awaited = AwaitedState::Version(version_of(&answer));
        Ok(WriteExpectation { child, owner: self.model_owner(), name: name.to_owned(), awaited })
    }

    /// Does not use `Api::evict`: it sends the precondition under a field name that the API server
    /// does not have.
    async fn evict(&self, name: &str, uid: &str) -> Result<WriteExpectation, WriteError> {
        let body = json!({
            "apiVersion": Eviction::API_VERSION, "kind": Eviction::KIND, "metadata": {"name": name},
            "deleteOptions": {"preconditions": {"uid": uid}}
        });
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.subject.namespace);
        let params = PostParams::default();
        let request = api.create_subresource::<Value, Value>("eviction", name, &params, &body);
        match with_timeout("evict", ManagedKind::Pod.kind_name(), name, request).await {
            Ok(_) | Err(WriteError { fault: WriteFault::NotFound(_), .. }) => {
                let awaited = AwaitedState::Deleted(uid.to_owned());
                Ok(WriteExpectation {
                    child: ManagedKind::Pod,
                    owner: self.model_owner(),
                    name: name.to_owned(),
                    awaited,
                })
            }
            Err(WriteError { verb, kind, name, fault: WriteFault::Throttled(why) }) => {
                Err(WriteError { verb, kind, name, fault: WriteFault::Budget(why) })
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &self,
        kind: ManagedKind,
        name: &str,
        uid: &str,
    ) -> Result<WriteExpectation, WriteError> {
        let result = with_kind_type!(kind, K => self.delete_object::<K>(kind, name, uid).await);
        match result {
            Ok(()) | Err(WriteError { fault: WriteFault::NotFound(_), .. }) => {
                Ok(WriteExpectation {
                    child: kind,
                    owner: self.subject.owner_of(name),
                    name: name.to_owned(),
                    awaited: AwaitedState::Deleted(uid.to_owned()),
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_object<K>(
        &self,
        kind: ManagedKind,
        name: &str,
        uid: &str,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        with_timeout("delete", kind.kind_name(), name, api.delete(name, &params)).await.map(drop)
    }
}
