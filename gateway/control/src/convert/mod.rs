//! Converts Kubernetes objects to the configuration of the data plane. No other module uses both.

mod model;
mod slice;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use slipway_crds::labels::{MODEL_DEPLOYMENT, REVISION};
use slipway_gateway_policy::config::{EndpointGroup, ModelConfig, RevisionEndpoints};

use self::model::model_config;
use self::slice::{slice_endpoints, slice_pods};
use crate::resource::RoutedModelDeployment;

/// Stores the watched objects in the format of the data plane, including the last valid
/// configuration of every ModelDeployment: an invalid change leaves the traffic as it is, and so
/// does a deletion without the children, until the endpoints are gone or the ModelDeployment is
/// created again.
///
/// The cost of a change depends only on the affected ModelDeployment, not on their number.
#[derive(Debug, Default)]
pub struct ResourceConverter {
    models: HashMap<String, KnownModel>,
    slices: HashMap<String, RevisionSlice>,
    /// Names of slices, by ModelDeployment and revision.
    revisions: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
}

#[derive(Debug)]
struct KnownModel {
    config: ModelConfig,
    /// Whether the object exists.
    present: bool,
}

/// The EndpointSlice of a revision.
#[derive(Debug)]
struct RevisionSlice {
    model: String,
    revision: String,
    group: EndpointGroup,
    pods: Vec<(String, SocketAddr)>,
}

/// Names of the ModelDeployments that a change affects.
pub type AffectedModels = BTreeSet<String>;

impl ResourceConverter {
    /// Adds or replaces a ModelDeployment.
    pub fn apply_model(
        &mut self,
        object: &DeserializeGuard<RoutedModelDeployment>,
    ) -> AffectedModels {
        let name = object.name_any();
        let known = self.models.get(&name).map(|known| &known.config);
        let config = match &object.0 {
            Ok(object) => model_config(object, known),
            Err(error) => {
                tracing::warn!(modeldeployment = name, %error, "invalid: its last valid form stays in force, or that of one that says nothing");
                known.cloned().unwrap_or_else(|| {
                    model_config(&RoutedModelDeployment::from_metadata(&error.metadata), None)
                })
            }
        };
        self.models.insert(name.clone(), KnownModel { config, present: true });
        [name].into()
    }

    /// Handles the deletion of a ModelDeployment.
    pub fn delete_model(&mut self, name: &str) -> AffectedModels {
        if let Some(known) = self.models.get_mut(name) {
            known.present = false;
        }
        self.forget_if_unserved(name);
        [name.to_owned()].into()
    }

    /// Replaces all ModelDeployments.
    pub fn replace_models(
        &mut self,
        objects: &[DeserializeGuard<RoutedModelDeployment>],
    ) -> AffectedModels {
        let there: HashSet<String> = objects.iter().map(ResourceExt::name_any).collect();
        let gone: Vec<String> =
            self.models.keys().filter(|name| !there.contains(*name)).cloned().collect();
        let gone = gone.iter().flat_map(|name| self.delete_model(name)).collect::<Vec<_>>();
        gone.into_iter()
            .chain(objects.iter().flat_map(|object| self.apply_model(object)).collect::<Vec<_>>())
            .collect()
    }

    /// Adds or replaces an EndpointSlice.
    pub fn apply_slice(&mut self, object: &EndpointSlice) -> AffectedModels {
        let name = object.name_any();
        let mut concerned: AffectedModels = self.remove_slice(&name).into_iter().collect();
        let label = |key| object.labels().get(key).cloned();
        // The stable Service of a ModelDeployment has slices, too; they contain gateway pods and
        // have no revision label.
        if let (Some(model), Some(revision)) = (label(MODEL_DEPLOYMENT), label(REVISION)) {
            let of_model = self.revisions.entry(model.clone()).or_default();
            of_model.entry(revision.clone()).or_default().insert(name.clone());
            concerned.insert(model.clone());
            self.slices.insert(
                name,
                RevisionSlice {
                    model,
                    revision,
                    group: slice_endpoints(object),
                    pods: slice_pods(object),
                },
            );
        }
        concerned.iter().for_each(|model| self.forget_if_unserved(model));
        concerned
    }

    /// Removes an EndpointSlice.
    pub fn delete_slice(&mut self, name: &str) -> AffectedModels {
        let concerned: AffectedModels = self.remove_slice(name).into_iter().collect();
        concerned.iter().for_each(|model| self.forget_if_unserved(model));
        concerned
    }

    /// Removes a slice. Returns the ModelDeployment that it belonged to.
    fn remove_slice(&mut self, name: &str) -> Option<String> {
        let slice = self.slices.remove(name)?;
        if let Some(revisions) = self.revisions.get_mut(&slice.model) {
            if let Some(names) = revisions.get_mut(&slice.revision) {
                names.remove(name);
                if names.is_empty() {
                    revisions.remove(&slice.revision);
                }
            }
            if revisions.is_empty() {
                self.revisions.remove(&slice.model);
            }
        }
        Some(slice.model)
    }

    /// Replaces all EndpointSlices.
    pub fn replace_slices(&mut self, objects: &[EndpointSlice]) -> AffectedModels {
        let there: HashSet<String> = objects.iter().map(ResourceExt::name_any).collect();
        // Existing slices first, so that a pod that moved between slices is always in one.
        let mut concerned: AffectedModels =
            objects.iter().flat_map(|object| self.apply_slice(object)).collect();
        let gone: Vec<String> =
            self.slices.keys().filter(|name| !there.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| concerned.append(&mut self.delete_slice(name)));
        concerned
    }

    /// The configuration and endpoints of a ModelDeployment; `None` when there is nothing to route.
    pub fn current(&self, name: &str) -> Option<(&ModelConfig, RevisionEndpoints)> {
        Some((&self.models.get(name)?.config, self.endpoints(name)))
    }

    /// Number of routed ModelDeployments.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether no ModelDeployment is routed.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Removes a deleted ModelDeployment once it has no endpoints any more.
    fn forget_if_unserved(&mut self, name: &str) {
        if self.models.get(name).is_some_and(|known| !known.present) && !self.has_endpoints(name) {
            self.models.remove(name);
        }
    }

    fn has_endpoints(&self, name: &str) -> bool {
        self.endpoints(name)
            .values()
            .any(|group| !group.ready.is_empty() || !group.draining.is_empty())
    }

    fn endpoints(&self, model: &str) -> RevisionEndpoints {
        let revisions = self.revisions.get(model).into_iter().flatten();
        revisions.map(|(revision, slices)| (revision.clone(), self.merge_slices(slices))).collect()
    }

    fn merge_slices(&self, slices: &BTreeSet<String>) -> EndpointGroup {
        let mut merged = EndpointGroup { created: i64::MAX, ..EndpointGroup::default() };
        for slice in slices.iter().filter_map(|name| self.slices.get(name)) {
            merged.created = merged.created.min(slice.group.created);
            merged.ready.extend(&slice.group.ready);
            merged.draining.extend(&slice.group.draining);
        }
        // While slices are rearranged, a pod can be in two of them; it counts as ready if it is in
        // one.
        let EndpointGroup { ready, draining, .. } = &mut merged;
        draining.retain(|addr| !ready.contains(addr));
        // A pod of a dual-stack Service is in a slice of each address family but is one pod:
        // requests go to its IPv4 address, whose readiness alone counts.
        if ready.iter().chain(draining.iter()).any(SocketAddr::is_ipv6) {
            let pods = slices
                .iter()
                .filter_map(|name| self.slices.get(name))
                .flat_map(|slice| &slice.pods);
            let (first, second): (Vec<_>, Vec<_>) = pods.partition(|(_, addr)| addr.is_ipv4());
            let first: HashSet<&str> = first.into_iter().map(|(uid, _)| uid.as_str()).collect();
            let twice = second.into_iter().filter(|(uid, _)| first.contains(uid.as_str()));
            let twice: HashSet<SocketAddr> = twice.map(|(_, addr)| *addr).collect();
            ready.retain(|addr| !twice.contains(addr));
            draining.retain(|addr| !twice.contains(addr));
        }
        merged
    }
}

#[cfg(test)]
mod tests;
