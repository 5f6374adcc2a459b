//! Random changes and faults, and the expected final state.

mod random;
mod result;

use jiff::SignedDuration;
use random::{random_faults, random_object};
use result::check_result;
use serde_json::json;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{ModelDeployment, RolloutStage};

use crate::behavior::ModelQuality;
use crate::clock::START;
use crate::rng::SeededRng;
use crate::store::model_digest;
use crate::world::SimulatedWorld;
use crate::{SeedOutcome, invariants};

/// Seconds with faults.
const CHAOS_SECONDS: i64 = 270;
/// Seconds within which the last rollout must end without faults.
const CALM_SECONDS: i64 = 500;
/// Seconds after the last fault for which the status may still report contested objects.
const CONTESTED_SECONDS: i64 = 200;
/// Seconds at the end in which nothing may happen.
const REST_SECONDS: i64 = 40;

/// Runs one seed.
pub(crate) fn play_seed(seed: u64) -> SeedOutcome {
    let mut rng = SeededRng::new(seed ^ 0xdead_beef);
    let mut world = SimulatedWorld::new(random_object(&mut rng), seed);
    world.set_behavior("v1", ModelQuality::Good.behavior());
    for _ in 0..60 {
        world.tick();
    }
    world.faults = random_faults(&mut rng);
    if let Some(kind) = world.faults.refused_kind {
        world.cluster.delete_child(kind);
    }
    let mut versions = 1;
    // A separate generator, so that the worlds of earlier seeds do not change.
    let mut restarts = SeededRng::new(seed ^ 0x07e5_7a27);
    for _ in 0..CHAOS_SECONDS {
        if restarts.chance(1.0 / 120.0) {
            request_restart(&mut world);
        }
        if rng.chance(1.0 / 25.0) {
            act_randomly(&mut world, &mut rng, &mut versions);
        }
        world.tick();
    }
    world.end_faults();
    // The scripts test the results of restarts; here they only must not break anything.
    world.edit("no restart", |object| object.spec.restart_time = None);
    let healed = world.now;
    let last = run_finale(&mut world, &mut rng, versions + 1);
    // Wait until the status reports no contested objects any more.
    while world.now < healed + CONTESTED_SECONDS {
        world.tick();
    }
    let before = world.cost().1;
    for _ in 0..REST_SECONDS {
        world.tick();
    }
    let after = world.cost().1;
    let serving =
        world.status().stable.and_then(|it| world.cluster.behaviors.get(&it.version).copied());
    // Crashing pods cause writes.
    if after != before && serving.is_some_and(|it| it.crash == 0.0) {
        world.violations.push(format!("{} writes while nothing happens", after - before));
    }
    check_result(&mut world, last);
    let (plans, writes) = world.cost();
    let (bad, good) = (world.invariants.bad, world.invariants.good);
    SeedOutcome {
        violations: world.violations,
        transcript: world.transcript,
        bad,
        good,
        plans,
        writes,
    }
}

/// An action of a user or the autoscaler.
fn act_randomly(world: &mut SimulatedWorld, rng: &mut SeededRng, versions: &mut u32) {
    let nonce = rng.next_number().to_string();
    // Half of the users use the kubectl plug-in, whose commands name their revision and step, as
    // they were a moment ago.
    let nonce = if rng.chance(0.5) { bound_value(world, &nonce) } else { nonce };
    match rng.between(0, 11) {
        0..=3 => {
            *versions += 1;
            let kinds = [
                ModelQuality::Good,
                ModelQuality::Good,
                ModelQuality::Errors,
                ModelQuality::Wrong,
                ModelQuality::Hanging,
                ModelQuality::Deserted,
                ModelQuality::Unloadable,
                ModelQuality::Stuck,
                ModelQuality::Crashing,
            ];
            let quality = detectable_quality(world, rng.pick(&kinds));
            ship_version(world, *versions, quality);
        }
        4 => ship_again(world, rng.between(1, i64::from(*versions)) as u32),
        5 => give_command(world, "abort", &nonce),
        6 => give_command(world, "retry", &nonce),
        // No user promotes a version that never answers.
        7 | 8 if is_hanging(world) => {}
        7 => {
            order_promotion(world);
            give_command(world, "promote", &nonce);
        }
        8 if rng.chance(0.3) => {
            order_promotion(world);
            give_command(world, "promote-full", &nonce);
        }
        9 if rng.chance(0.5) => {
            let kind = rng.pick(&["pause", "resume"]);
            give_command(world, kind, &nonce);
        }
        9 => {
            let paused = rng.chance(0.3);
            world.edit(&format!("paused {paused}"), |object| object.spec.paused = paused);
        }
        _ => {
            // Sometimes the field is removed.
            let replicas = Some(rng.between(0, 8) as i32).filter(|replicas| *replicas > 0);
            world.edit(&format!("replicas {replicas:?}"), |object| object.spec.replicas = replicas);
        }
    }
}

/// A user requests a restart.
fn request_restart(world: &mut SimulatedWorld) {
    let time = (START + SignedDuration::from_secs(world.now)).to_string();
    world.edit(&format!("restart {time}"), |object| {
        object.spec.restart_time = serde_json::from_value(json!(time)).ok();
    });
}

/// A version without counted failures can only be detected at a judged step.
fn detectable_quality(world: &SimulatedWorld, quality: ModelQuality) -> ModelQuality {
    let judged = invariants::is_judged(&world.cluster.object);
    if quality == ModelQuality::Deserted && !judged { ModelQuality::Hanging } else { quality }
}

/// Whether the version of the spec never answers.
fn is_hanging(world: &SimulatedWorld) -> bool {
    let version = world.cluster.object.spec.model.version.as_ref();
    version
        .and_then(|version| world.cluster.behaviors.get(version))
        .is_some_and(|truth| truth.hangs)
}

/// From now on a promotion of this version is no error of the judge.
fn order_promotion(world: &mut SimulatedWorld) {
    let version = world.cluster.object.spec.model.version.clone().unwrap_or_default();
    world.invariants.ordered_promotions.insert(version);
}

fn ship_version(world: &mut SimulatedWorld, version: u32, quality: ModelQuality) {
    world.set_behavior(&format!("v{version}"), quality.behavior());
    world.edit(&format!("ship v{version} ({quality:?})"), |object| set_version(object, version));
}

fn ship_again(world: &mut SimulatedWorld, version: u32) {
    world.edit(&format!("ship v{version} again"), |object| set_version(object, version));
}

pub(crate) fn set_version(object: &mut ModelDeployment, version: u32) {
    object.spec.model.version = Some(format!("v{version}"));
    object.spec.model.uri = format!("http://store/v{version}");
    // A user who sets one digest sets all.
    if object.spec.model.digest.is_some() {
        object.spec.model.digest = Some(model_digest(&format!("v{version}"), 0));
    }
}

/// A command value for the current revision and step.
fn bound_value(world: &SimulatedWorld, nonce: &str) -> String {
    let Some(rollout) = world.status().rollout else { return nonce.to_owned() };
    format!("{}/{}/{nonce}/ann", rollout.revision, rollout.step_index)
}

pub(crate) fn give_command(world: &mut SimulatedWorld, command: &str, nonce: &str) {
    world.edit(command, |object| {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(format!("{}{command}", labels::PREFIX), nonce.to_owned());
    });
}

/// The last rollout, without faults, with a user who ends pauses. Returns the new version, its
/// kind, and the stable version that it replaces.
fn run_finale(
    world: &mut SimulatedWorld,
    rng: &mut SeededRng,
    version: u32,
) -> (u32, ModelQuality, String) {
    let kinds = [
        ModelQuality::Good,
        ModelQuality::Good,
        ModelQuality::Good,
        ModelQuality::Errors,
        ModelQuality::Hanging,
        ModelQuality::Deserted,
        ModelQuality::Unloadable,
    ];
    let quality = detectable_quality(world, rng.pick(&kinds));
    world.edit("resume", |object| object.spec.paused = false);
    // Also wait until a suspended operator has restored a deleted status.
    for second in 0..100 {
        if second >= 20 && world.status().stable.is_some() {
            break;
        }
        world.tick();
    }
    let stable = world.status().stable.map(|it| it.version).unwrap_or_default();
    ship_version(world, version, quality);
    let mut over = 0;
    for second in 0..CALM_SECONDS {
        let waits = world
            .status()
            .rollout
            .is_some_and(|it| matches!(it.stage, RolloutStage::Paused | RolloutStage::Preview));
        if waits && second % 40 == 39 {
            give_command(world, "promote", &second.to_string());
        }
        world.tick();
        // Soon after the end the old pods must be gone, too.
        over = if world.status().rollout.is_none_or(|it| it.stage == RolloutStage::Aborted) {
            over + 1
        } else {
            0
        };
        if over > 45 {
            break;
        }
    }
    (version, quality, stable)
}
