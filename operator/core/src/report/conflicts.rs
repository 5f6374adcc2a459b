//! The condition about hosts and model names that other ModelDeployments hold.

use kube::ResourceExt;
use slipway_crds::conditions::reason;
use slipway_crds::routing;

use super::ConditionDraft;
use crate::conflicts::NameClaim;
use crate::context::PlanContext;

/// Whether a declared host or the model name leads to another ModelDeployment. The Service and
/// everything else continue to work.
pub(super) fn conflicted_condition(cx: &PlanContext<'_>) -> Option<ConditionDraft> {
    let conflicts = &cx.observed.conflicts;
    let messages = conflicts.iter().map(|conflict| {
        let holder = &conflict.holder;
        match &conflict.claim {
            NameClaim::Host(host) => format!(
                "spec.traffic.hosts: '{host}' is held by the older ModelDeployment {holder}; remove it here, or there"
            ),
            NameClaim::ModelName(name) => format!(
                "spec.model.name: '{name}' is held by the older ModelDeployment {holder}, which answers for it at hosts that nobody declares; declare a host, or choose another name"
            ),
        }
    });
    let unusable = service_addresses(cx).map(|host| {
        format!("spec.traffic.hosts: '{host}' has the form of the address of a Service of this namespace and is not used; remove it")
    });
    let all: Vec<String> = unusable.chain(messages).collect();
    if all.is_empty() {
        return None;
    }
    let only_name = service_addresses(cx).next().is_none()
        && conflicts.iter().all(|it| matches!(it.claim, NameClaim::ModelName(_)));
    let reason = if only_name { reason::MODEL_NAME_CONFLICT } else { reason::HOSTNAME_CONFLICT };
    Some(ConditionDraft::new_true(
        reason,
        format!("Service {} serves all the same; {}", cx.spec.name, all.join("; ")),
    ))
}

/// Declared hosts that have the form of a Service's address.
fn service_addresses<'a>(cx: &PlanContext<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let object = &cx.observed.object;
    let namespace = object.namespace().unwrap_or_default();
    let hosts = object.spec.traffic.hosts.iter().map(String::as_str);
    hosts.filter(move |host| {
        routing::service_name(&routing::normalize_host(host), &namespace).is_some()
    })
}
