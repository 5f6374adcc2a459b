//! Weights that gateways do not confirm.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use jiff::SignedDuration;
use serde_json::json;
use slipway_core::observed::UnreachableGateway;
use slipway_core::traffic::CONFIRMATION_SECONDS;
use slipway_crds::v1alpha1::RolloutStage;

/// A rollout whose first weight is written and not confirmed yet.
fn written() -> World {
    let mut world = World::serving(json!({}));
    world.version("v2");
    for _ in 0..20 {
        world.step();
        world.pods_follow();
        if world.stage() == Some(RolloutStage::Confirming) {
            return world;
        }
        world.gateways_follow();
        world.pass(1);
    }
    panic!("no weight is written: {:#?}", world.status());
}

fn lose(world: &mut World, index: usize) {
    let since = world.now;
    let pod = &mut world.observed.gateway.pods[index];
    pod.report = None;
    pod.unreachable =
        Some(UnreachableGateway { since, error: "10.0.0.7:9091: no connection: refused".into() });
}

fn all_at_stable(world: &World) -> bool {
    world.weights() == [("v1".to_owned(), 1000)]
}

/// Case 3: a canary kept its share permanently without being judged.
#[test]
fn weights_that_are_not_confirmed_go_back_without_blame_and_come_again() {
    let mut world = written();
    world.gateway_follows(0);
    let wake = world.step().wake_at.unwrap();
    assert!(wake <= world.now + SignedDuration::from_secs(CONFIRMATION_SECONDS), "{wake}");
    world.pass(CONFIRMATION_SECONDS - 5);
    world.step();
    assert_eq!(world.weights(), [("v1".to_owned(), 950), ("v2".to_owned(), 50)], "not yet");
    world.pass(5);
    world.step();
    assert!(all_at_stable(&world), "{:?}", world.weights());
    assert_eq!(
        (world.stage(), world.status().rollout.unwrap().abort),
        (Some(RolloutStage::Scaling), None),
        "no blame"
    );
    let event = world.events.iter().find(|event| event.starts_with("GatewaysUnreachable")).unwrap();
    assert!(event.contains("gateway gateway-b still uses generation"), "{event}");

    world.gateway_follows(0);
    world.pass(11);
    world.step();
    assert!(all_at_stable(&world), "one of two has confirmed that all is at stable");
    assert_eq!(world.says("Reconciling"), "True GatewaysUnreachable");
    world.gateways_follow();
    world.until(RolloutStage::Analyzing, 0);
    assert_eq!(world.weights(), [("v1".to_owned(), 950), ("v2".to_owned(), 50)]);
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_gateway_that_is_not_heard_is_named_with_its_port_and_the_error() {
    let mut world = written();
    world.gateway_follows(0);
    lose(&mut world, 1);
    world.pass(11);
    world.step();
    let message = world.condition("Reconciling").message;
    for word in ["1 of 2 gateways", "gateway-b", "10.0.0.7:9091", "refused"] {
        assert!(message.contains(word), "{message}");
    }
    world.pass(CONFIRMATION_SECONDS);
    world.step();
    assert!(all_at_stable(&world));
    assert!(
        world.events.iter().any(|event| event.contains("10.0.0.7:9091: no connection: refused"))
    );
}

/// The absence of the operator itself must not revert weights, because it received no reports.
#[test]
fn an_operator_that_was_away_listens_first() {
    let mut world = written();
    world.pass(3600);
    lose(&mut world, 0);
    lose(&mut world, 1);
    world.step();
    assert!(!all_at_stable(&world), "it has just begun to listen");
    world.gateways_follow();
    world.until(RolloutStage::Analyzing, 0);
    assert!(
        !world.events.iter().any(|event| event.starts_with("GatewaysUnreachable")),
        "{:#?}",
        world.events
    );
}

#[test]
fn nothing_goes_to_a_candidate_while_a_gateway_is_not_heard() {
    let mut world = World::serving(json!({}));
    lose(&mut world, 1);
    world.version("v2");
    for _ in 0..300 {
        world.step();
        world.pods_follow();
        world.pass(1);
    }
    assert!(all_at_stable(&world));
    assert_eq!(world.says("Reconciling"), "True GatewaysUnreachable");
    assert!(world.condition("Reconciling").message.contains("10.0.0.7:9091"));
    let (before, held) = (world.writes.len(), world.weights());
    for _ in 0..100 {
        world.tick(0);
        if world.weights() != held {
            break;
        }
    }
    assert!(world.writes.len() > before && !all_at_stable(&world), "it goes on when all are heard");
}

/// While no gateway is ready no requests are sent, so weights do not change.
#[test]
fn no_gateway_at_all_takes_nothing_back() {
    let mut world = written();
    for pod in &mut world.observed.gateway.pods {
        pod.ready = false;
    }
    world.pass(10 * CONFIRMATION_SECONDS);
    world.step();
    assert!(!all_at_stable(&world));
}

/// Large requests cannot be sent again, so the candidate receives none, and nothing is judged. The
/// condition gives the cause and the remedy.
#[test]
fn a_step_without_evidence_says_when_requests_are_too_large() {
    let mut world = World::serving(json!({ "traffic": { "maxRequestSize": "1M" } }));
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
    let said = |world: &mut World| {
        world.step();
        world.condition("Reconciling").message
    };
    assert!(!said(&mut world).contains("maxRequestSize"));
    let stable = world.status().stable.unwrap().revision;
    for (unshielded, part) in [(3, "some"), (20, "many"), (80, "most"), (100, "all")] {
        for pod in &mut world.observed.gateway.pods {
            let report = pod.report.as_mut().unwrap();
            report.unshielded = unshielded;
            report.requests.insert(stable.clone(), 100);
        }
        let said = said(&mut world);
        assert!(said.contains(&format!("{part} requests go to stable only")), "{said}");
        assert!(said.contains("spec.traffic.maxRequestSize is 1M"), "{said}");
    }
}
