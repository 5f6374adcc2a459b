//! Whether the stable revision serves.

use slipway_crds::conditions::reason;
use slipway_objects::ManagedKind;

use super::{ConditionDraft, ConditionStatus};
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::strategy::LoadFailure;

/// Whether the stable revision serves, independent of rollouts, rollbacks and scale-ups.
pub(super) fn ready_condition(cx: &PlanContext<'_>, draft: &PlanDraft) -> ConditionDraft {
    let Some(stable) = &draft.stable else { return initializing_condition(cx) };
    let (have, want) = (cx.ready_pods(stable), cx.spec.replicas);
    let pods = ready_pods_message(cx, stable);
    if have == 0 && want > 0 {
        return ConditionDraft::new(
            ConditionStatus::False,
            reason::UNAVAILABLE,
            format!("{pods}{}", revision_problem(cx, stable)),
        );
    }
    if let Some(why) = no_gateway(cx) {
        return ConditionDraft::new(ConditionStatus::False, reason::UNAVAILABLE, why);
    }
    // An admission webhook or policy has precedence by design; the message still mentions it.
    let overridden = draft.overridden_objects.iter().map(|it| format!("; {it}"));
    ConditionDraft::new(
        ConditionStatus::True,
        reason::STABLE,
        overridden.fold(pods, |message, it| message + &it),
    )
}

fn ready_pods_message(cx: &PlanContext<'_>, stable: &str) -> String {
    format!(
        "{} of {} pods of version {} are ready",
        cx.ready_pods(stable),
        cx.spec.replicas,
        cx.version(stable)
    )
}

fn no_gateway(cx: &PlanContext<'_>) -> Option<String> {
    if cx.observed.gateway.pods.iter().any(|pod| pod.ready) {
        return None;
    }
    let deployment = cx.observed.gateway.objects.get(&ManagedKind::Deployment);
    let failure = deployment.map_or("", |it| it.failure.as_str());
    let why = if failure.is_empty() {
        String::new()
    } else {
        format!("; Kubernetes makes no pods: {failure}")
    };
    Some(format!("no gateway pod is ready, so nothing reaches the model{why}"))
}

/// What is missing for the stable revision, or for the first one.
pub(super) fn missing_pods(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let Some(stable) = &draft.stable else {
        return Some(ConditionDraft {
            status: ConditionStatus::True,
            ..initializing_condition(cx)
        });
    };
    if cx.ready_pods(stable) < cx.spec.replicas {
        return Some(ConditionDraft::new_true(
            reason::DEGRADED,
            format!("{}{}", ready_pods_message(cx, stable), revision_problem(cx, stable)),
        ));
    }
    no_gateway(cx).map(|why| ConditionDraft::new_true(reason::UNAVAILABLE, why))
}

/// What keeps the first revision from starting. There is no revision to roll back to, so it is
/// retried until it starts or the spec changes.
pub(super) fn startup_failure(cx: &PlanContext<'_>) -> Option<ConditionDraft> {
    let revision = &cx.spec.revision;
    if let Some(problem) = &cx.spec.problem {
        return Some(ConditionDraft::new_true(reason::INVALID_SPEC, problem));
    }
    let name = slipway_objects::revision_name(&cx.spec.name, revision);
    if cx.observed.replica_sets.iter().any(|set| set.name == name && !set.owned) {
        let message = format!(
            "ReplicaSet {name} exists and is controlled by somebody else, or lacks our labels"
        );
        return Some(ConditionDraft::new_true(reason::UNAVAILABLE, message));
    }
    let failure = LoadFailure::for_revision(cx, revision)?;
    let message = format!("{}: {}", failure.reason, failure.message);
    Some(ConditionDraft::new_true(reason::MODEL_LOAD_FAILED, message))
}

fn initializing_condition(cx: &PlanContext<'_>) -> ConditionDraft {
    if let Some(failure) = startup_failure(cx) {
        return ConditionDraft { status: ConditionStatus::False, ..failure };
    }
    let have = cx.ready_pods(&cx.spec.revision);
    let pods = format!(
        "{have} of {} pods of the first version {} are ready",
        cx.spec.replicas, cx.spec.version
    );
    ConditionDraft::new(
        ConditionStatus::False,
        reason::INITIALIZING,
        format!("{pods}{}", revision_problem(cx, &cx.spec.revision)),
    )
}

/// The first problem that keeps a pod of a revision from running, and why Kubernetes creates no
/// more pods.
pub(super) fn revision_problem(cx: &PlanContext<'_>, revision: &str) -> String {
    let failure = cx.replica_set(revision).map_or("", |set| set.failure.as_str());
    let none = if failure.is_empty() {
        String::new()
    } else {
        format!("; Kubernetes makes no pods: {failure}")
    };
    format!("{none}{}", pod_problem(cx, revision))
}

fn pod_problem(cx: &PlanContext<'_>, revision: &str) -> String {
    let problems = cx.observed.pod_problems.iter().filter(|problem| problem.revision == revision);
    problems.min_by(|a, b| a.pod.cmp(&b.pod)).map_or_else(String::new, |problem| {
        // The message of the model server is more precise than the state of its container.
        let (reason, message) = match LoadFailure::parse(&problem.message) {
            Some(failure) => (failure.reason, failure.message),
            None => (problem.reason.clone(), problem.message.clone()),
        };
        let text: Vec<&str> =
            [reason.trim(), message.trim()].into_iter().filter(|part| !part.is_empty()).collect();
        format!("; pod {}: {}", problem.pod, text.join(": "))
    })
}
