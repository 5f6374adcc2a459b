//! The status: its stored state, its messages, and what happens when it is lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{World, stored};
use serde_json::json;
use slipway_core::observed::{GatewayReport, ReplicaSetView};
use slipway_crds::v1alpha1::{ModelDeploymentStatus, RolloutStage};
use slipway_objects::{ManagedKind, ObjectTarget};

fn canary() -> World {
    let mut world = World::serving(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }, { "setWeight": 50 }] } } }),
    );
    world.version("v2");
    world
}

/// Requests as the gateways count them.
fn requests(world: &mut World, counts: &[(&str, u64)]) {
    let counts: Vec<_> = counts
        .iter()
        .map(|(version, count)| (world.set(version).revision.clone(), *count))
        .collect();
    for pod in &mut world.observed.gateway.pods {
        let report = pod.report.get_or_insert_with(GatewayReport::default);
        report.requests = counts.iter().cloned().collect();
    }
}

#[test]
fn a_lost_status_in_the_middle_keeps_stable_and_starts_the_candidate_again() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 1);
    let generation = world.status().traffic.unwrap().generation;
    requests(&mut world, &[("v1", 100), ("v2", 100)]);
    world.observed.object.status = None;
    world.step();
    assert_eq!((world.stable().as_str(), world.weights()), ("v1", vec![("v1".to_owned(), 1000)]));
    assert!(
        world.status().traffic.unwrap().generation > generation,
        "no old report may count as a confirmation"
    );
    let rollout = world.status().rollout.unwrap();
    assert_eq!((rollout.stage, rollout.step_index), (RolloutStage::Scaling, 0));
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_lost_status_after_promotion_finds_the_promoted_revision() {
    let mut world = canary();
    world.finish();
    world.tick(60);
    world.settle();
    requests(&mut world, &[("v2", 100)]);
    world.observed.object.status = None;
    world.settle();
    assert_eq!((world.stable().as_str(), world.stage()), ("v2", None));
}

#[test]
fn a_lost_status_during_probation_is_no_promotion() {
    let mut world = canary();
    world.edit(json!({ "strategy": { "probationSeconds": 1000 } }));
    world.until(RolloutStage::Probation, 2);
    requests(&mut world, &[("v2", 100)]);
    world.observed.object.status = None;
    world.step();
    assert_eq!((world.stable().as_str(), world.weights()), ("v1", vec![("v1".to_owned(), 1000)]));
}

/// Regression: after the loss of its status, a revision that had been rolled back was started again
/// at 5 %.
#[test]
fn a_lost_status_does_not_start_again_what_was_taken_back() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.errors((60.0, 60.0), (0.0, 600.0));
    world.tick(1);
    world.settle();
    let before = world.status().rollout.unwrap();
    assert_eq!(before.stage, RolloutStage::Aborted, "{before:#?}");
    world.observed.object.status = None;
    for _ in 0..100 {
        world.tick(1);
        assert_eq!(
            (world.weights(), world.stage()),
            (vec![("v1".to_owned(), 1000)], Some(RolloutStage::Aborted))
        );
    }
    let abort = world.status().rollout.and_then(|rollout| rollout.abort).unwrap();
    assert_eq!(Some(abort.reason), before.abort.map(|abort| abort.reason));
    assert_eq!(world.says("RolledBack"), "True GateFailed");
    // A user may still retry it, and the mark is then removed.
    world.command("retry", "1");
    world.step();
    assert_eq!(
        (world.stage(), &world.set("v2").marks.aborted),
        (Some(RolloutStage::Scaling), &None)
    );
}

/// If the spec is back at stable, the rolled-back candidate may still have pods, but it is not what
/// served.
#[test]
fn a_lost_status_does_not_choose_what_was_taken_back() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 1);
    world.command("abort", "1");
    world.step();
    world.version("v1");
    world.observed.object.status = None;
    world.step();
    assert_eq!((world.stable().as_str(), world.weights()), ("v1", vec![("v1".to_owned(), 1000)]));
}

/// Simulator, seed 1365: the only pod was missing when the status was lost, another version came,
/// and the revision that had served was scaled to 0 as soon as its pod was back.
#[test]
fn a_lost_status_while_nothing_answers_forgets_nothing() {
    let mut world = World::serving(json!({}));
    let set = world.set_mut("v1");
    (set.ready, set.available) = (0, 0);
    world.observed.object.status = None;
    world.step();
    assert_eq!(world.stable(), "v1");
    world.version("v2");
    world.step();
    assert_eq!((world.stable().as_str(), world.size("v1")), ("v1", 3));
}

#[test]
fn of_several_that_were_stable_the_last_one_is() {
    let mut world = canary();
    world.finish();
    assert!(world.set("v1").marks.stable_since < world.set("v2").marks.stable_since);
    world.observed.object.status = None;
    world.step();
    assert_eq!(
        (world.stable().as_str(), world.weights()),
        ("v2", vec![("v2".to_owned(), 1000)]),
        "v1 still has its pods"
    );
}

#[test]
fn a_lost_rollout_starts_again_at_the_first_step() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 1);
    world.observed.object.status.as_mut().unwrap().rollout = None;
    world.step();
    assert_eq!(world.weights()[1].1, 50);
    assert_eq!(
        world.status().rollout.map(|it| (it.stage, it.step_index)),
        Some((RolloutStage::Confirming, 0))
    );
}

#[test]
fn a_status_from_a_backup_outgrows_what_gateways_have() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    let backup = world.status();
    world.until(RolloutStage::Analyzing, 1);
    let newest = world.status().traffic.unwrap().generation;
    world.observed.object.status = Some(backup);
    world.step();
    assert!(world.status().traffic.unwrap().generation > newest);
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_stable_replica_set_that_was_deleted_is_made_again_when_its_content_is_known() {
    let mut world = World::serving(json!({}));
    world.observed.replica_sets.clear();
    world.step();
    assert_eq!((world.size("v1"), world.stable().as_str()), (3, "v1"));
}

#[test]
fn without_stable_the_traffic_goes_to_what_is_left() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 1);
    let stable = world.status().stable.unwrap().revision;
    world.observed.replica_sets.retain(|set| set.revision != stable);
    world.step();
    assert_eq!((world.stable().as_str(), world.weights()), ("v2", vec![("v2".to_owned(), 1000)]));
    world.settle();
    assert_eq!(world.size("v2"), 3);
}

#[test]
fn an_identical_spec_does_nothing() {
    let mut world = World::serving(json!({}));
    *world.observed.object.metadata.generation.as_mut().unwrap() += 1;
    world.settle();
    assert_eq!(world.writes, ["status"], "only the observed generation moved");
}

#[test]
fn conditions_are_always_whole_and_keep_their_times() {
    let mut world = canary();
    let mut old: Option<ModelDeploymentStatus> = None;
    for _ in 0..40 {
        if world.stage() == Some(RolloutStage::Analyzing) {
            world.good();
        }
        world.tick(1);
        let status = world.status();
        for condition in &status.conditions {
            assert!(!condition.reason.is_empty() && !condition.message.is_empty());
            let old = old.iter().flat_map(|old| &old.conditions);
            if let Some(before) = old.into_iter().find(|old| old.type_ == condition.type_) {
                let flipped = before.status != condition.status;
                assert!(flipped || before.last_transition_time == condition.last_transition_time);
            }
        }
        old = Some(status);
    }
    assert_eq!(world.stable(), "v2");
}

#[test]
fn people_see_what_is_waited_for() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    let status = world.status();
    let candidate = status.candidate.unwrap();
    assert_eq!((candidate.version.as_str(), candidate.weight.as_str()), ("v2", "5%"));
    assert_eq!(status.stable.unwrap().weight, "95%");
    assert_eq!(status.rollout.unwrap().step, "1/3");
    world.pass(1);
    world.errors((0.0, 30.0), (0.0, 570.0));
    world.step();
    let message = world.condition("Reconciling").message;
    assert!(message.contains("5%") && message.contains("errors"), "{message}");
    let mut world = canary();
    world.step();
    assert!(world.condition("Reconciling").message.contains("0 of 1 pods"));
}

#[test]
fn the_status_comes_back_from_the_api_server_as_it_was_written() {
    let mut world = canary();
    world.now += jiff::SignedDuration::from_millis(123);
    for _ in 0..40 {
        if world.stage() == Some(RolloutStage::Analyzing) {
            world.good();
        }
        let plan = world.tick(1);
        assert_eq!(
            stored(&plan.status),
            plan.status,
            "whole seconds, or every look would be a change"
        );
    }
}

#[test]
fn old_revisions_beyond_the_history_are_deleted_with_their_service() {
    let mut world = World::serving(
        json!({ "revisionHistoryLimit": 1, "strategy": { "canary": { "steps": [{ "setWeight": 50 }] } } }),
    );
    for version in ["v2", "v3", "v4"] {
        world.version(version);
        world.step();
        world.finish();
        world.tick(60);
        world.pass(60);
        world.settle();
    }
    let versions: Vec<_> = world.sizes();
    assert_eq!(versions, [("v3".to_owned(), 0), ("v4".to_owned(), 3)]);
    let services = world.observed.children_of(ManagedKind::Service);
    let services = services.filter(|(name, _)| name.starts_with("digits-")).count();
    assert_eq!(services, 2);
}

/// Regression: up to ten old ReplicaSets of the workers' Deployment, which have the labels of their
/// revisions, each kept a headless Service.
#[test]
fn replica_sets_of_workers_keep_no_service_of_an_old_revision() {
    let canary = json!({ "steps": [{ "setWeight": 50 }] });
    let mut world =
        World::serving(json!({ "revisionHistoryLimit": 0, "strategy": { "canary": canary } }));
    let old = world.set("v1").clone();
    let of_workers =
        ReplicaSetView { name: "digits-worker-5d4f".to_owned(), owned: false, ..old.clone() };
    world.observed.replica_sets.push(of_workers);
    // The Service outlives its ReplicaSet where only one of the two deletions was done.
    let target = ObjectTarget::new(ManagedKind::Service, &old.name);
    let service = world.observed.children[&target].clone();
    world.version("v2");
    world.step();
    world.finish();
    world.tick(60);
    world.pass(60);
    world.settle();
    assert_eq!(world.observed.replica_sets.iter().filter(|set| set.name == old.name).count(), 0);
    world.observed.children.insert(target, service);
    world.settle();
    assert!(world.observed.child(ManagedKind::Service, &old.name).is_none(), "{:?}", world.writes);
}

#[test]
fn the_observed_share_is_told_and_is_no_reason_to_write() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    requests(&mut world, &[("v1", 949), ("v2", 51)]);
    world.writes.clear();
    world.step();
    assert!(world.writes.is_empty());
    world.good();
    world.step();
    let record = world.status().rollout.unwrap().steps[0].clone();
    assert_eq!(record.observed_permille, Some(51));
    assert!(record.verdict.contains("errors"), "{}", record.verdict);
}

#[test]
fn an_object_that_goes_is_left_alone() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.observed.object.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    let plan = world.plan();
    assert!(plan.actions.is_empty() && plan.events.is_empty());
    assert_eq!(Some(plan.status), world.observed.object.status);
}

/// Found by `any_situation_has_a_plan_that_keeps_the_invariants`.
#[test]
fn what_was_taken_back_is_told_although_the_status_lost_why() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 1);
    world.command("abort", "1");
    world.settle();
    let status = world.observed.object.status.as_mut().unwrap();
    status.rollout.as_mut().unwrap().abort = None;
    world.settle();
    assert!(
        world.condition("Stalled").message.contains("taken back"),
        "{:?}",
        world.condition("Stalled")
    );
    assert_eq!(world.stage(), Some(RolloutStage::Aborted));
}
