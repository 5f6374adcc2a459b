//! Restarts: `spec.restartTime`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use proptest::prelude::*;
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::observed::PodProblem;
use slipway_core::refusal::{RefusalCause, RefusalReport, WriteTarget};
use slipway_crds::v1alpha1::RolloutStage;
use slipway_objects::ManagedKind;

fn asked(world: &mut World) {
    let now = world.now.to_string();
    world.edit(json!({ "restartTime": now }));
}

/// A world at rest whose pods are older than a restart requested now.
fn restarted(spec: serde_json::Value) -> World {
    let mut world = World::serving(spec);
    world.pass(100);
    asked(&mut world);
    world
}

fn evicted(world: &World) -> Vec<String> {
    let actions = world.plan().actions;
    actions
        .into_iter()
        .filter_map(|it| if let PlanAction::Evict { name, .. } = it { Some(name) } else { None })
        .collect()
}

/// The ReplicaSet creates the missing pods; they are not ready yet.
fn pods_are_made(world: &mut World) {
    world.pods_follow();
    let now = world.now;
    let mut new = 0;
    for pod in world.observed.pods.iter_mut().filter(|pod| pod.created_at == now) {
        pod.ready = false;
        new += 1;
    }
    let set = world.set_mut("v1");
    (set.ready, set.available) = (set.desired - new, set.desired - new);
}

fn revision(world: &World) -> String {
    world.set("v1").revision.clone()
}

#[test]
fn pods_are_replaced_one_at_a_time() {
    let mut world = restarted(json!({}));
    let old: Vec<String> = world.observed.pods.iter().map(|pod| pod.name.clone()).collect();
    assert_eq!(old.len(), 3);
    for gone in &old {
        assert_eq!(evicted(&world), std::slice::from_ref(gone));
        world.step();
        assert!(evicted(&world).is_empty(), "the next one only when all are there");
        pods_are_made(&mut world);
        assert!(evicted(&world).is_empty(), "and ready");
        world.step();
        assert_eq!(world.says("Reconciling"), "True Restarting");
        world.pass(5);
        world.pods_follow();
    }
    let asked = world.observed.object.spec.restart_time.clone();
    world.settle();
    assert_eq!(
        (world.status().restarted_time, world.says("Reconciling").as_str()),
        (asked, "absent")
    );
    assert!(world.observed.pods.iter().all(|pod| !old.contains(&pod.name)));
}

#[test]
fn a_restart_that_is_over_is_not_done_again() {
    let mut world = restarted(json!({}));
    for _ in 0..6 {
        world.tick(5);
    }
    assert_eq!(world.status().restarted_time, world.observed.object.spec.restart_time);
    // A pod becomes unready for another reason than the restart, which does not affect the restart.
    world.observed.pods[0].ready = false;
    world.set_mut("v1").ready = 2;
    world.step();
    assert_eq!(world.says("Reconciling"), "True Degraded");
    world.edit(json!({ "restartTime": null }));
    world.settle();
    assert_eq!(world.status().restarted_time, None);
}

#[test]
fn a_pod_that_does_not_get_ready_ends_it_until_it_is() {
    let mut world = restarted(json!({ "strategy": { "progressDeadlineSeconds": 60 } }));
    world.step();
    pods_are_made(&mut world);
    let bad = world.observed.pods.iter().find(|pod| !pod.ready).unwrap().name.clone();
    let wake = world.plan().wake_at.unwrap();
    assert_eq!(wake.duration_since(world.now).as_secs(), 60);
    world.pass(60);
    let revision = revision(&world);
    world.observed.pod_problems = vec![PodProblem {
        revision,
        pod: bad.clone(),
        reason: "CreateContainerConfigError".into(),
        message: "secret \"a\" not found".into(),
        restarts: 0,
    }];
    world.step();
    assert_eq!(world.says("Stalled"), "True RestartStalled");
    let message = world.condition("Stalled").message.clone();
    assert!(message.contains(&bad) && message.contains("secret \"a\" not found"), "{message}");
    assert_eq!(world.says("Ready"), "True Stable");
    assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
    for _ in 0..5 {
        world.pass(600);
        assert!(evicted(&world).is_empty());
    }
    // A new request replaces it, and no serving pod is evicted before it is ready.
    asked(&mut world);
    assert_eq!(evicted(&world), [bad]);
    world.step();
    pods_are_made(&mut world);
    assert!(evicted(&world).is_empty());
}

#[test]
fn pods_that_do_not_serve_go_first_and_cost_nothing() {
    let mut world = restarted(json!({}));
    let name = world.observed.pods[2].name.clone();
    world.observed.pods[2].ready = false;
    let set = world.set_mut("v1");
    (set.ready, set.available) = (2, 2);
    assert_eq!(evicted(&world), [name]);
}

#[test]
fn a_moment_to_come_is_waited_for() {
    let mut world = World::serving(json!({}));
    world.pass(100);
    let later = world.now + jiff::SignedDuration::from_secs(50);
    world.edit(json!({ "restartTime": later.to_string() }));
    let plan = world.step();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.wake_at, Some(later));
    world.pass(50);
    assert_eq!(evicted(&world).len(), 1);
}

#[test]
fn a_restart_waits_for_the_end_of_a_rollout() {
    let mut world =
        World::serving(json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }] } } }));
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
    world.pass(1);
    asked(&mut world);
    let plan = world.step();
    assert!(!plan.actions.iter().any(|action| matches!(action, PlanAction::Evict { .. })));
    assert!(world.condition("Reconciling").message.contains("waits for its end"));
    world.finish();
    for _ in 0..10 {
        world.tick(60);
    }
    world.settle();
    assert_eq!(world.status().restarted_time, world.observed.object.spec.restart_time);
}

#[test]
fn a_budget_that_holds_a_pod_is_a_reason_to_wait() {
    let mut world = restarted(json!({}));
    let message = "evict Pod a: held by a disruption budget: Cannot evict pod".to_owned();
    let target = WriteTarget { verb: "evict", kind: "Pod", name: "a".to_owned() };
    let report = RefusalReport { cause: RefusalCause::Budget, message };
    world.observed.refusals = Some([(target, report)].into());
    world.observed.object.status = Some(world.plan().status);
    assert_eq!(
        (world.says("Stalled").as_str(), world.says("Reconciling").as_str()),
        ("absent", "True Restarting")
    );
    assert!(world.condition("Reconciling").message.contains("Cannot evict pod"));
}

#[test]
fn a_budget_of_nothing_is_said_and_not_run_against() {
    for budget in [json!(0), json!("0%")] {
        let mut world =
            restarted(json!({ "replicas": 1, "disruptionBudget": { "maxUnavailable": budget } }));
        world.step();
        assert!(evicted(&world).is_empty());
        assert_eq!(world.says("Stalled"), "True RestartStalled");
        assert!(
            world.condition("Stalled").message.contains("spec.disruptionBudget.maxUnavailable")
        );
        world.edit(json!({ "disruptionBudget": { "maxUnavailable": 1 } }));
        world.step();
        assert_eq!(world.says("Stalled"), "absent");
    }
}

#[test]
fn the_only_pod_is_replaced_too() {
    let mut world = restarted(json!({ "replicas": 1 }));
    assert_eq!(evicted(&world).len(), 1);
    for _ in 0..4 {
        world.tick(5);
    }
    assert_eq!(world.status().restarted_time, world.observed.object.spec.restart_time);
}

fn worker_hash(world: &World) -> String {
    let worker = world.observed.child(ManagedKind::Deployment, "digits-worker");
    worker.unwrap().applied_hash.clone()
}

#[test]
fn workers_follow_by_their_template() {
    let queue = json!({ "server": { "queue": { "redis": { "url": "redis://r:6379" } } } });
    let mut world = World::serving(queue);
    let before = worker_hash(&world);
    world.pass(100);
    asked(&mut world);
    world.step();
    assert_ne!(worker_hash(&world), before);
    world.tick(5);
    let after = worker_hash(&world);
    world.settle();
    assert_eq!(worker_hash(&world), after);
}

fn images(world: &World) -> Vec<&str> {
    world.set("v1").images.values().map(String::as_str).collect()
}

#[test]
fn a_newer_image_is_told_and_comes_with_a_restart() {
    let mut world = World::serving(json!({}));
    world.observed.settings.runtime_image = "runtime:2".into();
    world.pass(100);
    world.settle();
    assert_eq!(
        (world.says("OutdatedImage").as_str(), world.says("Ready").as_str()),
        ("True ImageChanged", "True Stable")
    );
    let message = world.condition("OutdatedImage").message.clone();
    for word in ["runtime:1", "runtime:2", "kubectl slipway restart digits", "spec.restartTime"] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(
        images(&world),
        ["runtime:1", "runtime:1"],
        "an upgrade of the operator restarts nothing"
    );
    let revision = revision(&world);
    asked(&mut world);
    assert!(evicted(&world).is_empty(), "first the template");
    world.step();
    assert_eq!(images(&world), ["runtime:2", "runtime:2"]);
    assert!(!world.set("v1").deleting && world.set("v1").revision == revision);
    assert_eq!(evicted(&world).len(), 1);
    world.set_mut("v1").is_observed = false;
    assert!(
        evicted(&world).is_empty(),
        "the controller may still make pods of the former template"
    );
    world.set_mut("v1").is_observed = true;
    // The newer pod does not become ready: it costs one pod.
    world.step();
    pods_are_made(&mut world);
    for _ in 0..5 {
        world.pass(600);
        world.step();
        assert!(evicted(&world).is_empty());
    }
    assert_eq!(
        (world.says("Stalled").as_str(), world.says("OutdatedImage").as_str()),
        ("True RestartStalled", "absent")
    );
    assert_eq!(world.observed.pods.iter().filter(|pod| pod.ready).count(), 2);
}

#[test]
fn an_image_that_somebody_names_is_never_outdated() {
    let server = json!({ "template": { "spec": { "containers": [{ "name": "server", "image": "mine:1" }] } } });
    let mut world = World::serving(server);
    world.observed.settings.runtime_image = "runtime:2".into();
    world.settle();
    assert_eq!(world.says("OutdatedImage"), "absent");
}

#[test]
fn the_redis_beside_a_server_is_outdated_too() {
    let cache = json!({ "server": { "cache": { "results": {}, "sidecar": {} } } });
    let mut world = World::serving(cache);
    world.observed.settings.redis_image = "redis:2".into();
    world.settle();
    let message = world.condition("OutdatedImage").message.clone();
    assert!(
        message.contains("redis:1") && message.contains("redis:2") && !message.contains("runtime"),
        "{message}"
    );
}

proptest! {
    /// Whatever happens to the pods, a serving one is evicted only while all serve: a restart costs
    /// at most one pod.
    #[test]
    fn a_restart_costs_one_pod_at_most(
        replicas in 1..6_usize,
        rounds in proptest::collection::vec((0..8_usize, any::<bool>(), 0..90_i64), 1..60),
    ) {
        let mut world = restarted(json!({ "replicas": replicas }));
        let ready = |world: &World| world.observed.pods.iter().filter(|pod| pod.ready).count();
        for (index, becomes_ready, seconds) in rounds {
            let before = ready(&world);
            world.step();
            let after = ready(&world);
            prop_assert!(after == before || (before == replicas && after == replicas - 1), "{before} to {after} of {replicas}");
            world.pass(seconds + 1);
            pods_are_made(&mut world);
            if let Some(pod) = world.observed.pods.get_mut(index) {
                pod.ready = becomes_ready;
            }
            let now = i32::try_from(ready(&world)).unwrap();
            let set = world.set_mut("v1");
            (set.ready, set.available) = (now, now);
        }
    }
}
