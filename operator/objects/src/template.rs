//! Merges `spec.template` over the pods that the operator builds.
//!
//! The rules are those of server-side apply: objects field by field, lists of named items by their
//! names, other lists as a whole. If this would give two sources to one item (a volume, a variable,
//! a mount), the template's item replaces the operator's. Validation rejects forbidden overrides
//! earlier, and the merge ignores them as well.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, ResourceRequirements, Volume};
use slipway_crds::v1alpha1::{PodTemplatePatch, SERVER_CONTAINER};

use crate::meta::LabelMap;
use crate::reserved::{is_reserved_variable, without_handler};

/// Merges the template over a pod whose containers are `server` and, as init containers, the
/// operator's own.
pub(crate) fn merge_pod_template(mut ours: PodSpec, template: &PodTemplatePatch) -> PodSpec {
    let Some(mut theirs) = template.spec.clone() else { return ours };
    // A named account decides whether its token is mounted; the token of the namespace's default
    // account is never mounted.
    if theirs.service_account_name.is_some() {
        ours.automount_service_account_token = None;
    }
    // Only Slipway sets these fields.
    (theirs.restart_policy, theirs.node_name, theirs.ephemeral_containers) = (None, None, None);
    let bears = theirs.tolerations.take().unwrap_or_default();
    let before = theirs.init_containers.take().unwrap_or_default();
    if let Some(volumes) = &mut ours.volumes {
        volumes.retain(|volume| {
            !theirs.volumes.iter().flatten().any(|it| it.name == volume.name && has_source(it))
        });
    }
    for container in &mut theirs.containers {
        if let Some(own) = ours.containers.iter_mut().find(|own| own.name == container.name) {
            prepare_merge(own, container);
        }
    }
    ours.merge_from(theirs);
    if !bears.is_empty() {
        ours.tolerations.get_or_insert_default().extend(bears);
    }
    if !before.is_empty() {
        ours.init_containers.get_or_insert_default().splice(0..0, before);
    }
    ours
}

/// Merges a template over another one. The result, merged over a pod, equals merging both one after
/// the other.
pub(crate) fn merge_template(under: &mut PodTemplatePatch, over: &PodTemplatePatch) {
    if let Some(metadata) = &over.metadata {
        let all = under.metadata.get_or_insert_default();
        all.labels.extend(metadata.labels.clone());
        all.annotations.extend(metadata.annotations.clone());
    }
    if over.spec.is_some() {
        under.spec = Some(merge_pod_template(under.spec.take().unwrap_or_default(), over));
    }
}

/// Labels of the pods: the template's, overridden by the operator's.
pub(crate) fn template_labels(template: &PodTemplatePatch, ours: LabelMap) -> LabelMap {
    let mut all = template.metadata.as_ref().map(|it| it.labels.clone()).unwrap_or_default();
    all.extend(ours);
    all
}

/// Annotations of the pods: the operator's, overridden by the template's, which may redirect
/// scrapes.
pub(crate) fn template_annotations(template: &PodTemplatePatch, mut ours: LabelMap) -> LabelMap {
    ours.extend(template.metadata.iter().flat_map(|it| it.annotations.clone()));
    ours
}

fn has_source(volume: &Volume) -> bool {
    *volume != Volume { name: volume.name.clone(), ..Volume::default() }
}

/// Prepares both containers for the merge of the second into the first.
fn prepare_merge(own: &mut Container, theirs: &mut Container) {
    let mut args = own.args.take().unwrap_or_default();
    args.extend(theirs.args.take().unwrap_or_default());
    own.args = Some(args);
    let reserved = |variable: &EnvVar| is_reserved_variable(&variable.name);
    theirs.env.iter_mut().for_each(|env| env.retain(|variable| !reserved(variable)));
    let set = |name: &str| theirs.env.iter().flatten().any(|variable| variable.name == name);
    own.env.iter_mut().for_each(|env| env.retain(|variable| !set(&variable.name)));
    let mounted =
        |path: &str| theirs.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
    own.volume_mounts
        .iter_mut()
        .for_each(|mounts| mounts.retain(|mount| !mounted(&mount.mount_path)));
    let taken = own.ports.clone().unwrap_or_default();
    theirs.ports.iter_mut().for_each(|ports| {
        ports.retain(|port| {
            !taken.iter().any(|it| it.name == port.name || it.container_port == port.container_port)
        });
    });
    if own.name == SERVER_CONTAINER {
        for probe in [&mut theirs.liveness_probe, &mut theirs.readiness_probe].into_iter().flatten()
        {
            *probe = without_handler(probe);
        }
    }
}

/// The part of a server's resources that an init container needs, which does not run the model:
/// without GPUs.
pub(crate) fn init_step_resources(mut resources: ResourceRequirements) -> ResourceRequirements {
    let common = |name: &String| ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
    for list in [&mut resources.requests, &mut resources.limits].into_iter().flatten() {
        list.retain(|name, _| common(name));
    }
    ResourceRequirements { claims: None, ..resources }
}
