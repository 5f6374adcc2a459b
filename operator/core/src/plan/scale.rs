//! Scales ReplicaSets and deletes old ones.

use std::collections::BTreeMap;

use slipway_objects::{ManagedKind, revision};

use super::children;
use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::ReplicaSetView;
use crate::{sizing, traffic};

/// Pins the model of each ReplicaSet whose first pod has reported its digest. Several pods can
/// report different digests if another client scaled the ReplicaSet; the most frequent digest wins.
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
        // Ties are broken by the digest, so that the decision is deterministic.
        if let Some((digest, _)) = found.into_iter().rev().max_by_key(|(_, pods)| *pods) {
            let (name, uid) = (set.name.clone(), set.uid.clone());
            actions.push(PlanAction::Pin { name, uid, digest: digest.to_owned() });
        }
    }
}

/// The scaling and deletion of ReplicaSets.
pub(crate) struct ScalingActions {
    /// ReplicaSets that grow. They come before all other actions, so that no rejected write can
    /// prevent them.
    pub(crate) grow: Vec<PlanAction>,
    /// ReplicaSets that shrink, then those to delete. If there are any, the status must be written
    /// first.
    pub(crate) shrink: Vec<PlanAction>,
}

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

/// ReplicaSets that may be written, by name.
pub(super) fn sorted_replica_sets<'a>(cx: &PlanContext<'a>) -> Vec<&'a ReplicaSetView> {
    let mut sets: Vec<_> = cx.replica_sets().filter(|set| !set.orphaned).collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// Deletes ReplicaSets beyond the history limit, each with its headless Service, and headless
/// Services without a ReplicaSet.
fn garbage_collect(cx: &PlanContext<'_>, draft: &PlanDraft) -> Vec<PlanAction> {
    let mut idle: Vec<_> =
        sorted_replica_sets(cx).into_iter().filter(|set| is_idle(cx, draft, set)).collect();
    idle.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    let mut actions = Vec::new();
    // Nothing is deleted before a revision serves.
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

/// Whether this is an old revision without pods that no gateway can still select.
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
