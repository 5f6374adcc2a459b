//! How many pods carry all of the traffic, where an autoscaler has a word in it.

use kube::ResourceExt;
use slipway_crds::v1alpha1::{Autoscaling, ModelDeployment};

use crate::action::Action;
use crate::plan::Context;

/// `spec.replicas` as the plan takes it.
///
/// Where it is left out, as many as run stay: at least one, with an autoscaler at least `minReplicas` and at most `maxReplicas`. With an autoscaler a value counts as it
/// stands when it came by the scale subresource, which is how autoscalers (and `kubectl scale`) write it, or when the autoscaler says the same number. Any
/// other value only adds pods, never below `minReplicas`, until the autoscaler has spoken. 0 is always a person's word: an autoscaler never writes it,
/// and rests while it is there.
pub(crate) fn effective(cx: &Context<'_>) -> i32 {
    let revision = cx.stored.stable.as_ref().map_or(cx.spec.revision.as_str(), |stable| stable.revision.as_str());
    let running = cx.set(revision).map_or(0, |set| set.desired);
    let (asked, autoscaling) = (cx.observed.object.spec.replicas.map(|asked| asked.max(0)), &cx.spec.autoscaling);
    let floor = |autoscaling: &Autoscaling| running.min(autoscaling.max_replicas).max(autoscaling.min_replicas);
    match (asked, autoscaling) {
        (None, None) => running.max(1),
        (None, Some(autoscaling)) => floor(autoscaling),
        (Some(asked), Some(autoscaling)) if asked > 0 => {
            let told = cx.observed.autoscaler.as_ref().and_then(|it| it.desired_replicas);
            let counts = is_scaled(&cx.observed.object) || told == Some(asked);
            if counts { asked } else { asked.max(floor(autoscaling)) }
        }
        (Some(asked), _) => asked,
    }
}

/// Writes `spec.replicas` where it is left out: without a value there the scale subresource answers an error, so that neither an autoscaler nor
/// `kubectl scale` could begin.
pub(crate) fn write(cx: &Context<'_>, actions: &mut Vec<Action>) {
    if cx.observed.object.spec.replicas.is_none() && cx.spec.problem.is_none() {
        actions.push(Action::WriteReplicas { replicas: cx.spec.replicas });
    }
}

/// Whether `spec.replicas` was written by the scale subresource last.
fn is_scaled(object: &ModelDeployment) -> bool {
    object.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
        entry.subresource.as_deref() == Some("scale") && fields.is_some_and(|it| !it.is_null())
    })
}
