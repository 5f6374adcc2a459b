//! A requested restart: pods created before `spec.restartTime` are evicted, one at a time, and the
//! next one only when all are ready. So a restart costs at most one pod, even if new pods fail, and
//! disruption budgets and graceful termination apply as they do when nodes are drained.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::disturbance;
use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::{ActiveRestart, PlanDraft, RestartState};
use crate::observed::{PodView, ReplicaSetView};
use crate::time::add_seconds;

/// The pods of the restarted revision.
struct RestartPods<'a> {
    /// Pods created before the requested time: first those that are not ready, whose loss costs
    /// nothing, then the oldest.
    old: Vec<&'a PodView>,
    new: Vec<&'a PodView>,
}

impl<'a> RestartPods<'a> {
    fn for_restart(cx: &PlanContext<'a>, set: &ReplicaSetView, asked: Timestamp) -> Self {
        let all = cx
            .observed
            .pods
            .iter()
            .filter(|pod| pod.replica_set_uid.as_ref() == Some(&set.uid) && !pod.deleting);
        let (mut old, mut new): (Vec<_>, Vec<_>) = all.partition(|pod| pod.created_at < asked);
        // The order is the same in every plan, so that a lagging view selects the same pod.
        old.sort_by(|a, b| (a.ready, a.created_at, &a.name).cmp(&(b.ready, b.created_at, &b.name)));
        new.sort_by(|a, b| a.name.cmp(&b.name));
        Self { old, new }
    }

    fn count(&self) -> usize {
        self.old.len() + self.new.len()
    }

    fn are_ready(&self) -> bool {
        self.old.iter().chain(&self.new).all(|pod| pod.ready)
    }
}

/// Returns the actions of the restart. Updates the template first if the operator's settings have
/// changed since it was created.
pub(super) fn restart_actions(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> Vec<PlanAction> {
    let mut actions = Vec::new();
    let Some(asked) = cx.observed.object.spec.restart_time.as_ref().map(|time| time.0) else {
        draft.last_restart = None;
        return actions;
    };
    if asked > cx.now {
        draft.wake_at(asked);
        return actions;
    }
    // The status keeps whole seconds.
    let done =
        draft.last_restart.as_ref().is_some_and(|time| time.0.as_second() == asked.as_second());
    let Some(stable) = draft.stable.clone().filter(|_| !done && cx.spec.problem.is_none()) else {
        return actions;
    };
    if draft.active_rollout().is_some() {
        draft.restart =
            Some(ActiveRestart { requested_at: asked, state: RestartState::AfterRollout });
        return actions;
    }
    let Some(set) = cx.replica_set(&stable).filter(|set| !set.orphaned) else { return actions };
    let (pods, wanted) = (RestartPods::for_restart(cx, set, asked), cx.spec.replicas);
    let whole = set.is_observed
        && set.desired == wanted
        && usize::try_from(wanted).is_ok_and(|it| it == pods.count());
    if whole && pods.old.is_empty() && pods.are_ready() {
        draft.last_restart = Some(Time(asked));
        return actions;
    }
    let state = restart_state(cx, draft, &pods);
    let goes_on = matches!(state, RestartState::Running { .. });
    draft.restart = Some(ActiveRestart { requested_at: asked, state });
    let waits_for_new = pods.new.iter().any(|pod| !pod.ready);
    if !goes_on
        || !whole
        || waits_for_new
        || (pods.old.is_empty() || !is_up_to_date(cx, draft, set, &mut actions))
    {
        return actions;
    }
    // The counts of the ReplicaSet and the pods come from different watches; both must agree.
    let spare = pods.are_ready() && set.ready >= wanted && set.available >= wanted;
    if let Some(next) = pods.old.first().filter(|next| !next.ready || spare) {
        actions.push(PlanAction::Evict { name: next.name.clone(), uid: next.uid.clone() });
    }
    actions
}

fn restart_state(cx: &PlanContext<'_>, draft: &PlanDraft, pods: &RestartPods<'_>) -> RestartState {
    let late = |pod: &PodView| cx.has_elapsed(pod.created_at, cx.spec.progress_deadline);
    let waits_for = pods.new.iter().filter(|pod| !pod.ready);
    if let Some(pod) = waits_for.clone().find(|pod| late(pod)) {
        return RestartState::NotReady { pod: pod.name.clone(), since: pod.created_at };
    }
    for pod in waits_for {
        draft.wake_at(add_seconds(pod.created_at, cx.spec.progress_deadline));
    }
    if pods.old.first().is_some_and(|next| next.ready) && budget_blocks_eviction(cx) {
        return RestartState::NoBudget;
    }
    RestartState::Running { done: pods.new.iter().filter(|pod| pod.ready).count() }
}

/// Whether the ModelDeployment's own budget rejects every eviction of a ready pod. Kubernetes
/// rounds percentages up, so only zero blocks all.
fn budget_blocks_eviction(cx: &PlanContext<'_>) -> bool {
    match &cx.observed.object.spec.disruption_budget.max_unavailable {
        IntOrString::Int(pods) => *pods <= 0,
        IntOrString::String(share) => share.trim_end_matches('%').parse() == Ok(0),
    }
}

/// Whether new pods match the operator's current settings. The content of another revision than the
/// spec's is unknown, so its template stays.
fn is_up_to_date(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    set: &ReplicaSetView,
    actions: &mut Vec<PlanAction>,
) -> bool {
    if set.revision != cx.spec.revision {
        return true;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let desired = slipway_objects::replica_set(
        object,
        settings,
        &set.revision,
        &cx.spec.version,
        set.desired,
        set.digest.known_digest(),
    );
    if desired.applied_hash() == set.applied_hash {
        return true;
    }
    disturbance::update_replica_set(cx, draft, desired, actions);
    false
}
