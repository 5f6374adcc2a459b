//! The route table, changed one ModelDeployment at a time, and the state kept for each.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use slipway_crds::routing::{ClaimRegistry, RouteClaimant};
use slipway_gateway_policy::budget::ShieldBudget;
use slipway_gateway_policy::config::{
    ArmRole, EndpointGroup, ModelConfig, RevisionEndpoints, RoutingSnapshot, TrafficWeights,
    WeightedBackend,
};
use slipway_gateway_policy::split::{SlotSchedule, StickySlots};
use slipway_gateway_upstream::endpoint::EndpointSet;
use slipway_gateway_upstream::pool::PodConnector;
use slipway_prediction_id::PredictionReport;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::changes::ChangeNotifier;
use crate::keys::KeyStore;
use crate::metrics::{GatewayMetrics, ModelMetrics};
use crate::model::{Arm, ArmState, LimitHeaders, RoutedModel};
use crate::settings::ProcessSettings;
use crate::shares::{CapacityPools, ModelShares};
use crate::weights::{
    backends_with_preview, guess_weights, has_served_backend, weights_generation,
};

/// The complete routing state at one moment.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// ModelDeployments by name.
    pub models: HashMap<String, Arc<RoutedModel>>,
    /// The holders of declared hosts and model names.
    pub holders: ClaimRegistry,
}

/// Holds the current table and updates it.
#[derive(Debug)]
pub struct ModelRouter {
    table: RwLock<RouteTable>,
    history: Mutex<RouterHistory>,
    metrics: Arc<GatewayMetrics>,
    changes: ChangeNotifier,
    connector: PodConnector,
    pools: CapacityPools,
    settings: ProcessSettings,
    keys: Arc<KeyStore>,
}

#[derive(Debug, Default)]
struct RouterHistory {
    models: HashMap<String, ModelHistory>,
    /// Series that belong to no table entry any more: ModelDeployment, revision (`None` for the
    /// ModelDeployment itself), since when.
    removed_series: HashMap<(String, Option<String>), Instant>,
}

#[derive(Debug)]
struct ModelHistory {
    uid: String,
    weights: Option<TrafficWeights>,
    /// Weights of the previous ModelDeployment of the same name, while they are in force.
    inherited_weights: Option<TrafficWeights>,
    arms: HashMap<String, Arc<ArmState>>,
    schedule: Arc<SlotSchedule>,
    budget: Arc<ShieldBudget>,
    shares: ModelShares,
    metrics: Arc<ModelMetrics>,
}

impl ModelRouter {
    /// Creates an empty table.
    pub fn new(
        settings: ProcessSettings,
        pools: CapacityPools,
        metrics: Arc<GatewayMetrics>,
        connector: PodConnector,
        keys: Arc<KeyStore>,
    ) -> Self {
        Self {
            table: RwLock::default(),
            history: Mutex::default(),
            metrics,
            changes: ChangeNotifier::default(),
            connector,
            pools,
            settings,
            keys,
        }
    }

    /// The current table. Hold the guard only briefly: updates wait for it.
    pub fn table(&self) -> RwLockReadGuard<'_, RouteTable> {
        self.table.read()
    }

    /// Subscribes to changes of weights, endpoints and brakes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Names of the ModelDeployments that changed after a version; `None` when too many have.
    pub fn changed_since(&self, version: u64) -> Option<BTreeSet<Arc<str>>> {
        self.changes.changed_since(version)
    }

    /// All ModelDeployments, without holding the lock of the table.
    pub fn models(&self) -> Vec<Arc<RoutedModel>> {
        self.table().models.values().cloned().collect()
    }

    /// Replaces the table by a snapshot.
    pub fn apply_snapshot(&self, snapshot: &RoutingSnapshot) {
        let mut endpoints: HashMap<&str, RevisionEndpoints> = HashMap::new();
        for ((model, revision), group) in &snapshot.endpoints {
            endpoints.entry(model).or_default().insert(revision.clone(), group.clone());
        }
        let gone: Vec<_> = self
            .table()
            .models
            .keys()
            .filter(|name| !snapshot.models.contains_key(*name))
            .cloned()
            .collect();
        gone.iter().for_each(|name| self.update_model(name, None));
        for (name, config) in &snapshot.models {
            self.update_model(
                name,
                Some((config, endpoints.remove(name.as_str()).unwrap_or_default())),
            );
        }
    }

    /// Replaces one ModelDeployment; `None` removes it.
    pub fn update_model(&self, name: &str, update: Option<(&ModelConfig, RevisionEndpoints)>) {
        // One update at a time, because the new state is derived from the current one.
        let mut memory = self.history.lock();
        let old = self.table().models.get(name).cloned();
        let new = update.map(|(config, endpoints)| {
            Arc::new(self.build_model(&mut memory, old.as_ref(), config, &endpoints))
        });
        if new.is_none() {
            memory.models.remove(name);
        }
        record_removed_series(&mut memory, name, old.as_deref(), new.as_deref());
        let mut table = self.table.write();
        if let Some(old) = old {
            table.holders.remove(&claimant_of(&old.config), &old.config.claims);
            table.models.remove(name);
        }
        if let Some(new) = new {
            table.holders.add(&claimant_of(&new.config), &new.config.claims);
            table.models.insert(name.to_owned(), new);
        }
        drop(table);
        drop(memory);
        self.changes.announce(name);
    }

    /// Removes series of entries that were deleted long ago, and connections that have been unused
    /// for long.
    pub fn sweep(&self, now: Instant) {
        self.history.lock().removed_series.retain(|(model, revision), since| {
            let keep = now.saturating_duration_since(*since) < self.settings.series_retention;
            if !keep {
                match revision {
                    Some(revision) => self.metrics.forget_arm(model, revision),
                    None => self.metrics.forget_model(model),
                }
            }
            keep
        });
        self.models().iter().flat_map(|model| &model.arms).for_each(|arm| arm.endpoints.sweep());
    }

    fn build_model(
        &self,
        memory: &mut RouterHistory,
        old: Option<&Arc<RoutedModel>>,
        config: &ModelConfig,
        endpoints: &RevisionEndpoints,
    ) -> RoutedModel {
        let known = memory.models.remove(&config.name);
        let mut known = match known {
            Some(known) if known.uid == config.uid => known,
            another => self.remember_model(config, another.and_then(|another| another.weights)),
        };
        let old = old.filter(|old| old.config.uid == config.uid);

        let new_weights = config.weights.clone().filter(|weights| !weights.backends.is_empty());
        let last = known.weights.take();
        let in_force = new_weights.or_else(|| last.clone().filter(|last| last.generation > 0));
        known
            .inherited_weights
            .take_if(|former| in_force.is_some() || !has_served_backend(former, endpoints));
        known.weights = in_force
            .or_else(|| known.inherited_weights.clone())
            .or_else(|| guess_weights(config, endpoints));
        if known.weights != last {
            tracing::info!(modeldeployment = config.name, weights = ?known.weights, "weights in force");
        }

        let generation = known.weights.as_ref().map_or(0, |weights| weights.generation);
        known.metrics.gauges.generation.set(generation);
        let backends = known.weights.as_ref().map(backends_with_preview).unwrap_or_default();
        Self::apply_to_brakes(&mut known, generation, &backends);
        let arms: Vec<_> = backends
            .iter()
            .map(|backend| self.build_arm(&mut known, old, config, endpoints, backend))
            .collect();

        let model = RoutedModel {
            config: config.clone(),
            limits: LimitHeaders::new(config.timeout, config.max_request),
            weights: known.weights.clone(),
            draining_arms: draining_arms(&known, &backends),
            arms,
            schedule: Arc::clone(&known.schedule),
            stickiness: StickySlots::new(self.keys.master().as_ref(), &config.uid, &config.rollout),
            budget: Arc::clone(&known.budget),
            shares: known.shares.clone(),
            metrics: Arc::clone(&known.metrics),
        };
        memory.models.insert(config.name.clone(), known);
        model
    }

    /// Creates the state of a new ModelDeployment. `former` contains the weights of a previous
    /// ModelDeployment of the same name that was deleted without its pods. They stay in force until
    /// the new one has weights of its own, with generation 0, so that no operator regards them as
    /// confirmed.
    fn remember_model(&self, config: &ModelConfig, former: Option<TrafficWeights>) -> ModelHistory {
        let budget = ShieldBudget::new(
            self.settings.shield_floor,
            self.settings.shield_percent,
            Instant::now().into_std(),
        );
        ModelHistory {
            uid: config.uid.clone(),
            weights: None,
            inherited_weights: former.map(|former| TrafficWeights { generation: 0, ..former }),
            arms: HashMap::new(),
            schedule: Arc::new(SlotSchedule::starting_at(PredictionReport::random_sample())),
            budget: Arc::new(budget),
            shares: ModelShares::new(&self.pools),
            metrics: Arc::new(self.metrics.model_handles(&config.name)),
        }
    }

    /// Applies the weights in force to every brake, also to those of revisions without weight: this
    /// releases them.
    fn apply_to_brakes(known: &mut ModelHistory, generation: i64, backends: &[WeightedBackend]) {
        for backend in backends {
            known.arms.entry(backend.revision.clone()).or_default();
        }
        known.arms.retain(|revision, state| {
            let backend = backends.iter().find(|backend| backend.revision == *revision);
            state.brake.apply_generation(generation, backend.map_or(0, |backend| backend.permille));
            backend.is_some() || state.in_flight() > 0
        });
    }

    fn build_arm(
        &self,
        known: &mut ModelHistory,
        old: Option<&Arc<RoutedModel>>,
        config: &ModelConfig,
        endpoints: &RevisionEndpoints,
        backend: &WeightedBackend,
    ) -> Arc<Arm> {
        let empty = (EndpointGroup::default(), EndpointSet::default());
        let group = endpoints.get(&backend.revision).unwrap_or(&empty.0);
        let before = old.and_then(|old| old.arm(&backend.revision));
        let same_generation = old.filter(|old| {
            weights_generation(old.weights.as_ref()) == weights_generation(known.weights.as_ref())
        });
        let tally =
            same_generation.and(before).map_or_else(Arc::default, |arm| Arc::clone(&arm.counts));
        let endpoints =
            EndpointSet::new(group, before.map_or(&empty.1, |arm| &arm.endpoints), &self.connector);
        let preview = known.weights.as_ref().and_then(|weights| weights.preview.as_ref())
            == Some(&backend.revision);
        let metrics =
            self.metrics.arm_handles(&config.name, &backend.revision, backend.role, preview);
        self.metrics.feedback.declare_revision(&config.name, &backend.revision, &config.outcomes);
        let state = known.arms.entry(backend.revision.clone()).or_default().clone();
        let braked = backend.role == ArmRole::Candidate && state.brake.is_tripped();
        metrics.gauges.braked.set(i64::from(braked));
        metrics.gauges.weight.set(i64::from(backend.permille));
        metrics.gauges.endpoints.set(endpoints.len() as i64);
        Arc::new(Arm {
            revision: backend.revision.clone(),
            // Revisions are label values, hence always valid here.
            header: HeaderValue::from_str(&backend.revision)
                .unwrap_or(HeaderValue::from_static("invalid")),
            role: backend.role,
            permille: backend.permille,
            endpoints,
            state,
            counts: tally,
            metrics,
            brake: config.brake,
            changes: self.changes.for_model(&config.name),
        })
    }
}

fn draining_arms(
    known: &ModelHistory,
    backends: &[WeightedBackend],
) -> Vec<(String, Arc<ArmState>)> {
    let gone = known
        .arms
        .iter()
        .filter(|(revision, _)| backends.iter().all(|backend| backend.revision != **revision));
    gone.map(|(revision, state)| (revision.clone(), Arc::clone(state))).collect()
}

fn claimant_of(config: &ModelConfig) -> Arc<RouteClaimant> {
    Arc::new(RouteClaimant {
        created: config.created,
        uid: config.uid.clone(),
        name: config.name.clone(),
    })
}

/// Records since when series belong to no table entry. The weight becomes 0 at once; the counters
/// are kept for a while, for the last scrape.
fn record_removed_series(
    memory: &mut RouterHistory,
    name: &str,
    old: Option<&RoutedModel>,
    new: Option<&RoutedModel>,
) {
    let has = |model: Option<&RoutedModel>, revision: &str| {
        model.is_some_and(|model| model.arm(revision).is_some())
    };
    let key = |revision: Option<&str>| (name.to_owned(), revision.map(str::to_owned));
    if new.is_some() {
        memory.removed_series.remove(&key(None));
    } else if old.is_some() {
        memory.removed_series.entry(key(None)).or_insert_with(Instant::now);
    }
    for arm in new.iter().flat_map(|model| &model.arms) {
        memory.removed_series.remove(&key(Some(&arm.revision)));
    }
    for arm in old.iter().flat_map(|model| &model.arms).filter(|arm| !has(new, &arm.revision)) {
        arm.metrics.gauges.weight.set(0);
        arm.metrics.gauges.braked.set(0);
        arm.metrics.gauges.endpoints.set(0);
        memory.removed_series.entry(key(Some(&arm.revision))).or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests;
