//! How many pods carry all of the traffic, where an autoscaler has a word in it.

use kube::ResourceExt;
use slipway_crds::v1alpha1::{AutoscalingSpec, ModelDeployment};

/// `spec.replicas` as the plan takes it.
///
/// Where it is left out, as many as run stay: at least one, with an autoscaler at least
/// `minReplicas` and at most `maxReplicas`. With an autoscaler a value counts as it stands when it
/// came by the scale subresource, which is how autoscalers (and `kubectl scale`) write it, or when
/// the autoscaler says the same number. Any other value only adds pods, never below `minReplicas`,
/// until the autoscaler has spoken. 0 is always a person's word: an autoscaler never writes it, and
/// rests while it is there.
///
/// `running` are those of the stable revision now, `told` is what the autoscaler wants.
pub(crate) fn effective_replicas(
    object: &ModelDeployment,
    autoscaling: Option<&AutoscalingSpec>,
    running: i32,
    told: Option<i32>,
) -> i32 {
    let floor = |autoscaling: &AutoscalingSpec| {
        running.min(autoscaling.max_replicas).max(autoscaling.min_replicas)
    };
    match (object.spec.replicas.map(|asked| asked.max(0)), autoscaling) {
        (None, None) => running.max(1),
        (None, Some(autoscaling)) => floor(autoscaling),
        (Some(asked), Some(autoscaling)) if asked > 0 => {
            let counts = is_scaled(object) || told == Some(asked);
            if counts { asked } else { asked.max(floor(autoscaling)) }
        }
        (Some(asked), _) => asked,
    }
}

/// Whether `spec.replicas` was written by the scale subresource last.
fn is_scaled(object: &ModelDeployment) -> bool {
    object.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
        entry.subresource.as_deref() == Some("scale") && fields.is_some_and(|it| !it.is_null())
    })
}
