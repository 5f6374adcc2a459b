//! The part of the model pods that the owner of the model can configure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Name of the container that runs the model server.
pub const SERVER_CONTAINER: &str = "server";

/// A part of a pod template, merged over the operator's own by the rules of server-side apply.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.spec) || !has(self.spec.restartPolicy) || self.spec.restartPolicy == 'Always'").message("spec.template.spec.restartPolicy: a model server is always restarted; leave it out")
)]
pub struct PodTemplatePatch {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,

    /// A part of a PodSpec (`kubectl explain pod.spec`). Containers, variables, volumes and mounts
    /// are merged by their names and paths: the container `server` is the model server, others run
    /// beside it. Arguments and tolerations are appended to those of Slipway; init containers run
    /// before Slipway's. The init container that fetches the model gets the variables and mounts
    /// of `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodSpec>,
}

/// Labels and annotations of the pods, in addition to Slipway's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(l, !l.startsWith('ml.slipway.dev/') && !(l in ['app.kubernetes.io/component', 'app.kubernetes.io/managed-by', 'app.kubernetes.io/part-of']))").message("spec.template.metadata.labels: ml.slipway.dev/*, app.kubernetes.io/component, managed-by and part-of say which pods are Slipway's and are set by it; choose another name"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(a, !a.startsWith('ml.slipway.dev/'))").message("spec.template.metadata.annotations: ml.slipway.dev/* are Slipway's own; choose another name")
)]
pub struct TemplateMetadata {
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub annotations: BTreeMap<String, String>,
}

impl PodTemplatePatch {
    /// Whether no field is set: an absent template and an empty one result in the same revision.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings of the model server's container, if there are any.
    pub fn server_container(&self) -> Option<&Container> {
        self.spec.as_ref()?.containers.iter().find(|container| container.name == SERVER_CONTAINER)
    }

    /// The container of the model server, for changes; added if it is absent.
    pub fn server_container_mut(&mut self) -> &mut Container {
        let containers = &mut self.spec.get_or_insert_default().containers;
        let place = containers
            .iter()
            .position(|container| container.name == SERVER_CONTAINER)
            .unwrap_or_else(|| {
                containers
                    .push(Container { name: SERVER_CONTAINER.to_owned(), ..Container::default() });
                containers.len() - 1
            });
        &mut containers[place]
    }

    /// The image of the model server, if the template sets one in place of the operator's.
    pub fn server_image(&self) -> Option<&str> {
        self.server_container()?.image.as_deref()
    }
}
