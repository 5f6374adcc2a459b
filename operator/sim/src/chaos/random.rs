//! Random objects and faults.

use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_objects::ManagedKind;

use crate::fault_settings::FaultSettings;
use crate::rng::SeededRng;
use crate::store::model_digest;

pub(super) fn random_object(rng: &mut SeededRng) -> ModelDeployment {
    let mut gates = vec![json!({ "name": "errors", "type": "ErrorRate",
        "errorRate": { "maxIncrease": "15%", "minRequests": 50 } })];
    if rng.chance(0.5) {
        gates
            .push(json!({ "name": "accuracy", "type": "Accuracy", "accuracy": { "maxDrop": "20%", "minLabels": 50 } }));
    }
    let mut model = json!({ "uri": "http://store/v1", "version": "v1" });
    if rng.chance(0.5) {
        model["digest"] = json!(model_digest("v1", 0));
    }
    let value = json!({
        "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": "digits", "namespace": "ml", "uid": "owner", "generation": 1 },
        "spec": {
            "model": model,
            "replicas": rng.between(1, 5),
            "strategy": random_strategy(rng),
            "analysis": { "mode": "Custom", "gates": gates, "intervalSeconds": rng.between(4, 8), "maxHoldSeconds": rng.between(100, 300),
                          "onHoldExceeded": rng.pick(&["Pause", "Abort"]) },
            "revisionHistoryLimit": rng.between(0, 3),
        }
    });
    serde_json::from_value(value).unwrap_or_else(|error| unreachable!("{error}"))
}

fn random_strategy(rng: &mut SeededRng) -> Value {
    let mut strategy = json!({
        "type": "Canary",
        "progressDeadlineSeconds": rng.between(50, 120),
        "scaleDownDelaySeconds": rng.between(0, 20),
    });
    if rng.chance(0.4) {
        strategy["probationSeconds"] = json!(rng.between(0, 30));
    }
    if rng.chance(0.3) {
        let switches = rng.pick(&[&[][..], &[10][..], &[20, 60][..]]);
        let auto = rng.chance(0.7);
        strategy["type"] = json!("BlueGreen");
        strategy["blueGreen"] = json!({ "autoPromotionEnabled": auto, "autoPromotionSeconds": rng.between(0, 20), "switchSteps": switches });
        // Without a judged switch a bad version may be promoted before the probation detects it.
        if switches.is_empty() {
            strategy["probationSeconds"] = json!(20);
        }
        return strategy;
    }
    let mut steps = Vec::new();
    for weight in rng.pick(&[&[10][..], &[5, 50][..], &[10, 25, 50][..], &[20, 100][..]]) {
        steps.push(json!({ "setWeight": weight }));
        if rng.chance(0.2) {
            let pause = if rng.chance(0.5) {
                json!({ "durationSeconds": rng.between(1, 30) })
            } else {
                json!({})
            };
            steps.push(json!({ "pause": pause }));
        }
        if rng.chance(0.1) {
            steps.push(json!({ "setCanaryScale": { "replicas": rng.between(1, 6) } }));
        }
    }
    strategy["canary"] = json!({ "steps": steps });
    strategy
}

pub(super) fn random_faults(rng: &mut SeededRng) -> FaultSettings {
    let mut some = |often: f64| if rng.chance(0.5) { often } else { 0.0 };
    let mut faults = FaultSettings {
        crash: some(0.05),
        lost_write: some(0.1),
        lost_answer: some(0.1),
        evict: some(0.03),
        gateway: some(0.01),
        stuck: some(0.03),
        prometheus: some(0.02),
        clock: some(0.01),
        overwrite: some(0.01),
        ..FaultSettings::default()
    };
    faults.max_view_lag = if rng.chance(0.5) { rng.between(1, 4) } else { 0 };
    faults.two_leaders = rng.chance(0.2);
    faults.wipe = if rng.chance(0.15) { 0.005 } else { 0.0 };
    faults.meddle = if rng.chance(0.1) { 0.01 } else { 0.0 };
    let kinds = [
        ManagedKind::PodDisruptionBudget,
        ManagedKind::ServiceAccount,
        ManagedKind::RoleBinding,
        ManagedKind::Deployment,
        ManagedKind::NetworkPolicy,
    ];
    faults.alter = if rng.chance(0.5) { 0.02 } else { 0.0 };
    faults.orphan = if rng.chance(0.1) { 0.005 } else { 0.0 };
    faults.refused_kind = if rng.chance(0.15) { Some(rng.pick(&kinds)) } else { None };
    faults.suspend = if faults.two_leaders && rng.chance(0.5) { 0.05 } else { 0.0 };
    faults
}
