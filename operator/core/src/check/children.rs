//! Invariants about objects that are not ours, and those that others disturb.

use super::{Case, require};
use crate::action::Action;
use crate::build;
use crate::desired::{Desired, Kind};
use crate::observed::ObjectView;

/// I11, but for ReplicaSets that are scaled or deleted, and I17.
pub(super) fn check(case: &Case<'_>, broken: &mut Vec<String>) {
    for action in &case.plan.actions {
        match action {
            Action::Delete { kind, name, uid } if *kind != Kind::ReplicaSet => {
                let ours = view(case, *kind, name).is_some_and(|view| view.uid == *uid && is_ours(case, name, view));
                require(broken, ours, || format!("I11: {name} is deleted and is not ours"));
            }
            Action::Adopt { kind, name, uid, .. } => {
                let free =
                    match kind {
                        Kind::ReplicaSet => case.observed.replica_sets.iter().any(|set| {
                            set.name == *name && set.uid == *uid && set.owned && set.orphaned && !set.deleting
                        }),
                        _ => view(case, *kind, name).is_some_and(|view| view.uid == *uid && view.controller.is_none()),
                    };
                require(broken, free, || format!("I11: {name} is adopted and has another controller"));
            }
            Action::Apply(desired) | Action::Restore { desired, .. } => paused(case, desired, broken),
            _ => {}
        }
    }
}

/// What is the gateway's has no controller: any of its owners may delete it, and anybody what has none.
fn is_ours(case: &Case<'_>, name: &str, view: &ObjectView) -> bool {
    let uid = &case.spec.uid;
    view.controller.as_ref() == Some(uid)
        || (name == build::GATEWAY && (view.owners.is_empty() || view.owners.contains(uid)))
}

fn view<'a>(case: &'a Case<'_>, kind: Kind, name: &str) -> Option<&'a ObjectView> {
    let worker = name == build::worker_name(&case.spec.name);
    match kind {
        Kind::ReplicaSet => None,
        Kind::Service => case.observed.services.get(name),
        Kind::HorizontalPodAutoscaler if name == build::GATEWAY => case.observed.gateway.autoscaler.as_ref(),
        Kind::HorizontalPodAutoscaler if worker => case.observed.worker_autoscaler.as_ref(),
        Kind::HorizontalPodAutoscaler => case.observed.autoscaler.as_ref(),
        Kind::Deployment => case.observed.worker.as_ref(),
        Kind::NetworkPolicy if name == build::GATEWAY => case.observed.gateway.network_policy.as_ref(),
        Kind::NetworkPolicy => case.observed.network_policies.get(name),
    }
}

/// I17: what was put back already is not put back again within a minute.
fn paused(case: &Case<'_>, desired: &Desired, broken: &mut Vec<String>) {
    let known = case.observed.disturbances.get(&desired.target());
    let early = known.is_some_and(|it| it.restored > 0 && it.applied == desired.stamp() && it.is_recent(case.now, 60));
    require(broken, !early, || format!("I17: {} is put back again within a minute", desired.target()));
}
