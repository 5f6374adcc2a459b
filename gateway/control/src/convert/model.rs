//! Converts a ModelDeployment to its configuration in the data plane.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use slipway_crds::routing::{RouteClaimant, RoutingClaims};
use slipway_crds::v1alpha1::units::quantity_bytes;
use slipway_crds::v1alpha1::{Percentage, QueueSpec, TrafficSpec};
use slipway_gateway_policy::config::{
    ArmRole, BrakeConfig, ModelConfig, PodSettings, ShieldConfig, TrafficWeights, WeightedBackend,
};

use crate::resource::{self, RoutedModelDeployment};

/// The configuration of a ModelDeployment. Parts that cannot be parsed are taken from `known`, the
/// previous configuration.
pub(super) fn model_config(
    object: &RoutedModelDeployment,
    known: Option<&ModelConfig>,
) -> ModelConfig {
    let name = object.name_any();
    let converted = match (object.spec(), known) {
        (Ok(spec), _) => config_from_spec(object, &spec),
        (Err(error), Some(known)) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: the last one stays in force");
            ModelConfig { created: RouteClaimant::from_object(object).created, ..known.clone() }
        }
        (Err(error), None) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: defaults take the place of that");
            config_from_spec(object, &object.lenient_spec())
        }
    };
    let weights = object.weights().map(|traffic| traffic.as_ref().map(convert_weights)).unwrap_or_else(|error| {
        tracing::warn!(modeldeployment = name, %error, "its weights are not understood: the last ones stay in force");
        known.and_then(|known| known.weights.clone())
    });
    ModelConfig {
        uid: object.uid().unwrap_or_default(),
        rollout: object.rollout_start(),
        weights,
        stable: object.stable_revision(),
        ..converted
    }
}

fn config_from_spec(object: &RoutedModelDeployment, spec: &resource::SpecView) -> ModelConfig {
    let (traffic, name) = (&spec.traffic, object.name_any());
    let model_name = spec.model.name.clone().unwrap_or_else(|| name.clone());
    let namespace = object.namespace().unwrap_or_default();
    let on = |part: &Option<resource::ModeSwitch>| {
        part.as_ref().is_some_and(|part| part.mode != "Disabled")
    };
    let cache = &spec.server.cache;
    let (shield, brake) = (&traffic.shield, &traffic.brake);
    let default = TrafficSpec::default();
    ModelConfig {
        name,
        uid: String::new(),
        created: RouteClaimant::from_object(object).created,
        claims: RoutingClaims::new(&namespace, &traffic.hosts, model_name),
        weights: None,
        stable: None,
        timeout: Duration::from_secs(
            non_negative(traffic.timeout_seconds.unwrap_or(default.timeout_seconds)).max(1),
        ),
        max_request: traffic
            .max_request_size
            .as_ref()
            .and_then(quantity_usize)
            .or(quantity_usize(&default.max_request_size))
            .unwrap_or(0),
        rollout: String::new(),
        scaled_to_zero: spec.replicas == Some(0),
        caching: on(&cache.results) || on(&cache.features),
        sticky_header: traffic
            .stickiness
            .as_ref()
            .and_then(|sticky| HeaderName::try_from(&sticky.header).ok()),
        replay: traffic.replay != "Disabled",
        shield: ShieldConfig {
            enabled: shield.mode != "Disabled",
            candidate_timeout: shield
                .candidate_timeout_milliseconds
                .map(non_negative)
                .map(Duration::from_millis),
        },
        pod_settings: pod_settings(spec),
        outcomes: spec.feedback.outcomes.iter().take(MAX_OUTCOMES).cloned().collect(),
        reveals_revision: on(&traffic.revision_header),
        brake: BrakeConfig {
            enabled: brake.mode != "Disabled",
            min_failures: non_negative(brake.min_failures.unwrap_or(default.brake.min_failures)),
            window: non_negative(brake.window_requests.unwrap_or(default.brake.window_requests))
                as u32,
            failure_millionths: brake
                .failure_rate
                .as_ref()
                .and_then(share_millionths)
                .or(share_millionths(&default.brake.failure_rate))
                .unwrap_or(u64::MAX),
        },
    }
}

/// Maximum number of outcomes, because each adds three series per revision. The schema has the same
/// limit.
const MAX_OUTCOMES: usize = 16;
/// Longer settings are not sent to pods, so that request heads stay short.
const MAX_SETTING: usize = 16 << 10;

fn pod_settings(spec: &resource::SpecView) -> PodSettings {
    let list = |list: &[String]| {
        HeaderValue::try_from(list.join(",")).ok().filter(|list| list.len() <= MAX_SETTING)
    };
    let (queue, queued) = (spec.queue.clone().unwrap_or_default(), spec.server.queue.is_some());
    let default = QueueSpec::default();
    let max_jobs = u64::try_from(queue.max_jobs.unwrap_or(default.max_jobs)).unwrap_or(0);
    PodSettings {
        max_jobs: queued.then(|| max_jobs.into()),
        callback_allow: list(&queue.callbacks.unwrap_or_default().allow).filter(|_| queued),
    }
}

fn share_millionths(share: &Percentage) -> Option<u64> {
    u64::try_from(share.millionths()?).ok()
}

fn quantity_usize(amount: &Quantity) -> Option<usize> {
    usize::try_from(quantity_bytes(amount)?).ok()
}

/// The schema forbids negative numbers; without it they must not become huge positive ones.
fn non_negative(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn convert_weights(traffic: &resource::WeightsView) -> TrafficWeights {
    let backend = |backend: &resource::BackendView| WeightedBackend {
        revision: backend.revision.clone(),
        role: if backend.role == "Stable" { ArmRole::Stable } else { ArmRole::Candidate },
        permille: non_negative(backend.weight_permille).min(1000) as u32,
    };
    TrafficWeights {
        generation: traffic.generation,
        backends: traffic.backends.iter().map(backend).collect(),
        preview: traffic.preview_revision.clone(),
    }
}
