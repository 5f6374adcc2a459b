//! From Kubernetes objects to what the data plane knows. The only file that knows both.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use slipway_crds::labels::{MODEL_DEPLOYMENT, REVISION};
use slipway_crds::routing::{RouteClaimant, RoutingClaims};
use slipway_crds::v1alpha1::units::quantity_bytes;
use slipway_crds::v1alpha1::{Percentage, QueueSpec, TrafficSpec};

use crate::config::{
    ArmRole, BrakeConfig, EndpointGroup, ModelConfig, PodSettings, RevisionEndpoints, ShieldConfig,
    TrafficWeights, WeightedBackend,
};
use crate::resource::{self, RoutedModelDeployment};

/// Name of the port that takes requests.
const PORT_NAME: &str = "http";

/// Keeps what the watches say, in the form of the data plane. It remembers the last valid form of
/// every ModelDeployment: one that somebody broke keeps its traffic as it is, and so does one that
/// was deleted without its children, until these are gone or it is made again.
///
/// A change costs what the one ModelDeployment costs that it concerns, however many there are.
#[derive(Debug, Default)]
pub struct ResourceConverter {
    models: HashMap<String, KnownModel>,
    slices: HashMap<String, RevisionSlice>,
    /// Names of slices by ModelDeployment and revision.
    revisions: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// A ModelDeployment.
#[derive(Debug)]
struct KnownModel {
    config: ModelConfig,
    /// Whether the object is there.
    present: bool,
}

/// An EndpointSlice of a revision.
#[derive(Debug)]
struct RevisionSlice {
    model: String,
    revision: String,
    group: EndpointGroup,
    pods: Vec<(String, SocketAddr)>,
}

/// Names of the ModelDeployments that a change concerns.
pub type AffectedModels = BTreeSet<String>;

impl ResourceConverter {
    /// A ModelDeployment is there, or is another.
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

    /// A ModelDeployment is gone.
    pub fn delete_model(&mut self, name: &str) -> AffectedModels {
        if let Some(known) = self.models.get_mut(name) {
            known.present = false;
        }
        self.forget_if_unserved(name);
        [name.to_owned()].into()
    }

    /// These are all ModelDeployments.
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

    /// An EndpointSlice is there, or is another.
    pub fn apply_slice(&mut self, object: &EndpointSlice) -> AffectedModels {
        let name = object.name_any();
        let mut concerned: AffectedModels = self.remove_slice(&name).into_iter().collect();
        let label = |key| object.labels().get(key).cloned();
        // The stable address of a ModelDeployment has slices too, of gateway pods; they carry no
        // revision.
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

    /// An EndpointSlice is gone.
    pub fn delete_slice(&mut self, name: &str) -> AffectedModels {
        let concerned: AffectedModels = self.remove_slice(name).into_iter().collect();
        concerned.iter().for_each(|model| self.forget_if_unserved(model));
        concerned
    }

    /// Takes a slice away. Gives the ModelDeployment that it was of.
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

    /// These are all EndpointSlices.
    pub fn replace_slices(&mut self, objects: &[EndpointSlice]) -> AffectedModels {
        let there: HashSet<String> = objects.iter().map(ResourceExt::name_any).collect();
        // First what is there: a pod that went from one slice to another one is never in none.
        let mut concerned: AffectedModels =
            objects.iter().flat_map(|object| self.apply_slice(object)).collect();
        let gone: Vec<String> =
            self.slices.keys().filter(|name| !there.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| concerned.append(&mut self.delete_slice(name)));
        concerned
    }

    /// A ModelDeployment as it is routed, with its endpoints; none when there is nothing to route.
    pub fn current(&self, name: &str) -> Option<(&ModelConfig, RevisionEndpoints)> {
        Some((&self.models.get(name)?.config, self.endpoints(name)))
    }

    /// Those that are routed.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Forgets a ModelDeployment that was deleted when nothing of it serves any more.
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
        // While slices are rearranged a pod can be in two of them; where it is ready counts.
        let EndpointGroup { ready, draining, .. } = &mut merged;
        draining.retain(|addr| !ready.contains(addr));
        // A pod of a Service of both families is in a slice of each, and is one pod: it is asked at
        // its IPv4 address, of which alone is believed how it is.
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

/// What is said of a ModelDeployment now; of what is not understood, what was `known` of it before.
fn model_config(object: &RoutedModelDeployment, known: Option<&ModelConfig>) -> ModelConfig {
    let name = object.name_any();
    let said = match (object.spec(), known) {
        (Ok(spec), _) => config_from_spec(object, &spec),
        (Err(error), Some(known)) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: the last one stays in force");
            ModelConfig { created: RouteClaimant::from_object(object).created, ..known.clone() }
        }
        (Err(error), None) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: defaults take the place of that");
            config_from_spec(object, &object.lenient_spec())
        }
    };
    let weights = object.weights().map(|traffic| traffic.as_ref().map(convert_weights)).unwrap_or_else(|error| {
        tracing::warn!(modeldeployment = name, %error, "its weights are not understood: the last ones stay in force");
        known.and_then(|known| known.weights.clone())
    });
    ModelConfig {
        uid: object.uid().unwrap_or_default(),
        rollout: object.rollout_start(),
        weights,
        stable: object.stable_revision(),
        ..said
    }
}

fn config_from_spec(object: &RoutedModelDeployment, spec: &resource::SpecView) -> ModelConfig {
    let (traffic, name) = (&spec.traffic, object.name_any());
    let model_name = spec.model.name.clone().unwrap_or_else(|| name.clone());
    let namespace = object.namespace().unwrap_or_default();
    let on = |part: &Option<resource::ModeSwitch>| {
        part.as_ref().is_some_and(|part| part.mode != "Disabled")
    };
    let cache = &spec.server.cache;
    let (shield, brake) = (&traffic.shield, &traffic.brake);
    let default = TrafficSpec::default();
    ModelConfig {
        name,
        uid: String::new(),
        created: RouteClaimant::from_object(object).created,
        claims: RoutingClaims::new(&namespace, &traffic.hosts, model_name),
        weights: None,
        stable: None,
        timeout: Duration::from_secs(
            non_negative(traffic.timeout_seconds.unwrap_or(default.timeout_seconds)).max(1),
        ),
        max_request: traffic
            .max_request_size
            .as_ref()
            .and_then(quantity_usize)
            .or(quantity_usize(&default.max_request_size))
            .unwrap_or(0),
        rollout: String::new(),
        scaled_to_zero: spec.replicas == Some(0),
        caching: on(&cache.results) || on(&cache.features),
        sticky_header: traffic
            .stickiness
            .as_ref()
            .and_then(|sticky| HeaderName::try_from(&sticky.header).ok()),
        replay: traffic.replay != "Disabled",
        shield: ShieldConfig {
            enabled: shield.mode != "Disabled",
            candidate_timeout: shield
                .candidate_timeout_milliseconds
                .map(non_negative)
                .map(Duration::from_millis),
        },
        pod_settings: pod_settings(spec),
        outcomes: spec.feedback.outcomes.iter().take(MAX_OUTCOMES).cloned().collect(),
        reveals_revision: on(&traffic.revision_header),
        brake: BrakeConfig {
            enabled: brake.mode != "Disabled",
            min_failures: non_negative(brake.min_failures.unwrap_or(default.brake.min_failures)),
            window: non_negative(brake.window_requests.unwrap_or(default.brake.window_requests))
                as u32,
            failure_millionths: brake
                .failure_rate
                .as_ref()
                .and_then(share_millionths)
                .or(share_millionths(&default.brake.failure_rate))
                .unwrap_or(u64::MAX),
        },
    }
}

/// Most outcomes: each is three series a revision. The schema takes no more.
const MAX_OUTCOMES: usize = 16;
/// What is longer than this is not told, so that heads stay short.
const MAX_SETTING: usize = 16 << 10;

fn pod_settings(spec: &resource::SpecView) -> PodSettings {
    let list = |list: &[String]| {
        HeaderValue::try_from(list.join(",")).ok().filter(|list| list.len() <= MAX_SETTING)
    };
    let (queue, queued) = (spec.queue.clone().unwrap_or_default(), spec.server.queue.is_some());
    let default = QueueSpec::default();
    let max_jobs = u64::try_from(queue.max_jobs.unwrap_or(default.max_jobs)).unwrap_or(0);
    PodSettings {
        max_jobs: queued.then(|| max_jobs.into()),
        callback_allow: list(&queue.callbacks.unwrap_or_default().allow).filter(|_| queued),
    }
}

fn share_millionths(share: &Percentage) -> Option<u64> {
    u64::try_from(share.millionths()?).ok()
}

fn quantity_usize(amount: &Quantity) -> Option<usize> {
    usize::try_from(quantity_bytes(amount)?).ok()
}

/// The schema forbids negative numbers; a cluster whose schema was tampered with must not turn them
/// into huge ones.
fn non_negative(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn convert_weights(traffic: &resource::WeightsView) -> TrafficWeights {
    let backend = |backend: &resource::BackendView| WeightedBackend {
        revision: backend.revision.clone(),
        role: if backend.role == "Stable" { ArmRole::Stable } else { ArmRole::Candidate },
        permille: non_negative(backend.weight_permille).min(1000) as u32,
    };
    TrafficWeights {
        generation: traffic.generation,
        backends: traffic.backends.iter().map(backend).collect(),
        preview: traffic.preview_revision.clone(),
    }
}

/// The endpoints of one slice.
fn slice_endpoints(slice: &EndpointSlice) -> EndpointGroup {
    let created = slice.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let mut group = EndpointGroup { created, ..EndpointGroup::default() };
    for (endpoint, addr) in endpoint_addresses(slice) {
        match endpoint_readiness(endpoint) {
            EndpointReadiness::Ready => _ = group.ready.insert(addr),
            EndpointReadiness::Draining => _ = group.draining.insert(addr),
            EndpointReadiness::Unavailable => {}
        }
    }
    group
}

/// By UID, the pods of one slice, whatever state they are in.
fn slice_pods(slice: &EndpointSlice) -> Vec<(String, SocketAddr)> {
    let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref()?.uid.clone();
    endpoint_addresses(slice).filter_map(|(endpoint, addr)| Some((uid(endpoint)?, addr))).collect()
}

fn endpoint_addresses(slice: &EndpointSlice) -> impl Iterator<Item = (&Endpoint, SocketAddr)> {
    let mut ports =
        slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some(PORT_NAME));
    let port = ports.find_map(|port| u16::try_from(port.port?).ok());
    let addr = move |endpoint: &Endpoint| {
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        Some(SocketAddr::new(ip, port?))
    };
    slice.endpoints.iter().filter_map(move |endpoint| Some((endpoint, addr(endpoint)?)))
}

enum EndpointReadiness {
    Ready,
    Draining,
    Unavailable,
}

fn endpoint_readiness(endpoint: &Endpoint) -> EndpointReadiness {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Unknown counts as ready, says the API.
    if conditions.ready.unwrap_or(true) {
        EndpointReadiness::Ready
    } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
        EndpointReadiness::Draining
    } else {
        EndpointReadiness::Unavailable
    }
}

#[cfg(test)]
mod tests;
