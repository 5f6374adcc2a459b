//! Settings of administrators for gateways, and the resulting objects.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::{Value, json};
use slipway_core::action::PlanAction;
use slipway_objects::desired::DesiredObject;
use slipway_objects::gateway_settings::GatewaySettings;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget};

fn settings(value: &Value) -> GatewaySettings {
    serde_json::from_value(value.clone()).unwrap()
}

fn say(world: &mut World, value: &Value) {
    settings(value).apply_to(&mut world.observed.settings).unwrap();
}

/// The gateway's objects of a kind that a plan applies, as JSON.
fn applied(world: &World, kind: ManagedKind) -> Option<Value> {
    let of = |desired: &DesiredObject| desired.target() == ObjectTarget::new(kind, GATEWAY);
    world.plan().actions.into_iter().find_map(|action| match action {
        PlanAction::Apply(desired) if of(&desired) => Some(desired.to_json()),
        PlanAction::Restore { desired, .. } if of(&desired) => Some(desired.to_json()),
        _ => None,
    })
}

#[test]
fn what_a_namespace_says_wins_and_templates_are_merged() {
    let chart = settings(&json!({
        "replicas": 3,
        "autoscaling": {"mode": "Enabled", "maxReplicas": 20},
        "template": {
            "metadata": {"labels": {"team": "platform", "tier": "edge"}},
            "spec": {
                "tolerations": [{"key": "edge"}],
                "containers": [{"name": "gateway", "args": ["--max-connections=5"], "resources": {"limits": {"cpu": "2"}}}]
            }
        }
    }));
    let own = settings(&json!({
        "autoscaling": {"minReplicas": 4},
        "template": {
            "metadata": {"labels": {"team": "fraud"}},
            "spec": {
                "tolerations": [{"key": "gold"}],
                "containers": [{"name": "gateway", "args": ["--max-connections=9"], "resources": {"limits": {"memory": "3Gi"}}}]
            }
        }
    }));
    let mut world = World::new(json!({}));
    own.or(&chart).apply_to(&mut world.observed.settings).unwrap();
    let deployment = applied(&world, ManagedKind::Deployment).unwrap();
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["team"], "fraud");
    assert_eq!(pod["metadata"]["labels"]["tier"], "edge");
    let container = &pod["spec"]["containers"][0];
    // The later of two arguments wins, as on every command line of the gateway.
    assert_eq!(container["args"], json!(["--max-connections=5", "--max-connections=9"]));
    assert_eq!(container["resources"]["limits"], json!({"cpu": "2", "memory": "3Gi"}));
    assert_eq!(pod["spec"]["tolerations"], json!([{"key": "edge"}, {"key": "gold"}]));
    let autoscaler = applied(&world, ManagedKind::HorizontalPodAutoscaler).unwrap();
    assert_eq!(
        (&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]),
        (&json!(4), &json!(20))
    );
    assert_eq!(
        deployment["spec"]["replicas"], 4,
        "a gateway begins within the bounds of its autoscaler"
    );
}

#[test]
fn the_number_of_pods_is_the_autoscalers_while_there_is_one() {
    let mut world = World::serving(json!({}));
    assert_eq!(applied(&world, ManagedKind::Deployment), None, "all is as it shall be");
    say(&mut world, &json!({"replicas": 3, "autoscaling": {"mode": "External"}}));
    assert_eq!(applied(&world, ManagedKind::Deployment).unwrap()["spec"]["replicas"], Value::Null);
    assert_eq!(applied(&world, ManagedKind::HorizontalPodAutoscaler), None, "it is the user's own");
    world.settle();
    say(&mut world, &json!({"replicas": 3, "autoscaling": {"mode": "Enabled"}}));
    assert_eq!(
        applied(&world, ManagedKind::Deployment),
        None,
        "it says nothing of replicas either way"
    );
    assert!(applied(&world, ManagedKind::HorizontalPodAutoscaler).is_some());
    world.settle();
    assert!(
        world.observed.gateway.objects.contains_key(&ManagedKind::HorizontalPodAutoscaler)
            && world.observed.child(ManagedKind::HorizontalPodAutoscaler, "digits").is_none()
    );
    // Taken back: the field is the operator's again, and its autoscaler goes.
    say(&mut world, &json!({"replicas": 3}));
    assert_eq!(applied(&world, ManagedKind::Deployment).unwrap()["spec"]["replicas"], 3);
    let gone = |action: &PlanAction| matches!(action, PlanAction::Delete { kind: ManagedKind::HorizontalPodAutoscaler, name, .. } if name == "slipway-gateway");
    assert!(world.plan().actions.iter().any(gone));
    world.settle();
    assert!(!world.observed.gateway.objects.contains_key(&ManagedKind::HorizontalPodAutoscaler));
}

#[test]
fn a_gateway_whose_settings_cannot_be_read_stays_as_it_is() {
    let mut world = World::serving(json!({}));
    say(
        &mut world,
        &json!({"autoscaling": {"mode": "Enabled"}, "template": {"spec": {"hostNetwork": true}}}),
    );
    world.settle();
    let why = "annotation ml.slipway.dev/gateway of namespace ml: replicas: invalid type";
    say(&mut world, &json!({}));
    world.observed.settings.gateway_problem = Some(why.to_owned());
    let plan = world.plan();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    world.settle();
    assert_eq!(world.says("GatewayOutdated"), "True InvalidGatewaySettings");
    assert_eq!(world.condition("GatewayOutdated").message, why);
    assert!(world.says("Ready").starts_with("True"), "it serves all the same");
    // One that is gone is made all the same: without it nobody is served.
    world.observed.gateway.objects.remove(&ManagedKind::Deployment);
    assert_eq!(applied(&world, ManagedKind::Deployment).unwrap()["spec"]["replicas"], 2);
    world.observed.settings.gateway_problem = None;
    world.settle();
    assert!(world.status().conditions.iter().all(|it| it.type_ != "GatewayOutdated"));
}

#[test]
fn bounds_are_kept() {
    let mut world = World::new(json!({}));
    let mut wrong =
        |value: Value| settings(&value).apply_to(&mut world.observed.settings).unwrap_err();
    assert!(wrong(json!({"replicas": 0})).starts_with("replicas: 0"));
    assert!(
        wrong(json!({"autoscaling": {"maxReplicas": 1001}}))
            .starts_with("autoscaling.maxReplicas: 1001")
    );
    assert!(
        wrong(json!({"autoscaling": {"minReplicas": 11}}))
            .contains("is above autoscaling.maxReplicas (10)")
    );
    assert!(
        wrong(json!({"autoscaling": {"targetAverageCpu": "-1"}})).contains("targetAverageCpu: -1")
    );
}
