//! Whether the stable revision serves.

use slipway_crds::conditions::{READY, reason};
use slipway_crds::v1alpha1::Stage;

use super::Said;
use crate::build;
use crate::plan::{Context, Draft};
use crate::strategy::LoadFailure;

/// The summary.
pub(super) fn ready(cx: &Context<'_>, draft: &Draft) -> Said {
    if let Some(problem) = &cx.spec.problem {
        return Said::new("False", reason::INVALID_SPEC, problem);
    }
    refused(cx, || serves(cx, draft)).unwrap_or_else(|| undisturbed(draft, serves(cx, draft)))
}

/// What others do to our objects. Somebody who keeps changing them breaks what is promised; an admission webhook or policy has the last word by design.
fn undisturbed(draft: &Draft, said: Said) -> Said {
    if !draft.contested.is_empty() {
        let message = format!("{}; {}", draft.contested.join("; "), said.message);
        return Said::new("False", reason::WRITE_REVERTED, message);
    }
    let overridden = draft.overridden.iter().map(|it| format!("; {it}"));
    Said { message: overridden.fold(said.message, |message, it| message + &it), ..said }
}

fn serves(cx: &Context<'_>, draft: &Draft) -> Said {
    let Some(stable) = &draft.stable else {
        return initializing(cx);
    };
    let (have, want) = (cx.ready(stable), cx.spec.replicas);
    let pods = format!("{have} of {want} pods of version {} are ready", cx.version(stable));
    if have == 0 && want > 0 {
        return Said::new("False", reason::UNAVAILABLE, format!("{pods}{}", trouble(cx, stable)));
    }
    if !cx.observed.gateway.pods.iter().any(|pod| pod.ready) {
        let failure = cx.observed.gateway.deployment.as_ref().map_or("", |it| it.failure.as_str());
        let why = if failure.is_empty() { String::new() } else { format!("; Kubernetes makes no pods: {failure}") };
        let message = format!("no gateway pod is ready, so nothing reaches the model{why}");
        return Said::new("False", reason::UNAVAILABLE, message);
    }
    if have < want {
        return Said::new("False", reason::DEGRADED, format!("{pods}{}", trouble(cx, stable)));
    }
    let aborted = draft.rollout.as_ref().filter(|rollout| rollout.stage == Stage::Aborted);
    if let Some(abort) = aborted.and_then(|rollout| rollout.abort.as_ref()) {
        let message = format!("{pods}; the spec's version {} was taken back: {}", cx.spec.version, abort.message);
        return Said::new("False", &abort.reason, message);
    }
    Said::new("True", reason::STABLE, pods)
}

/// Writes that are refused. Before this process has tried one, what the status says of it stands: else `Ready` would be true for a moment at each start.
fn refused(cx: &Context<'_>, otherwise: impl FnOnce() -> Said) -> Option<Said> {
    let Some(refusals) = &cx.observed.refusals else {
        let old = cx.stored.conditions.iter().find(|old| old.type_ == READY && old.reason == reason::WRITE_REFUSED)?;
        return Some(Said::new("False", reason::WRITE_REFUSED, old.message.clone()));
    };
    let all: Vec<&str> = refusals.values().map(String::as_str).collect();
    (!all.is_empty())
        .then(|| Said::new("False", reason::WRITE_REFUSED, format!("{}; {}", all.join("; "), otherwise().message)))
}

/// Whether anybody answers at all.
pub(super) fn available(cx: &Context<'_>, draft: &Draft) -> Said {
    let Some(stable) = &draft.stable else {
        return Said { status: "False", ..initializing(cx) };
    };
    let ready = cx.ready(stable);
    let message = format!("{ready} pods of version {} are ready", cx.version(stable));
    Said::is(ready > 0, if ready > 0 { reason::STABLE } else { reason::UNAVAILABLE }, message)
}

/// The first revision has nothing to go back to: it is tried until it comes up or the spec changes.
fn initializing(cx: &Context<'_>) -> Said {
    let revision = &cx.spec.revision;
    if let Some(problem) = &cx.spec.problem {
        return Said::new("False", reason::INVALID_SPEC, problem);
    }
    let name = build::revision_name(&cx.spec.name, revision);
    if cx.observed.replica_sets.iter().any(|set| set.name == name && !set.owned) {
        let message = format!("ReplicaSet {name} exists and is controlled by somebody else, or lacks our labels");
        return Said::new("False", reason::UNAVAILABLE, message);
    }
    if let Some(failure) = LoadFailure::of(cx, revision) {
        return Said::new("False", reason::MODEL_LOAD_FAILED, format!("{}: {}", failure.reason, failure.message));
    }
    let have = cx.ready(revision);
    let pods = format!("{have} of {} pods of the first version {} are ready", cx.spec.replicas, cx.spec.version);
    Said::new("False", reason::INITIALIZING, format!("{pods}{}", trouble(cx, revision)))
}

/// The first thing that keeps a pod of a revision from running, and why Kubernetes makes no more of them.
pub(super) fn trouble(cx: &Context<'_>, revision: &str) -> String {
    let failure = cx.set(revision).map_or("", |set| set.failure.as_str());
    let none = if failure.is_empty() { String::new() } else { format!("; Kubernetes makes no pods: {failure}") };
    format!("{none}{}", pod_trouble(cx, revision))
}

fn pod_trouble(cx: &Context<'_>, revision: &str) -> String {
    let problems = cx.observed.pod_problems.iter().filter(|problem| problem.revision == revision);
    problems.min_by(|a, b| a.pod.cmp(&b.pod)).map_or_else(String::new, |problem| {
        // The runtime's own line says it better than the state of its container.
        let (reason, message) = match LoadFailure::parse(&problem.message) {
            Some(failure) => (failure.reason, failure.message),
            None => (problem.reason.clone(), problem.message.clone()),
        };
        let text: Vec<&str> = [reason.trim(), message.trim()].into_iter().filter(|part| !part.is_empty()).collect();
        format!("; pod {}: {}", problem.pod, text.join(": "))
    })
}
