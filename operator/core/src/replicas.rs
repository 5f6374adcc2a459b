//! How many pods carry all of the traffic, where an autoscaler has a word in it.

use kube::ResourceExt;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::plan::Context;

/// `spec.replicas` as the plan takes it.
///
/// `spec.replicas` has a default of 1, so that a manifest from which the field was taken, which is what one does when an autoscaler comes, says 1 for a moment.
/// With an autoscaler a value counts as it stands when it came by the scale subresource, which is how autoscalers (and `kubectl scale`) write it, or when the
/// autoscaler says the same number. Any other value only adds pods, never below `minReplicas`, until the autoscaler has spoken. 0 is always a person's
/// word: an autoscaler never writes it, and rests while it is there.
pub(crate) fn effective(cx: &Context<'_>) -> i32 {
    let asked = cx.spec.replicas;
    let Some(autoscaling) = cx.spec.autoscaling.as_ref().filter(|_| asked > 0) else { return asked };
    let told = cx.observed.autoscaler.as_ref().and_then(|it| it.desired_replicas);
    if is_scaled(&cx.observed.object) || told == Some(asked) {
        return asked;
    }
    let revision = cx.stored.stable.as_ref().map_or(cx.spec.revision.as_str(), |stable| stable.revision.as_str());
    let running = cx.set(revision).map_or(0, |set| set.desired).min(autoscaling.max_replicas);
    asked.max(autoscaling.min_replicas).max(running)
}

/// Whether `spec.replicas` was written by the scale subresource last.
fn is_scaled(object: &ModelDeployment) -> bool {
    object.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
        entry.subresource.as_deref() == Some("scale") && fields.is_some_and(|it| !it.is_null())
    })
}
