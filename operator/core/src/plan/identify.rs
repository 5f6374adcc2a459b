//! Finds the stable revision and repairs inconsistent stored state.

use slipway_crds::v1alpha1::{RevisionRole, RolloutStage};

use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::ReplicaSetView;
use crate::{lost_status, traffic};

/// The stable revision; `None` until the first one is ready.
pub(crate) fn stable_revision(cx: &PlanContext<'_>) -> Option<String> {
    let stored_revision = cx.stored_status.stable.as_ref().map(|stable| stable.revision.clone());
    let stored_revision = stored_revision.filter(|revision| !revision.is_empty());
    if let Some(revision) =
        stored_revision.filter(|it| cx.replica_set(it).is_some() || can_be_made(cx, it))
    {
        return Some(revision);
    }
    let served = cx.stored_status.traffic.iter().flat_map(|traffic| &traffic.backends);
    let served = served
        .filter(|backend| backend.role == RevisionRole::Stable)
        .map(|backend| backend.revision.clone())
        .next();
    match served {
        // The first revision becomes stable as soon as a pod is ready. With zero requested replicas
        // there is nothing to wait for.
        Some(first) if cx.ready_pods(&first) > 0 => Some(first),
        Some(first)
            if cx.spec.replicas == 0
                && first == cx.spec.revision
                && cx.replica_set(&first).is_some() =>
        {
            Some(first)
        }
        Some(_) if cx.stored_status.stable.is_none() => None,
        _ => lost_status::last_stable_revision(cx).or_else(|| reconstruct_stable(cx)),
    }
}

/// Only the content of the spec's revision is known; the pods of other revisions are described only
/// by their ReplicaSets.
fn can_be_made(cx: &PlanContext<'_>, revision: &str) -> bool {
    revision == cx.spec.revision
}

/// Finds the serving revision from the observed state, if the status or the stable ReplicaSet is
/// lost and no other ReplicaSet is marked as stable. Other revisions have precedence over the
/// spec's, which may be a candidate: first those with enough pods for all traffic. Among several
/// the one to which gateways send requests wins, then the oldest.
fn reconstruct_stable(cx: &PlanContext<'_>) -> Option<String> {
    let usable = || cx.replica_sets().filter(|set| set.available > 0);
    let others = || usable().filter(|set| set.revision != cx.spec.revision);
    let whole = others().filter(|set| set.available >= cx.spec.replicas);
    let serving = |set: &&ReplicaSetView| is_serving(cx, &set.revision);
    best_replica_set(cx, whole)
        .or_else(|| best_replica_set(cx, others().filter(serving)))
        .or_else(|| best_replica_set(cx, usable().filter(serving)))
        .or_else(|| best_replica_set(cx, others()))
        .or_else(|| best_replica_set(cx, usable()))
        // No revision has available pods at the moment. One with desired replicas served more
        // likely than a revision that was never tried.
        .or_else(|| {
            best_replica_set(
                cx,
                cx.replica_sets().filter(|set| set.desired > 0 && set.revision != cx.spec.revision),
            )
        })
        .map(|set| set.revision.clone())
}

fn best_replica_set<'a>(
    cx: &PlanContext<'_>,
    sets: impl Iterator<Item = &'a ReplicaSetView>,
) -> Option<&'a ReplicaSetView> {
    sets.min_by_key(|set| (!is_serving(cx, &set.revision), set.created_at, set.name.clone()))
}

fn is_serving(cx: &PlanContext<'_>, revision: &str) -> bool {
    let reports = cx.observed.gateway.pods.iter().filter_map(|pod| pod.report.as_ref());
    reports.filter_map(|report| report.requests.get(revision)).any(|requests| *requests > 0)
}

/// Repairs stored state: weights only for known revisions, a rollout only of a revision that is not
/// stable. Impossible state is replaced by safe state: all traffic to stable, the candidate at its
/// first step.
pub(crate) fn repair_draft(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    if draft
        .rollout
        .as_ref()
        .is_some_and(|rollout| Some(&rollout.revision) == draft.stable.as_ref())
    {
        draft.rollout = None;
    }
    if draft.stable.is_none() {
        draft.rollout = None;
        let whole =
            draft.traffic.backends.first().is_some_and(|first| {
                draft.traffic.backends == traffic::stable_only(&first.revision)
            });
        if !whole {
            draft.traffic.backends.clear();
            draft.traffic.preview_revision = None;
        }
    }
    if draft.traffic.confirmed_generation > draft.traffic.generation {
        draft.traffic.confirmed_generation = 0;
        draft.traffic.confirmed_time = None;
    }
    if let Some(stable) = draft.stable.clone() {
        let candidate = draft.active_rollout().map(|rollout| rollout.revision.clone());
        if !traffic::is_well_formed(&draft.traffic.backends, &stable, candidate.as_deref()) {
            draft.all_to_stable(cx);
            restart_rollout(cx, draft);
        }
        let preview = draft.traffic.preview_revision.clone();
        if preview.is_some() && preview != candidate {
            let backends = draft.traffic.backends.clone();
            draft.write_weights(cx, backends, None);
        }
    }
    raise_generation(cx, draft);
}

/// Raises the generation above the ones that gateways report. A gateway with newer weights has read
/// another status than this plan. If this plan's status is stale, its write is rejected; if the
/// newer status was lost, the raised generation makes this one the newest.
fn raise_generation(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    if draft.traffic.backends.is_empty()
        || traffic::newest_report(&cx.observed.gateway) <= draft.traffic.generation
    {
        return;
    }
    traffic::bump_generation(&mut draft.traffic, &cx.observed.gateway);
    if draft.rollout.as_ref().is_some_and(|rollout| rollout.stage == RolloutStage::Analyzing) {
        let index = draft.step_index();
        draft.enter_stage(cx, index, RolloutStage::Confirming);
    }
}

fn restart_rollout(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    if draft.active_rollout().is_some() {
        draft.gates.clear();
        draft.enter_stage(cx, 0, RolloutStage::Scaling);
    }
}
