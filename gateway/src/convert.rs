//! From Kubernetes objects to what the data plane knows. The only file that knows both.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{ResourceExt, core::DeserializeGuard};
use slipway_crds::{
    labels::{MODEL_DEPLOYMENT, REVISION},
    routing::{RouteClaimant, RoutingClaims},
    v1alpha1::{Percentage, QueueSpec, TrafficSpec, units::quantity_bytes},
};

use crate::{
    config::{Backend, BrakeConfig, EndpointGroup, ModelConfig, PodSettings, Role, ShieldConfig, Weights},
    resource::{self, RoutedModelDeployment},
};

/// Name of the port that takes requests.
const PORT: &str = "http";

/// The endpoints of one ModelDeployment, by revision.
pub type Endpoints = BTreeMap<String, EndpointGroup>;

/// Keeps what the watches say, in the form of the data plane. It remembers the last valid form of every ModelDeployment: one that somebody broke
/// keeps its traffic as it is, and so does one that was deleted without its children, until these are gone or it is made again.
///
/// A change costs what the one ModelDeployment costs that it concerns, however many there are.
#[derive(Debug, Default)]
pub struct Converter {
    models: HashMap<String, Known>,
    slices: HashMap<String, Slice>,
    /// Names of slices by ModelDeployment and revision.
    revisions: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// A ModelDeployment.
#[derive(Debug)]
struct Known {
    config: ModelConfig,
    /// Whether the object is there.
    present: bool,
}

/// An EndpointSlice of a revision.
#[derive(Debug)]
struct Slice {
    model: String,
    revision: String,
    group: EndpointGroup,
    pods: Vec<(String, SocketAddr)>,
}

/// Names of the ModelDeployments that a change concerns.
pub type Concerned = BTreeSet<String>;

impl Converter {
    /// A ModelDeployment is there, or is another.
    pub fn model(&mut self, object: &DeserializeGuard<RoutedModelDeployment>) -> Concerned {
        let name = object.name_any();
        let known = self.models.get(&name).map(|known| &known.config);
        let config = match &object.0 {
            Ok(object) => model_config(object, known),
            Err(error) => {
                tracing::warn!(modeldeployment = name, %error, "invalid: its last valid form stays in force, or that of one that says nothing");
                known.cloned().unwrap_or_else(|| model_config(&RoutedModelDeployment::unread(&error.metadata), None))
            }
        };
        self.models.insert(name.clone(), Known { config, present: true });
        [name].into()
    }

    /// A ModelDeployment is gone.
    pub fn model_gone(&mut self, name: &str) -> Concerned {
        if let Some(known) = self.models.get_mut(name) {
            known.present = false;
        }
        self.forget(name);
        [name.to_owned()].into()
    }

    /// These are all ModelDeployments.
    pub fn all_models(&mut self, objects: &[DeserializeGuard<RoutedModelDeployment>]) -> Concerned {
        let there: HashSet<String> = objects.iter().map(ResourceExt::name_any).collect();
        let gone: Vec<String> = self.models.keys().filter(|name| !there.contains(*name)).cloned().collect();
        let gone = gone.iter().flat_map(|name| self.model_gone(name)).collect::<Vec<_>>();
        gone.into_iter().chain(objects.iter().flat_map(|object| self.model(object)).collect::<Vec<_>>()).collect()
    }

    /// An EndpointSlice is there, or is another.
    pub fn slice(&mut self, object: &EndpointSlice) -> Concerned {
        let name = object.name_any();
        let mut concerned: Concerned = self.take_slice(&name).into_iter().collect();
        let label = |key| object.labels().get(key).cloned();
        // The stable address of a ModelDeployment has slices too, of gateway pods; they carry no revision.
        if let (Some(model), Some(revision)) = (label(MODEL_DEPLOYMENT), label(REVISION)) {
            let of_model = self.revisions.entry(model.clone()).or_default();
            of_model.entry(revision.clone()).or_default().insert(name.clone());
            concerned.insert(model.clone());
            self.slices.insert(name, Slice { model, revision, group: group(object), pods: pods(object) });
        }
        concerned.iter().for_each(|model| self.forget(model));
        concerned
    }

    /// An EndpointSlice is gone.
    pub fn slice_gone(&mut self, name: &str) -> Concerned {
        let concerned: Concerned = self.take_slice(name).into_iter().collect();
        concerned.iter().for_each(|model| self.forget(model));
        concerned
    }

    /// Takes a slice away. Gives the ModelDeployment that it was of.
    fn take_slice(&mut self, name: &str) -> Option<String> {
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
    pub fn all_slices(&mut self, objects: &[EndpointSlice]) -> Concerned {
        let there: HashSet<String> = objects.iter().map(ResourceExt::name_any).collect();
        // First what is there: a pod that went from one slice to another one is never in none.
        let mut concerned: Concerned = objects.iter().flat_map(|object| self.slice(object)).collect();
        let gone: Vec<String> = self.slices.keys().filter(|name| !there.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| concerned.append(&mut self.slice_gone(name)));
        concerned
    }

    /// A ModelDeployment as it is routed, with its endpoints; none when there is nothing to route.
    pub fn current(&self, name: &str) -> Option<(&ModelConfig, Endpoints)> {
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
    fn forget(&mut self, name: &str) {
        if self.models.get(name).is_some_and(|known| !known.present) && !self.serves(name) {
            self.models.remove(name);
        }
    }

    fn serves(&self, name: &str) -> bool {
        self.endpoints(name).values().any(|group| !group.ready.is_empty() || !group.draining.is_empty())
    }

    fn endpoints(&self, model: &str) -> Endpoints {
        let revisions = self.revisions.get(model).into_iter().flatten();
        revisions.map(|(revision, slices)| (revision.clone(), self.merged(slices))).collect()
    }

    fn merged(&self, slices: &BTreeSet<String>) -> EndpointGroup {
        let mut merged = EndpointGroup { created: i64::MAX, ..EndpointGroup::default() };
        for slice in slices.iter().filter_map(|name| self.slices.get(name)) {
            merged.created = merged.created.min(slice.group.created);
            merged.ready.extend(&slice.group.ready);
            merged.draining.extend(&slice.group.draining);
        }
        // While slices are rearranged a pod can be in two of them; where it is ready counts.
        let EndpointGroup { ready, draining, .. } = &mut merged;
        draining.retain(|addr| !ready.contains(addr));
        // A pod of a Service of both families is in a slice of each, and is one pod: it is asked at its IPv4 address, of which alone is believed how it is.
        if ready.iter().chain(draining.iter()).any(SocketAddr::is_ipv6) {
            let pods = slices.iter().filter_map(|name| self.slices.get(name)).flat_map(|slice| &slice.pods);
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
        (Ok(spec), _) => of_spec(object, &spec),
        (Err(error), Some(known)) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: the last one stays in force");
            ModelConfig { created: RouteClaimant::from_object(object).created, ..known.clone() }
        }
        (Err(error), None) => {
            tracing::warn!(modeldeployment = name, %error, "its spec is not understood: defaults take the place of that");
            of_spec(object, &object.understood_spec())
        }
    };
    let weights = object.weights().map(|traffic| traffic.as_ref().map(weights)).unwrap_or_else(|error| {
        tracing::warn!(modeldeployment = name, %error, "its weights are not understood: the last ones stay in force");
        known.and_then(|known| known.weights.clone())
    });
    ModelConfig {
        uid: object.uid().unwrap_or_default(),
        rollout: object.rollout(),
        weights,
        stable: object.stable(),
        ..said
    }
}

fn of_spec(object: &RoutedModelDeployment, spec: &resource::Spec) -> ModelConfig {
    let (traffic, name) = (&spec.traffic, object.name_any());
    let model_name = spec.model.name.clone().unwrap_or_else(|| name.clone());
    let namespace = object.namespace().unwrap_or_default();
    let on = |part: &Option<resource::Switch>| part.as_ref().is_some_and(|part| part.mode != "Disabled");
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
        timeout: Duration::from_secs(positive(traffic.timeout_seconds.unwrap_or(default.timeout_seconds)).max(1)),
        max_request: traffic.max_request_size.as_ref().and_then(size).or(size(&default.max_request_size)).unwrap_or(0),
        rollout: String::new(),
        scaled_to_zero: spec.replicas == Some(0),
        caching: on(&cache.results) || on(&cache.features),
        sticky_header: traffic.stickiness.as_ref().and_then(|sticky| HeaderName::try_from(&sticky.header).ok()),
        replay: traffic.replay != "Disabled",
        shield: ShieldConfig {
            enabled: shield.mode != "Disabled",
            candidate_timeout: shield.candidate_timeout_milliseconds.map(positive).map(Duration::from_millis),
        },
        pod_settings: pod_settings(spec),
        outcomes: spec.feedback.outcomes.iter().take(MAX_OUTCOMES).cloned().collect(),
        reveals_revision: on(&traffic.revision_header),
        brake: BrakeConfig {
            enabled: brake.mode != "Disabled",
            min_failures: positive(brake.min_failures.unwrap_or(default.brake.min_failures)),
            window: positive(brake.window_requests.unwrap_or(default.brake.window_requests)) as u32,
            failure_millionths: brake
                .failure_rate
                .as_ref()
                .and_then(millionths)
                .or(millionths(&default.brake.failure_rate))
                .unwrap_or(u64::MAX),
        },
    }
}

/// Most outcomes: each is three series a revision. The schema takes no more.
const MAX_OUTCOMES: usize = 16;
/// What is longer than this is not told, so that heads stay short.
const MAX_SETTING: usize = 16 << 10;

fn pod_settings(spec: &resource::Spec) -> PodSettings {
    let list = |list: &[String]| HeaderValue::try_from(list.join(",")).ok().filter(|list| list.len() <= MAX_SETTING);
    let (queue, queued) = (spec.queue.clone().unwrap_or_default(), spec.server.queue.is_some());
    let default = QueueSpec::default();
    let max_jobs = u64::try_from(queue.max_jobs.unwrap_or(default.max_jobs)).unwrap_or(0);
    PodSettings {
        max_jobs: queued.then(|| max_jobs.into()),
        callback_allow: list(&queue.callbacks.unwrap_or_default().allow).filter(|_| queued),
    }
}

fn millionths(share: &Percentage) -> Option<u64> {
    u64::try_from(share.millionths()?).ok()
}

fn size(amount: &Quantity) -> Option<usize> {
    usize::try_from(quantity_bytes(amount)?).ok()
}

/// The schema forbids negative numbers; a cluster whose schema was tampered with must not turn them into huge ones.
fn positive(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn weights(traffic: &resource::Weights) -> Weights {
    let backend = |backend: &resource::Backend| Backend {
        revision: backend.revision.clone(),
        role: if backend.role == "Stable" { Role::Stable } else { Role::Candidate },
        permille: positive(backend.weight_permille).min(1000) as u32,
    };
    Weights {
        generation: traffic.generation,
        backends: traffic.backends.iter().map(backend).collect(),
        preview: traffic.preview_revision.clone(),
    }
}

/// The endpoints of one slice.
fn group(slice: &EndpointSlice) -> EndpointGroup {
    let created = slice.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let mut group = EndpointGroup { created, ..EndpointGroup::default() };
    for (endpoint, addr) in addresses(slice) {
        match state(endpoint) {
            Readiness::Ready => _ = group.ready.insert(addr),
            Readiness::Draining => _ = group.draining.insert(addr),
            Readiness::Out => {}
        }
    }
    group
}

/// By UID, the pods of one slice, whatever state they are in.
fn pods(slice: &EndpointSlice) -> Vec<(String, SocketAddr)> {
    let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref()?.uid.clone();
    addresses(slice).filter_map(|(endpoint, addr)| Some((uid(endpoint)?, addr))).collect()
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = (&Endpoint, SocketAddr)> {
    let mut ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some(PORT));
    let port = ports.find_map(|port| u16::try_from(port.port?).ok());
    let addr = move |endpoint: &Endpoint| {
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        Some(SocketAddr::new(ip, port?))
    };
    slice.endpoints.iter().filter_map(move |endpoint| Some((endpoint, addr(endpoint)?)))
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
