//! Settings of administrators for gateways: in the chart for all gateways, in the annotation
//! `ml.slipway.dev/gateway` for the gateway of one namespace.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use slipway_crds::quantity;
use slipway_crds::v1alpha1::PodTemplatePatch;

use crate::settings::{GatewayAutoscaler, PlanSettings};
use crate::template;

/// Maximum number of replicas of a gateway.
const MAX_REPLICAS: i32 = 1000;

/// Settings of gateways; every field is optional. The chart (`gateway`) and the annotation have the
/// same structure.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySettings {
    /// Number of gateway pods; the initial number if there is an autoscaler.
    pub replicas: Option<i32>,
    /// What determines the number of pods later.
    #[serde(default)]
    pub autoscaling: GatewayAutoscaling,
    /// A part of a pod template; the container is `gateway`.
    #[serde(default)]
    pub template: PodTemplatePatch,
}

/// Settings of the autoscaler of gateways.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayAutoscaling {
    pub mode: Option<AutoscalingMode>,
    /// Minimum number of pods.
    pub min_replicas: Option<i32>,
    /// Maximum number of pods.
    pub max_replicas: Option<i32>,
    /// Target for the average CPU usage of a pod, in cores.
    pub target_average_cpu: Option<Quantity>,
}

/// What determines the number of a gateway's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AutoscalingMode {
    /// `replicas`; changes by other clients are reverted.
    #[default]
    Disabled,
    /// A HorizontalPodAutoscaler that the operator creates.
    Enabled,
    /// An autoscaler that the user operates: the operator does not write the field.
    External,
}

impl GatewaySettings {
    /// These settings, completed by those of `other`; the template is merged over the other one.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let (own, others) = (&self.autoscaling, &other.autoscaling);
        let mut merged = other.template.clone();
        template::merge_template(&mut merged, &self.template);
        Self {
            replicas: self.replicas.or(other.replicas),
            autoscaling: GatewayAutoscaling {
                mode: own.mode.or(others.mode),
                min_replicas: own.min_replicas.or(others.min_replicas),
                max_replicas: own.max_replicas.or(others.max_replicas),
                target_average_cpu: own
                    .target_average_cpu
                    .clone()
                    .or_else(|| others.target_average_cpu.clone()),
            },
            template: merged,
        }
    }

    /// Applies the settings to those that plans depend on.
    ///
    /// # Errors
    /// Names the invalid field, and its valid values.
    pub fn apply_to(self, settings: &mut PlanSettings) -> Result<(), String> {
        settings.gateway_autoscaler = self.autoscaler()?;
        settings.gateway_replicas = check_range("replicas", self.replicas.unwrap_or(2))?;
        settings.gateway_template = self.template;
        Ok(())
    }

    fn autoscaler(&self) -> Result<GatewayAutoscaler, String> {
        let autoscaling = &self.autoscaling;
        let min_replicas =
            check_range("autoscaling.minReplicas", autoscaling.min_replicas.unwrap_or(2))?;
        let max_replicas =
            check_range("autoscaling.maxReplicas", autoscaling.max_replicas.unwrap_or(10))?;
        if min_replicas > max_replicas {
            return Err(format!(
                "autoscaling.minReplicas ({min_replicas}) is above autoscaling.maxReplicas ({max_replicas})"
            ));
        }
        let target_average_cpu =
            autoscaling.target_average_cpu.clone().unwrap_or_else(|| Quantity("700m".to_owned()));
        if quantity::parse_quantity(&target_average_cpu.0).is_none_or(|cores| cores <= 0.0) {
            return Err(format!(
                "autoscaling.targetAverageCpu: {} is no amount of CPU above 0, as in 700m",
                target_average_cpu.0
            ));
        }
        Ok(match autoscaling.mode.unwrap_or_default() {
            AutoscalingMode::Disabled => GatewayAutoscaler::None,
            AutoscalingMode::Enabled => {
                GatewayAutoscaler::Ours { min_replicas, max_replicas, target_average_cpu }
            }
            AutoscalingMode::External => GatewayAutoscaler::External,
        })
    }
}

fn check_range(field: &str, value: i32) -> Result<i32, String> {
    if (1..=MAX_REPLICAS).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{field}: {value} is not within 1 and {MAX_REPLICAS}"))
    }
}
