//! From Kubernetes objects to a [`Snapshot`]. The only file that knows both.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::HeaderName;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{ResourceExt, core::DeserializeGuard};
use slipway_crds::{
    labels::{MODEL_DEPLOYMENT, REVISION},
    routing::{Claimant, Claims},
    v1alpha1::{self as api, ModelDeployment, ShieldMode},
};

use crate::config::{
    Backend, BrakeConfig, EndpointGroup, GroupKey, ModelConfig, Role, ShieldConfig, Snapshot, Weights,
};

/// Name of the port that takes requests.
const PORT: &str = "http";

/// Turns what the watches hold into snapshots. It remembers the last valid form of every ModelDeployment: one that somebody broke
/// keeps its traffic as it is, and so does one that was deleted without its children, until these are gone or it is made again.
#[derive(Debug, Default)]
pub struct Converter {
    valid: BTreeMap<String, ModelConfig>,
}

impl Converter {
    /// The snapshot of these objects.
    pub fn snapshot<'a>(
        &mut self,
        models: impl IntoIterator<Item = &'a DeserializeGuard<ModelDeployment>>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Snapshot {
        let mut valid = BTreeMap::new();
        for guard in models {
            let name = guard.name_any();
            let config = match &guard.0 {
                Ok(model) => Some(model_config(model)),
                Err(error) => {
                    tracing::warn!(modeldeployment = name, %error, "invalid: its last valid form stays in force");
                    self.valid.remove(&name)
                }
            };
            valid.extend(config.map(|config| (name, config)));
        }
        let endpoints = endpoints(slices);
        let up = endpoints.iter().filter(|(_, group)| !group.ready.is_empty() || !group.draining.is_empty());
        let left: BTreeSet<&str> = up.map(|((model, _), _)| model.as_str()).collect();
        for (name, config) in std::mem::take(&mut self.valid) {
            if !valid.contains_key(&name) && left.contains(name.as_str()) {
                valid.insert(name, config);
            }
        }
        self.valid.clone_from(&valid);
        Snapshot { models: valid, endpoints }
    }
}

fn model_config(model: &ModelDeployment) -> ModelConfig {
    let traffic = &model.spec.traffic;
    let status = model.status.as_ref();
    ModelConfig {
        name: model.name_any(),
        uid: model.uid().unwrap_or_default(),
        created: Claimant::of(model).created,
        claims: Claims::of(model),
        weights: status.and_then(|status| status.traffic.as_ref()).map(weights),
        stable: status.and_then(|status| status.stable.as_ref()).map(|stable| stable.revision.clone()),
        timeout: Duration::from_secs(positive(traffic.timeout_seconds).max(1)),
        scaled_to_zero: model.spec.replicas == 0,
        caching: model.spec.cache.as_ref().is_some_and(keeps_answers),
        sticky_header: traffic.stickiness.as_ref().and_then(|sticky| HeaderName::try_from(&sticky.header).ok()),
        shield: ShieldConfig {
            enabled: traffic.shield.mode == ShieldMode::Enabled,
            candidate_timeout: traffic.shield.candidate_timeout_milliseconds.map(positive).map(Duration::from_millis),
        },
        brake: BrakeConfig {
            min_failures: positive(traffic.brake.min_failures),
            failure_percent: positive(traffic.brake.failure_percent) as u32,
        },
    }
}

fn keeps_answers(cache: &api::Cache) -> bool {
    cache.results.as_ref().is_some_and(|results| results.enabled)
        || cache.features.as_ref().is_some_and(|features| features.enabled)
}

/// The schema forbids negative numbers; a cluster whose schema was tampered with must not turn them into huge ones.
fn positive(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn weights(traffic: &api::TrafficStatus) -> Weights {
    let backend = |backend: &api::Backend| Backend {
        revision: backend.revision.clone(),
        role: match backend.role {
            api::Role::Stable => Role::Stable,
            api::Role::Candidate => Role::Candidate,
        },
        permille: positive(backend.weight_permille).min(1000) as u32,
    };
    Weights {
        generation: traffic.generation,
        backends: traffic.backends.iter().map(backend).collect(),
        preview: traffic.preview_revision.clone(),
    }
}

fn endpoints<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> BTreeMap<GroupKey, EndpointGroup> {
    let mut groups = BTreeMap::new();
    for slice in slices {
        let label = |key| slice.labels().get(key).cloned();
        // The stable address of a ModelDeployment has slices too, of gateway pods; they carry no revision.
        let (Some(model), Some(revision)) = (label(MODEL_DEPLOYMENT), label(REVISION)) else { continue };
        let created = slice.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
        let group = match groups.entry((model, revision)) {
            Entry::Vacant(entry) => entry.insert(EndpointGroup { created, ..EndpointGroup::default() }),
            Entry::Occupied(entry) => entry.into_mut(),
        };
        group.created = group.created.min(created);
        add_slice(group, slice);
    }
    groups
}

fn add_slice(group: &mut EndpointGroup, slice: &EndpointSlice) {
    let ports = slice.ports.iter().flatten();
    let port = ports.filter(|port| port.name.as_deref() == Some(PORT)).find_map(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else { return };
    for endpoint in &slice.endpoints {
        let addr = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
        let Some(addr) = addr.map(|ip| SocketAddr::new(ip, port)) else { continue };
        match state(endpoint) {
            Readiness::Ready => _ = group.ready.insert(addr),
            Readiness::Draining => _ = group.draining.insert(addr),
            Readiness::Out => {}
        }
    }
    // While slices are rearranged a pod can be in two of them; where it is ready counts.
    let EndpointGroup { ready, draining, .. } = group;
    draining.retain(|addr| !ready.contains(addr));
}

enum Readiness {
    Ready,
    Draining,
    Out,
}

fn state(endpoint: &Endpoint) -> Readiness {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Unknown counts as ready, says the API.
    if conditions.ready.unwrap_or(true) {
        Readiness::Ready
    } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
        Readiness::Draining
    } else {
        Readiness::Out
    }
}

#[cfg(test)]
mod tests;
