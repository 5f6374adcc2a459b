//! Checks the final state of a world.

use slipway_crds::conditions::{STALLED, reason};

use crate::behavior::ModelQuality;
use crate::invariants;
use crate::world::SimulatedWorld;

/// Checks the result of the last version.
pub(super) fn check_result(
    world: &mut SimulatedWorld,
    (version, quality, rival): (u32, ModelQuality, String),
) {
    let status = world.status();
    let version = format!("v{version}");
    let stable = status.stable.as_ref().map(|it| it.version.clone()).unwrap_or_default();
    let why = status
        .conditions
        .iter()
        .find(|it| it.type_ == "RolledBack")
        .map(|it| it.reason.clone())
        .unwrap_or_default();
    let Some(ours) = world.cluster.behaviors.get(&rival).copied() else {
        world.violations.push(format!("nothing serves in the end: {status:?}"));
        return;
    };
    let theirs = quality.behavior();
    // False rollbacks happen by chance, and are counted elsewhere.
    let by_chance = why == reason::GATE_FAILED;
    if quality == ModelQuality::Good && stable != version && !by_chance {
        world.violations.push(format!(
            "good {version} was not promoted over {rival}: {why} {:?}",
            status.rollout
        ));
    }
    // A rival whose pods cannot start is no basis for a comparison.
    let rival_works = ours.load_failure.is_none() && ours.crash == 0.0;
    let object = &world.cluster.object;
    let worse = invariants::is_judged(object) && invariants::is_worse(object, &theirs, &ours);
    if (theirs.load_failure.is_some() || worse) && rival_works && stable == version {
        world.violations.push(format!("bad {version} was promoted over {rival}"));
    }
    if theirs.load_failure.is_some() && rival_works && why != reason::MODEL_LOAD_FAILED {
        world.violations.push(format!("unloadable {version} is said to be {why:?}"));
    }
    let stalled_reason = status
        .conditions
        .iter()
        .find(|it| it.type_ == STALLED)
        .map(|it| it.reason.as_str())
        .unwrap_or_default();
    if world.faults.refused_kind.is_some() != (stalled_reason == reason::WRITE_REFUSED) {
        world.violations.push(format!(
            "{:?} is refused, and Stalled says {stalled_reason}",
            world.faults.refused_kind
        ));
    }
    if world.altered_count() > 0 {
        world.violations.push(format!(
            "{} objects are not as they were applied in the end",
            world.altered_count()
        ));
    }
    check_at_rest(world);
}

/// Checks that only the stable revision has pods, and that it has all of them.
fn check_at_rest(world: &mut SimulatedWorld) {
    let status = world.status();
    let serving = status.stable.map(|it| it.revision).unwrap_or_default();
    let Some(replicas) = world.cluster.object.spec.replicas else {
        return world.violations.push("nobody wrote spec.replicas".to_owned());
    };
    for set in &world.cluster.replica_sets {
        let want = if set.view.revision == serving { replicas } else { 0 };
        if set.view.desired != want {
            let line = format!(
                "{} has {} pods in the end instead of {want}",
                set.view.version, set.view.desired
            );
            world.violations.push(line);
        }
    }
    let limit =
        usize::try_from(world.cluster.object.spec.revision_history_limit).unwrap_or_default();
    if world.cluster.replica_sets.len() > limit + 2 {
        world.violations.push(format!("{} ReplicaSets are left", world.cluster.replica_sets.len()));
    }
}
