//! Converts a pod to its cached view: whether it is ready, what prevents it from running, which
//! model it has fetched. All functions are pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;
use slipway_contracts::termination::{FailureReport, FetchReport};
use slipway_core::observed::{FetchedModel, PodProblem};
use slipway_crds::labels;
use slipway_objects::FETCH;

/// Longest cached message of a pod.
const MESSAGE_CHARS: usize = 1024;
/// Longest part of a log that is shown.
const LOG_CHARS: usize = 200;
/// Kubernetes' termination reason of a container that the kernel killed for exceeding its memory
/// limit.
const OOM_KILLED: &str = "OOMKilled";
/// Waiting reasons that occur in every start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A cached pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPod {
    pub uid: String,
    pub created_at: Timestamp,
    /// Name and UID of the ReplicaSet that created it, if any.
    pub controller: Option<(String, String)>,
    /// IP address.
    pub ip: Option<String>,
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has terminated and only its object is left: its ReplicaSet does not count it any
    /// more.
    pub ended: bool,
    /// What prevents it from running; only for model server pods.
    pub problem: Option<PodProblem>,
    /// The model that it has fetched; only for model server pods.
    pub fetched: Option<FetchedModel>,
}

/// The view of a gateway pod or model server pod.
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
        // The object of a terminated (for example evicted) pod remains, and its address may already
        // belong to another pod.
        ip: status.filter(|_| !ended).and_then(|s| s.pod_ip.clone()),
        ready,
        deleting,
        ended,
        problem: if deleting || ready { None } else { pod_problem(object) },
        fetched: fetched_model(object),
    })
}

/// The report of the fetch container, if it has succeeded.
fn fetched_model(pod: &Pod) -> Option<FetchedModel> {
    let revision = pod.labels().get(labels::REVISION)?.clone();
    let mut steps = pod.status.as_ref()?.init_container_statuses.iter().flatten();
    let ended = steps.find(|step| step.name == FETCH)?.state.as_ref()?.terminated.as_ref()?;
    let message = ended.message.as_deref().filter(|_| ended.exit_code == 0)?;
    let report: FetchReport = serde_json::from_str(message.trim()).ok()?;
    // It goes into a template and into status: nothing else than a digest may.
    let hex = report.digest.strip_prefix("sha256:")?;
    let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| FetchedModel { revision, pod: pod.name_any(), digest: report.digest })
}

/// What prevents a pod from running: first the state of a container, then the phase, then the
/// scheduler.
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

/// The termination message is written by the model server itself, so it takes precedence over
/// kubelet's "back-off restarting". A container that runs again after a crash still counts until
/// its pod is ready; otherwise the problem would disappear and reappear with every restart.
fn container_problem(container: &ContainerStatus) -> Option<(String, String, i32)> {
    let restarts = container.restart_count;
    let state = container.state.as_ref();
    let last = container
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .filter(|t| t.exit_code != 0);
    let word = |t: &ContainerStateTerminated| match &t.message {
        // The log ends before the kernel killed the container, so it does not contain the reason.
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

/// The message of a terminated container. The model server writes a line of JSON; otherwise the
/// kubelet uses the end of the log, which every reader of the ModelDeployment could then see. Of
/// that, only the last line is shown, and a long one is cut.
fn termination_text(message: &str) -> String {
    if serde_json::from_str::<FailureReport>(message.trim()).is_ok() {
        return message.to_owned();
    }
    let last = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(LOG_CHARS).collect()
}

fn is_out_of_memory(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some(OOM_KILLED)
}

#[cfg(test)]
mod tests;
