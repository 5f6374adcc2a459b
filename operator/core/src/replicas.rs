//! The number of pods for all traffic, in the presence of an autoscaler.

use kube::ResourceExt;
use slipway_crds::v1alpha1::{AutoscalingSpec, ModelDeployment};

/// The value of `spec.replicas` that the plan uses.
///
/// If it is absent, the current number of pods stays: at least one, and with an autoscaler at least
/// `minReplicas` and at most `maxReplicas`. With an autoscaler a value is used unchanged if the
/// scale subresource wrote it, which is how autoscalers (and `kubectl scale`) write it, or if the
/// autoscaler wants the same number. Any other value can only add pods, never below `minReplicas`,
/// until the autoscaler has reported a number. 0 always comes from a user: an autoscaler never
/// writes it, and is inactive while it is set.
///
/// `running` is the current size of the stable revision, `autoscaler_wants` is the number that the
/// autoscaler wants.
pub(crate) fn effective_replicas(
    object: &ModelDeployment,
    autoscaling: Option<&AutoscalingSpec>,
    running: i32,
    autoscaler_wants: Option<i32>,
) -> i32 {
    let floor = |autoscaling: &AutoscalingSpec| {
        running.min(autoscaling.max_replicas).max(autoscaling.min_replicas)
    };
    match (object.spec.replicas.map(|asked| asked.max(0)), autoscaling) {
        (None, None) => running.max(1),
        (None, Some(autoscaling)) => floor(autoscaling),
        (Some(asked), Some(autoscaling)) if asked > 0 => {
            let counts = is_scaled(object) || autoscaler_wants == Some(asked);
            if counts { asked } else { asked.max(floor(autoscaling)) }
        }
        (Some(asked), _) => asked,
    }
}

/// Whether the scale subresource wrote `spec.replicas` last.
fn is_scaled(object: &ModelDeployment) -> bool {
    object.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
        entry.subresource.as_deref() == Some("scale") && fields.is_some_and(|it| !it.is_null())
    })
}
