//! Sizes of ReplicaSets, and the end of old ones.

use std::collections::BTreeMap;

use slipway_objects::{ManagedKind, revision};

use super::children;
use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::ReplicaSetView;
use crate::{sizing, traffic};

/// Pins the model of each ReplicaSet whose first pod has told what it found. Where several have
/// told, which are of a ReplicaSet that was scaled by somebody else, most of them decide.
pub(crate) fn pin_models(cx: &PlanContext<'_>, actions: &mut Vec<PlanAction>) {
    for set in sorted_replica_sets(cx) {
        let open = !cx.is_model_known(set);
        let mut found = BTreeMap::<&str, usize>::new();
        for fetched in cx
            .observed
            .fetched_models
            .iter()
            .filter(|fetched| open && fetched.revision == set.revision)
        {
            *found.entry(&fetched.digest).or_default() += 1;
        }
        // Of equally many the first by name, so that the decision is the same each time.
        if let Some((digest, _)) = found.into_iter().rev().max_by_key(|(_, pods)| *pods) {
            let (name, uid) = (set.name.clone(), set.uid.clone());
            actions.push(PlanAction::Pin { name, uid, digest: digest.to_owned() });
        }
    }
}

/// Sizes and ends of ReplicaSets.
pub(crate) struct ScalingActions {
    /// What grows. Nothing must keep it from growing, so it comes before all else.
    pub(crate) grow: Vec<PlanAction>,
    /// What shrinks, then what goes. When there is any, status must be written first.
    pub(crate) shrink: Vec<PlanAction>,
}

/// What grows and what is taken away.
pub(crate) fn scaling_actions(cx: &PlanContext<'_>, draft: &PlanDraft) -> ScalingActions {
    let (mut grow, mut shrink) = (Vec::new(), Vec::new());
    for set in sorted_replica_sets(cx) {
        let replicas = sizing::target_replicas(cx, draft, &set.revision);
        let scale = PlanAction::Scale { name: set.name.clone(), uid: set.uid.clone(), replicas };
        match replicas.cmp(&set.desired) {
            std::cmp::Ordering::Greater => grow.push(scale),
            std::cmp::Ordering::Less => shrink.push(scale),
            std::cmp::Ordering::Equal => {}
        }
    }
    shrink.extend(garbage_collect(cx, draft));
    ScalingActions { grow, shrink }
}

/// ReplicaSets that may be written to.
pub(super) fn sorted_replica_sets<'a>(cx: &PlanContext<'a>) -> Vec<&'a ReplicaSetView> {
    let mut sets: Vec<_> = cx.replica_sets().filter(|set| !set.orphaned).collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// ReplicaSets beyond the history, each with its headless Service, and headless Services whose
/// ReplicaSet is gone.
fn garbage_collect(cx: &PlanContext<'_>, draft: &PlanDraft) -> Vec<PlanAction> {
    let mut idle: Vec<_> =
        sorted_replica_sets(cx).into_iter().filter(|set| is_idle(cx, draft, set)).collect();
    idle.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    let mut actions = Vec::new();
    // Before anything serves nothing is given up for good.
    if draft.stable.is_none() {
        return actions;
    }
    for set in idle.into_iter().skip(cx.spec.history_limit) {
        children::delete_child(cx, ManagedKind::Service, &set.name, &mut actions);
        actions.push(PlanAction::Delete {
            kind: ManagedKind::ReplicaSet,
            name: set.name.clone(),
            uid: set.uid.clone(),
        });
    }
    for (name, _) in cx.observed.children_of(ManagedKind::Service) {
        let orphan = revision::revision_in_name(&cx.spec.name, name).is_some_and(|revision| {
            !has_role(cx, draft, revision)
                // By name: those of the Deployment of workers have the labels of their revisions, too.
                && cx.observed.replica_sets.iter().all(|set| set.name != name)
                && sizing::is_drained(cx, draft, revision)
        });
        if orphan {
            children::delete_child(cx, ManagedKind::Service, name, &mut actions);
        }
    }
    actions
}

/// An old revision without pods, which no gateway can still mean.
fn is_idle(cx: &PlanContext<'_>, draft: &PlanDraft, set: &ReplicaSetView) -> bool {
    set.desired == 0
        && set.current == 0
        && set.is_observed
        && !has_role(cx, draft, &set.revision)
        && sizing::is_drained(cx, draft, &set.revision)
}

fn has_role(cx: &PlanContext<'_>, draft: &PlanDraft, revision: &str) -> bool {
    let stored = cx
        .stored_status
        .traffic
        .as_ref()
        .is_some_and(|stored| traffic::selects_revision(stored, revision));
    stored
        || traffic::selects_revision(&draft.traffic, revision)
        || draft.stable.as_deref() == Some(revision)
        || draft.candidate() == Some(revision)
        || cx.spec.revision == revision
}
