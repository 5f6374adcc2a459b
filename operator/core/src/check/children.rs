//! Invariants about objects of other owners and about changes by other clients.

use slipway_objects::ManagedKind;
use slipway_objects::desired::DesiredObject;

use super::{CheckedPlan, report_unless};
use crate::action::PlanAction;
use crate::observed::ObjectView;

/// I11, except for ReplicaSets that are scaled or deleted, and I17.
pub(super) fn check_children(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    for action in &case.plan.actions {
        match action {
            PlanAction::Delete { kind, name, uid } if *kind != ManagedKind::ReplicaSet => {
                let ours = child_view(case, *kind, name)
                    .is_some_and(|view| view.uid == *uid && is_ours(case, name, view));
                report_unless(broken, ours, || format!("I11: {name} is deleted and is not ours"));
            }
            PlanAction::Adopt { kind, name, uid, .. } => {
                let free = match kind {
                    ManagedKind::ReplicaSet => case.observed.replica_sets.iter().any(|set| {
                        set.name == *name
                            && set.uid == *uid
                            && set.owned
                            && set.orphaned
                            && !set.deleting
                    }),
                    _ => child_view(case, *kind, name)
                        .is_some_and(|view| view.uid == *uid && view.controller.is_none()),
                };
                report_unless(broken, free, || {
                    format!("I11: {name} is adopted and has another controller")
                });
            }
            PlanAction::Apply(desired) | PlanAction::Restore { desired, .. } => {
                check_restore_pause(case, desired, broken)
            }
            _ => {}
        }
    }
}

/// The gateway's objects have no controller: any of their owners may delete them, and any
/// ModelDeployment may delete one without owners.
fn is_ours(case: &CheckedPlan<'_>, name: &str, view: &ObjectView) -> bool {
    let uid = &case.spec.uid;
    view.controller.as_ref() == Some(uid)
        || (name == slipway_objects::GATEWAY
            && (view.owners.is_empty() || view.owners.contains(uid)))
}

/// An object but for ReplicaSets.
fn child_view<'a>(
    case: &'a CheckedPlan<'_>,
    kind: ManagedKind,
    name: &str,
) -> Option<&'a ObjectView> {
    if name == slipway_objects::GATEWAY {
        case.observed.gateway.objects.get(&kind)
    } else {
        case.observed.child(kind, name)
    }
}

/// I17: an object that was restored is not restored again within a minute.
fn check_restore_pause(case: &CheckedPlan<'_>, desired: &DesiredObject, broken: &mut Vec<String>) {
    let known = case.observed.disturbances.get(&desired.target());
    let early = known.is_some_and(|it| {
        it.restore_count > 0
            && it.applied_hash == desired.applied_hash()
            && it.is_recent(case.now, 60)
    });
    report_unless(broken, !early, || {
        format!("I17: {} is put back again within a minute", desired.target())
    });
}
