//! Invariants about numbers of pods.

use slipway_crds::v1alpha1::RolloutStage;
use slipway_objects::ManagedKind;

use super::{CheckedPlan, report_unless};
use crate::action::PlanAction;
use crate::marks::RevisionMarks;
use crate::observed::{ModelDigest, ReplicaSetView};
use crate::sizing::replicas_for_share;
use crate::traffic;

/// I3, I4, I11, I15, I16 and I17.
pub(super) fn check_sizes(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    check_capacity(case, broken);
    for action in &case.plan.actions {
        match action {
            PlanAction::Scale { name, uid, replicas } => match find_replica_set(case, name, uid) {
                Some(set) => {
                    check_scale(case, set, *replicas, broken);
                    let alone =
                        set.digest != ModelDigest::Pending || *replicas <= set.desired.max(1);
                    report_unless(broken, alone, || {
                        format!("I15: {name} grows to {replicas} before its model is known")
                    });
                }
                None => broken.push(format!("I11: {name} is scaled and is not ours")),
            },
            PlanAction::Delete { kind: ManagedKind::ReplicaSet, name, uid } => {
                match find_replica_set(case, name, uid) {
                    Some(set) => {
                        check_scale(case, set, 0, broken);
                        report_unless(broken, set.desired == 0 && set.current == 0, || {
                            format!("I4: {name} is deleted with pods")
                        });
                        let stable =
                            case.new.stable.as_ref().is_some_and(|it| it.revision == set.revision);
                        let rolled =
                            case.new.rollout.as_ref().is_some_and(|it| it.revision == set.revision);
                        report_unless(broken, !stable && !rolled, || {
                            format!("I4: {name} has a role")
                        });
                    }
                    None => broken.push(format!("I11: {name} is deleted and is not ours")),
                }
            }
            PlanAction::Pin { name, uid, digest } => match find_replica_set(case, name, uid) {
                Some(set) => {
                    let is_stored = |digest: &str| {
                        case.observed
                            .fetched_models
                            .iter()
                            .any(|it| it.revision == set.revision && it.digest == digest)
                    };
                    let free = match &set.digest {
                        ModelDigest::Pending => true,
                        ModelDigest::Pinned(old) => set.desired <= 1 && !is_stored(old),
                        ModelDigest::Unreported => false,
                    };
                    report_unless(broken, free && is_stored(digest), || {
                        format!(
                            "I15: {name} is pinned to {digest}, which none of its pods found, or anew"
                        )
                    });
                }
                None => broken.push(format!("I11: {name} is pinned and is not ours")),
            },
            PlanAction::Mark { name, uid, marks } => match find_replica_set(case, name, uid) {
                Some(set) => check_marks(case, set, marks, broken),
                None => broken.push(format!("I11: {name} is marked and is not ours")),
            },
            PlanAction::WriteReplicas { replicas } => check_replicas_write(case, *replicas, broken),
            PlanAction::Apply(_)
            | PlanAction::Restore { .. }
            | PlanAction::Adopt { .. }
            | PlanAction::Evict { .. }
            | PlanAction::Delete { .. } => {}
        }
    }
}

fn find_replica_set<'a>(
    case: &'a CheckedPlan<'_>,
    name: &str,
    uid: &str,
) -> Option<&'a ReplicaSetView> {
    case.observed.replica_sets.iter().find(|set| {
        set.name == name && set.uid == uid && set.owned && !set.orphaned && !set.deleting
    })
}

/// I17: the plan writes `spec.replicas` only if it is absent, and the value removes no pod.
fn check_replicas_write(case: &CheckedPlan<'_>, replicas: i32, broken: &mut Vec<String>) {
    report_unless(broken, case.observed.object.spec.replicas.is_none(), || {
        "I17: overwrites spec.replicas".to_owned()
    });
    let stable = case.old.stable.as_ref().and_then(|stable| {
        case.observed
            .replica_sets
            .iter()
            .find(|set| set.revision == stable.revision && set.owned && !set.deleting)
    });
    let most =
        case.spec.autoscaling.as_ref().map_or(i32::MAX, |autoscaling| autoscaling.max_replicas);
    let running = stable.map_or(0, |set| set.desired).min(most);
    report_unless(broken, replicas >= running.max(1), || {
        format!("I17: writes {replicas} where {running} run")
    });
}

/// I16: the marks of a ReplicaSet match the status.
fn check_marks(
    case: &CheckedPlan<'_>,
    set: &ReplicaSetView,
    marks: &RevisionMarks,
    broken: &mut Vec<String>,
) {
    let is_stable = case.new.stable.as_ref().is_some_and(|it| it.revision == set.revision);
    let stable = marks.stable_since == set.marks.stable_since || is_stable;
    report_unless(broken, stable, || format!("I16: {} is marked stable and is not", set.name));
    let aborted = case
        .new
        .rollout
        .as_ref()
        .filter(|it| it.stage == RolloutStage::Aborted && it.revision == set.revision);
    let aborted = aborted.and_then(|it| it.abort.as_ref());
    report_unless(broken, aborted.is_some() == marks.aborted.is_some(), || {
        format!("I16: {} is marked {:?}, and is not so", set.name, marks.aborted)
    });
}

/// I3: the pods are available before the weight rises.
fn check_capacity(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let Some(candidate) = case.new.rollout.as_ref().map(|rollout| rollout.revision.as_str()) else {
        return;
    };
    let (old, new) =
        (CheckedPlan::weight(&case.old, candidate), CheckedPlan::weight(case.new, candidate));
    if new > old.max(0) {
        let set = case
            .observed
            .replica_sets
            .iter()
            .find(|set| set.revision == candidate && set.owned && !set.deleting);
        let (have, want) =
            (set.map_or(0, |set| set.available), replicas_for_share(case.spec.replicas, new));
        report_unless(broken, have >= want.max(1), || {
            format!("I3: weight rises to {new} with {have} of {want} pods")
        });
    }
}

/// I4: a revision that gateways select, or may still select, keeps the replicas that it needs.
fn check_scale(
    case: &CheckedPlan<'_>,
    set: &ReplicaSetView,
    replicas: i32,
    broken: &mut Vec<String>,
) {
    if replicas >= set.desired {
        return;
    }
    let stable = case.new.stable.as_ref().is_none_or(|stable| stable.revision == set.revision);
    if stable
        && set.revision
            == case.new.stable.as_ref().map_or(&case.spec.revision, |it| &it.revision).as_str()
    {
        // Stable follows the number that the user or the autoscaler requests; before the autoscaler
        // has reported a number, stable may have more.
        let asked = case.spec.replicas;
        let follows = replicas == asked || (case.spec.autoscaling.is_some() && replicas > asked);
        report_unless(broken, follows, || format!("I4: stable {} shrinks to {replicas}", set.name));
        return;
    }
    let weight = CheckedPlan::weight(&case.old, &set.revision)
        .max(CheckedPlan::weight(case.new, &set.revision));
    let want = replicas_for_share(case.spec.replicas, weight);
    report_unless(broken, replicas >= want, || {
        format!("I4: {} shrinks to {replicas}, its share needs {want}", set.name)
    });
    let generation = case.new.traffic.as_ref().map_or(0, |it| it.generation);
    report_unless(broken, traffic::is_settled(&case.observed.gateway, generation), || {
        format!("I4: {} shrinks while a gateway may use older weights", set.name)
    });
    if weight == 0 && replicas == 0 {
        let selected = case
            .new
            .traffic
            .as_ref()
            .is_some_and(|it| traffic::selects_revision(it, &set.revision));
        report_unless(broken, !selected, || {
            format!("I4: {} goes while the shield or the preview address may need it", set.name)
        });
    }
}
