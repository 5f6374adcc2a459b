//! Settings of an operator.

use slipway_crds::v1alpha1::PodTemplatePatch;
use slipway_objects::settings::{GatewayAutoscaler, NetworkPolicies, PlanSettings};

/// The settings of a default installation.
pub fn plan_settings() -> PlanSettings {
    PlanSettings {
        gateway_image: "gateway:1".to_owned(),
        operator_public_key: None,
        gateway_replicas: 2,
        gateway_autoscaler: GatewayAutoscaler::None,
        gateway_problem: None,
        gateway_template: PodTemplatePatch::default(),
        fixed_user_ids: true,
        runtime_image: "runtime:1".to_owned(),
        redis_image: "redis:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: Vec::new(),
        prometheus_matchers: Vec::new(),
        promql_gates: true,
        tracing: None,
        network_policies: Some(NetworkPolicies::default()),
    }
}
