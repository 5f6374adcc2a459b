//! Network access to the pods.

use slipway_objects::{ManagedKind, revision};

use super::children::{delete_child, serving_revisions};
use super::disturbance::apply_child;
use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;

/// Applies the policies of the ModelDeployment's own pods.
pub(super) fn apply_model_policies(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    actions: &mut Vec<PlanAction>,
) {
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let mut wanted = Vec::new();
    wanted.extend(slipway_objects::network_policy(object, settings));
    if has_workers(cx, draft) {
        wanted.extend(slipway_objects::worker_network_policy(object, settings));
    }
    if serving_revisions(cx, draft).contains(&cx.spec.revision) {
        wanted.extend(slipway_objects::template_network_policy(
            object,
            settings,
            &cx.spec.revision,
        ));
    }
    for (name, _) in cx.observed.children_of(ManagedKind::NetworkPolicy) {
        if !wanted.iter().any(|desired| desired.name() == name) && !is_policy_kept(cx, name) {
            delete_child(cx, ManagedKind::NetworkPolicy, name, actions);
        }
    }
    // While the settings of the namespace cannot be read, it is unknown whether the gateways use
    // the network of their nodes.
    let is_frozen = |name: &str| settings.gateway_problem.is_some() && name == cx.spec.name;
    for desired in wanted {
        if cx.observed.children.contains_key(&desired.target()) && is_frozen(desired.name()) {
            continue;
        }
        apply_child(cx, draft, desired, actions);
    }
}

/// Workers do not change during a rollout.
fn has_workers(cx: &PlanContext<'_>, draft: &PlanDraft) -> bool {
    if draft.stable.as_ref() == Some(&cx.spec.revision) {
        cx.observed.object.spec.queue().is_some()
    } else {
        let name = slipway_objects::worker_name(&cx.spec.name);
        cx.observed.child(ManagedKind::Deployment, &name).is_some()
    }
}

/// Whether a policy belongs to another revision that has pods or may have them again. What its
/// template declared is no longer known.
fn is_policy_kept(cx: &PlanContext<'_>, name: &str) -> bool {
    let Some(revision) = revision::revision_in_name(&cx.spec.name, name) else { return false };
    let is_other = revision != cx.spec.revision && cx.observed.settings.network_policies.is_some();
    is_other && cx.observed.replica_sets.iter().any(|set| set.name == name)
}
