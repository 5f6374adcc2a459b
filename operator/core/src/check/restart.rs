//! Invariants about the eviction of pods.

use slipway_crds::v1alpha1::RolloutStage;

use super::{CheckedPlan, report_unless};
use crate::action::PlanAction;

/// I19.
pub(super) fn check_restart(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let evicted = case.plan.actions.iter().filter_map(|action| match action {
        PlanAction::Evict { name, uid } => Some((name, uid)),
        _ => None,
    });
    for (index, (name, uid)) in evicted.enumerate() {
        report_unless(broken, index == 0, || format!("I19: {name} is evicted besides another pod"));
        check_eviction(case, name, uid, broken);
    }
}

fn check_eviction(case: &CheckedPlan<'_>, name: &str, uid: &str, broken: &mut Vec<String>) {
    let busy = case.new.rollout.as_ref().is_some_and(|it| it.stage != RolloutStage::Aborted);
    report_unless(broken, !busy, || format!("I19: {name} is evicted during a rollout"));
    let found =
        case.observed.pods.iter().find(|pod| pod.name == name && pod.uid == uid && !pod.deleting);
    let stable = case.new.stable.as_ref().map(|it| it.revision.as_str());
    let sets = || {
        case.observed.replica_sets.iter().filter(|set| set.owned && !set.orphaned && !set.deleting)
    };
    let set =
        found.and_then(|pod| sets().find(|set| pod.replica_set_uid.as_ref() == Some(&set.uid)));
    let (Some(pod), Some(set)) = (found, set.filter(|set| Some(set.revision.as_str()) == stable))
    else {
        broken.push(format!("I19: {name} is evicted and is no pod of the stable revision"));
        return;
    };
    let asked = case
        .observed
        .object
        .spec
        .restart_time
        .as_ref()
        .map(|time| time.0)
        .filter(|time| *time <= case.now);
    report_unless(broken, asked.is_some_and(|asked| pod.created_at < asked), || {
        format!("I19: {name} is evicted and is newer than the restart")
    });
    let all = || {
        case.observed
            .pods
            .iter()
            .filter(|it| it.replica_set_uid == pod.replica_set_uid && !it.deleting)
    };
    let new = all().all(|it| it.ready || asked.is_some_and(|asked| it.created_at < asked));
    report_unless(broken, new, || format!("I19: {name} is evicted while a new pod is not ready"));
    let ready = i32::try_from(all().filter(|it| it.ready).count()).unwrap_or(i32::MAX);
    report_unless(broken, !pod.ready || ready >= set.desired, || {
        format!("I19: {name} is evicted with {ready} of {} pods ready", set.desired)
    });
}
