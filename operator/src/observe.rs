//! Objects to views, and views to what the plan sees. All pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;
use serde::Deserialize;
use slipway_core::build::{FETCH, GATEWAY, container_images, revision_name, worker_name};
use slipway_core::desired::APPLIED_ANNOTATION;
use slipway_core::evidence::GateEvidence;
use slipway_core::marks::RevisionMarks;
use slipway_core::observed::{
    FetchedModel, GatewayPod, GatewayReport, GatewayView, ModelDigest, ObjectDisturbance,
    ObjectView, ObservedState, PodProblem, PodView, ReplicaSetView, UnreachableGateway,
};
use slipway_core::settings::PlanSettings;
use slipway_crds::labels;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::cache::{CacheEntry, ObjectOwner, ViewCache};
use crate::managed_fields::FieldSets;
use crate::views::ClusterViews;

/// Longest message of a pod that is kept.
const MESSAGE_CHARS: usize = 1024;
/// Longest part that is told of a log.
const LOG_CHARS: usize = 200;
/// What Kubernetes says of a container that the kernel ended for its memory.
const OOM_KILLED: &str = "OOMKilled";
/// Reasons of waiting that are part of every start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A ReplicaSet as kept: the controller's UID instead of the answer whether it is ours, which
/// depends on who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedReplicaSet {
    /// The view, `owned` unset.
    pub view: ReplicaSetView,
    /// UID of its controller.
    pub controller: Option<String>,
}

/// A pod as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPod {
    /// UID.
    pub uid: String,
    /// Creation.
    pub created_at: Timestamp,
    /// Name and UID of the ReplicaSet that made it, if one did.
    pub controller: Option<(String, String)>,
    /// Address.
    pub ip: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended, and only its object is left: its ReplicaSet counts it no more.
    pub ended: bool,
    /// What keeps it from running; runtime pods only.
    pub problem: Option<PodProblem>,
    /// The model that it has fetched; runtime pods only.
    pub fetched: Option<FetchedModel>,
}

/// View of a ReplicaSet; nothing without our revision label.
pub fn cached_replica_set(object: &ReplicaSet, fields: &FieldSets) -> Option<CachedReplicaSet> {
    let status = object.status.as_ref();
    let view = ReplicaSetView {
        name: object.name_any(),
        uid: object.uid()?,
        revision: object.labels().get(labels::REVISION)?.clone(),
        failure: replica_failure(
            status
                .and_then(|s| s.conditions.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|c| (&c.type_, &c.status, &c.message)),
        ),
        version: object.annotations().get(labels::VERSION).cloned().unwrap_or_default(),
        digest: ModelDigest::from_annotation(
            object.annotations().get(labels::MODEL_DIGEST).map(String::as_str),
        ),
        marks: RevisionMarks::from_annotations(object.annotations()),
        created_at: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        desired: object.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
        current: status.map_or(0, |s| s.replicas),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        available: status.and_then(|s| s.available_replicas).unwrap_or(0),
        is_observed: status.and_then(|s| s.observed_generation) >= object.metadata.generation,
        owned: false,
        orphaned: false,
        applied_hash: object.annotations().get(APPLIED_ANNOTATION).cloned().unwrap_or_default(),
        images: container_images(object),
        managed_fields: fields.managed_fields(object),
        deleting: object.metadata.deletion_timestamp.is_some(),
    };
    Some(CachedReplicaSet { view, controller: controller_uid(object) })
}

fn controller_uid(object: &impl ResourceExt) -> Option<String> {
    object.owner_references().iter().find(|o| o.controller == Some(true)).map(|o| o.uid.clone())
}

/// View of any other child, from its metadata alone.
pub fn object_view(object: &impl ResourceExt, fields: &FieldSets) -> Option<ObjectView> {
    Some(ObjectView {
        uid: object.uid()?,
        applied_hash: object.annotations().get(APPLIED_ANNOTATION).cloned().unwrap_or_default(),
        managed_fields: fields.managed_fields(object),
        owners: object.owner_references().iter().map(|o| o.uid.clone()).collect(),
        controller: controller_uid(object),
        failure: String::new(),
        desired_replicas: None,
        rolled_out: false,
    })
}

/// View of an autoscaler.
pub fn autoscaler_view(object: &HorizontalPodAutoscaler, fields: &FieldSets) -> Option<ObjectView> {
    let status = object.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    // Without metrics it repeats what it was told.
    let speaks = conditions.iter().any(|c| c.type_ == "ScalingActive" && c.status == "True");
    let desired_replicas = status.filter(|_| speaks).map(|s| s.desired_replicas);
    Some(ObjectView { desired_replicas, ..self::object_view(object, fields)? })
}

/// View of a Deployment.
pub fn deployment_view(object: &Deployment, fields: &FieldSets) -> Option<ObjectView> {
    let conditions =
        object.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let failure = replica_failure(conditions.iter().map(|c| (&c.type_, &c.status, &c.message)));
    let wanted = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let rolled_out = object.status.as_ref().is_some_and(|status| {
        let all = [status.replicas, status.updated_replicas, status.ready_replicas];
        status.observed_generation >= object.metadata.generation
            && all.iter().all(|it| it.unwrap_or(0) == wanted)
    });
    Some(ObjectView { failure, rolled_out, ..self::object_view(object, fields)? })
}

/// What Kubernetes says when it makes no pods: the condition `ReplicaFailure` of a ReplicaSet or a
/// Deployment.
fn replica_failure<'a>(
    mut conditions: impl Iterator<Item = (&'a String, &'a String, &'a Option<String>)>,
) -> String {
    let found =
        conditions.find(|(type_, status, _)| *type_ == "ReplicaFailure" && *status == "True");
    let message = found.and_then(|(_, _, message)| message.as_deref()).unwrap_or_default();
    message.chars().take(MESSAGE_CHARS).collect()
}

/// View of a pod of the gateway or of the runtime.
pub fn cached_pod(object: &Pod) -> Option<CachedPod> {
    let status = object.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.is_some();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let ended = matches!(status.and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"));
    let controller = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    Some(CachedPod {
        uid: object.uid()?,
        created_at: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        controller: controller
            .filter(|it| it.kind == "ReplicaSet")
            .map(|it| (it.name.clone(), it.uid.clone())),
        // A pod that has ended (evicted, say) keeps its object and an address that may be another's
        // by now.
        ip: status.filter(|_| !ended).and_then(|s| s.pod_ip.clone()),
        ready,
        deleting,
        ended,
        problem: if deleting || ready { None } else { pod_problem(object) },
        fetched: fetched_model(object),
    })
}

/// What the step before the server has told, if it has ended well.
fn fetched_model(pod: &Pod) -> Option<FetchedModel> {
    #[derive(Deserialize)]
    struct FetchReport {
        digest: String,
    }
    let revision = pod.labels().get(labels::REVISION)?.clone();
    let mut steps = pod.status.as_ref()?.init_container_statuses.iter().flatten();
    let ended = steps.find(|step| step.name == FETCH)?.state.as_ref()?.terminated.as_ref()?;
    let message = ended.message.as_deref().filter(|_| ended.exit_code == 0)?;
    let told: FetchReport = serde_json::from_str(message.trim()).ok()?;
    // It goes into a template and into status: nothing else than a digest may.
    let hex = told.digest.strip_prefix("sha256:")?;
    let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| FetchedModel { revision, pod: pod.name_any(), digest: told.digest })
}

/// What keeps a pod from running: first what a container says, then the phase, then the scheduler.
fn pod_problem(pod: &Pod) -> Option<PodProblem> {
    let revision = pod.labels().get(labels::REVISION)?;
    let status = pod.status.as_ref()?;
    let made = |reason: &str, message: &str, restarts: i32| PodProblem {
        revision: revision.clone(),
        pod: pod.name_any(),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_CHARS).collect(),
        restarts,
    };
    let containers =
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    if let Some((reason, message, restarts)) = containers.filter_map(container_problem).next() {
        return Some(made(&reason, &message, restarts));
    }
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        return Some(made(reason, status.message.as_deref().unwrap_or_default(), 0));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled =
        conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let reason = unscheduled.reason.as_deref().unwrap_or("Unschedulable");
    Some(made(reason, unscheduled.message.as_deref().unwrap_or_default(), 0))
}

/// The termination message is the runtime's own word, so it wins over kubelet's "back-off
/// restarting". A container that runs again after a crash still counts until its pod is ready, or
/// the problem would blink with every restart.
fn container_problem(container: &ContainerStatus) -> Option<(String, String, i32)> {
    let restarts = container.restart_count;
    let state = container.state.as_ref();
    let last = container
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .filter(|t| t.exit_code != 0);
    let word = |t: &ContainerStateTerminated| match &t.message {
        // What stands in the log was written before the kernel ended it.
        _ if is_out_of_memory(t) => {
            format!("it needs more than its memory limit (exit code {})", t.exit_code)
        }
        Some(message) if !message.is_empty() => termination_text(message),
        _ => format!("exit code {}", t.exit_code),
    };
    if let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) {
        let reason = waiting.reason.clone().unwrap_or_default();
        if !reason.is_empty() && !STARTING.contains(&reason.as_str()) {
            let message = last.map(word).or_else(|| waiting.message.clone()).unwrap_or_default();
            let reason =
                if last.is_some_and(is_out_of_memory) { OOM_KILLED.to_owned() } else { reason };
            return Some((reason, message, restarts));
        }
    }
    let ended = state.and_then(|s| s.terminated.as_ref()).filter(|t| t.exit_code != 0).or(last)?;
    Some((ended.reason.clone().unwrap_or_else(|| "Error".into()), word(ended), restarts))
}

/// What a container has said at its end. The model server says a line of JSON; where there is none
/// the kubelet gives the end of the log, which whoever may read the ModelDeployment would read with
/// it. Of that the last line is told, and not all of a long one.
fn termination_text(message: &str) -> String {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only whether they are there")]
    struct FailureReport {
        reason: String,
        permanent: bool,
    }
    if serde_json::from_str::<FailureReport>(message.trim()).is_ok() {
        return message.to_owned();
    }
    let last = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(LOG_CHARS).collect()
}

fn is_out_of_memory(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some(OOM_KILLED)
}

/// What a gateway pod says of a ModelDeployment, and why it cannot be heard if it cannot.
pub type HeardReport = (Option<GatewayReport>, Option<UnreachableGateway>);

/// Puts together what the plan sees of one ModelDeployment. `heard` gives the newest word of a
/// gateway pod, by the pod's UID.
pub fn observe_model(
    object: ModelDeployment,
    views: &ClusterViews,
    heard: impl Fn(&str) -> HeardReport,
    evidence: Option<GateEvidence>,
    refusals: Option<BTreeMap<String, String>>,
    disturbances: BTreeMap<String, ObjectDisturbance>,
    settings: &PlanSettings,
) -> ObservedState {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let uid = object.uid().unwrap_or_default();
    let owner = ObjectOwner::model(&namespace, &name);
    let kept = views.pods.owned_by(&owner);
    let seen = kept.iter().map(|(name, e)| pod_view(name, &e.view)).collect();
    let pods: Vec<CachedPod> = kept.into_values().map(|e| e.view).collect();
    let replica_sets = views.replica_sets.owned_by(&owner).into_values();
    ObservedState {
        replica_sets: replica_sets.map(|e| resolve_ownership(e.view, &name, &uid)).collect(),
        services: into_views(views.services.owned_by(&owner)),
        autoscaler: cached_view(&views.autoscalers, &owner, &name),
        worker: cached_view(&views.deployments, &owner, &worker_name(&name)),
        worker_autoscaler: cached_view(&views.autoscalers, &owner, &worker_name(&name)),
        disruption_budget: cached_view(&views.disruption_budgets, &owner, &name),
        network_policies: into_views(views.network_policies.owned_by(&owner)),
        gateway: gateway_view(views, &namespace, heard),
        pods: seen,
        fetched_models: pods.iter().filter_map(|pod| pod.fetched.clone()).collect(),
        pod_problems: pods.into_iter().filter_map(|pod| pod.problem).collect(),
        conflicts: views.claims.conflicts(&object),
        refusals,
        disturbances,
        evidence,
        settings: settings.clone(),
        object,
    }
}

fn pod_view(name: &str, kept: &CachedPod) -> PodView {
    PodView {
        name: name.to_owned(),
        uid: kept.uid.clone(),
        replica_set_uid: kept.controller.as_ref().map(|(_, uid)| uid.clone()),
        created_at: kept.created_at,
        ready: kept.ready,
        deleting: kept.deleting || kept.ended,
    }
}

/// Whether a ReplicaSet with our labels is that of the ModelDeployment, or was left by one of the
/// same name: then nobody controls it, and its name is the one that we would give it.
fn resolve_ownership(kept: CachedReplicaSet, name: &str, uid: &str) -> ReplicaSetView {
    let orphaned =
        kept.controller.is_none() && kept.view.name == revision_name(name, &kept.view.revision);
    ReplicaSetView {
        owned: orphaned || kept.controller.as_deref() == Some(uid),
        orphaned,
        ..kept.view
    }
}

fn gateway_view(
    views: &ClusterViews,
    namespace: &str,
    heard: impl Fn(&str) -> HeardReport,
) -> GatewayView {
    let owner = ObjectOwner::gateway(namespace);
    // The name is fixed; whatever else carries our labels is not the gateway.
    let name = GATEWAY;
    // A pod that leaves counts as long as it says what it still does.
    let ours = views
        .pods
        .owned_by(&owner)
        .into_iter()
        .filter(|(_, e)| views.is_gateway(namespace, &e.view));
    let pods = ours.map(|(name, e)| {
        let (report, unreachable) = heard(&e.view.uid);
        let pod = GatewayPod { name, ready: e.view.ready, report, unreachable };
        (e.view.deleting, pod)
    });
    let pods = pods.filter(|(deleting, pod)| !deleting || pod.ready || pod.report.is_some());
    GatewayView {
        service_account: cached_view(&views.service_accounts, &owner, name),
        role_binding: cached_view(&views.role_bindings, &owner, name),
        service: cached_view(&views.services, &owner, name),
        deployment: cached_view(&views.deployments, &owner, name),
        disruption_budget: cached_view(&views.disruption_budgets, &owner, name),
        network_policy: cached_view(&views.network_policies, &owner, name),
        autoscaler: cached_view(&views.autoscalers, &owner, name),
        pods: pods.map(|(_, pod)| pod).collect(),
        sharing_models: views.claims.count_models(namespace),
        update: views.gateway_updates.for_namespace(namespace),
    }
}

fn into_views<V>(entries: BTreeMap<String, CacheEntry<V>>) -> BTreeMap<String, V> {
    entries.into_iter().map(|(name, e)| (name, e.view)).collect()
}

fn cached_view<V: Clone + PartialEq>(
    cache: &ViewCache<V>,
    owner: &ObjectOwner,
    name: &str,
) -> Option<V> {
    cache.get(owner, name).map(|e| e.view)
}

#[cfg(test)]
#[path = "observe_tests.rs"]
pub(crate) mod tests;
