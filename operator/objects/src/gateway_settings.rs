//! What administrators say about gateways: the chart of all of them, the annotation
//! `ml.slipway.dev/gateway` of a namespace of its own.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use slipway_crds::quantity;
use slipway_crds::v1alpha1::PodTemplatePatch;

use crate::settings::{GatewayAutoscaler, PlanSettings};
use crate::template;

/// Replicas that a Deployment may be asked for.
const MAX_REPLICAS: i32 = 1000;

/// Settings of gateways, each of which may be left out. The same shape in the chart (`gateway`) and
/// in the annotation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySettings {
    /// Pods of the gateway; with an autoscaler those that it begins with.
    pub replicas: Option<i32>,
    /// Who decides on their number later.
    #[serde(default)]
    pub autoscaling: GatewayAutoscaling,
    /// A part of a pod template, whose container is `gateway`.
    #[serde(default)]
    pub template: PodTemplatePatch,
}

/// What is said of an autoscaler of gateways.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayAutoscaling {
    /// Who decides.
    pub mode: Option<AutoscalingMode>,
    /// Fewest pods.
    pub min_replicas: Option<i32>,
    /// Most pods.
    pub max_replicas: Option<i32>,
    /// CPU that a pod uses on average, in cores, at which the number of pods is held.
    pub target_average_cpu: Option<Quantity>,
}

/// Who decides on the number of a gateway's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AutoscalingMode {
    /// `replicas`; what others write is put back.
    #[default]
    Disabled,
    /// A HorizontalPodAutoscaler that the operator makes.
    Enabled,
    /// An autoscaler of the user's own: the field is not the operator's.
    External,
}

impl GatewaySettings {
    /// These where they say something, else those of `other`; templates are merged, these over
    /// those.
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

    /// Puts them into the settings that plans depend on.
    ///
    /// # Errors
    /// Names the field that cannot be followed, and what it may be.
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
