//! The route table: built from a [`Snapshot`], swapped whole, and what is remembered from one to the next.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use http::HeaderValue;
use slipway_crds::routing::{Claimant, Holders};
use tokio::{sync::watch, time::Instant};

use crate::{
    budget::Budget,
    config::{Backend, EndpointGroup, ModelConfig, Role, Settings, Snapshot, Weights},
    endpoint::EndpointSet,
    metrics::{Metrics, ModelMetrics},
    model::{Arm, ArmState, Changes, Model, TimeoutHeaders},
    split::{Schedule, hash},
    upstream::Connector,
};

/// Everything that routing needs, at one moment.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// ModelDeployments by name.
    pub models: HashMap<String, Arc<Model>>,
    /// Who holds declared hosts and the names of models.
    pub holders: Holders,
}

/// Holds the current table and makes the next.
#[derive(Debug)]
pub struct Router {
    table: RwLock<Arc<RouteTable>>,
    memory: Mutex<Memory>,
    metrics: Arc<Metrics>,
    changes: Changes,
    connector: Connector,
    settings: Settings,
}

#[derive(Debug, Default)]
struct Memory {
    models: HashMap<String, Remembered>,
    /// Series of what is in no table any more: ModelDeployment, revision (or none for the ModelDeployment itself), since when.
    gone: HashMap<(String, Option<String>), Instant>,
}

#[derive(Debug)]
struct Remembered {
    uid: String,
    weights: Option<Weights>,
    /// Weights of the ModelDeployment that had the name before, while they are in force.
    inherited: Option<Weights>,
    arms: HashMap<String, Arc<ArmState>>,
    schedule: Arc<Schedule>,
    budget: Arc<Budget>,
    metrics: Arc<ModelMetrics>,
}

impl Router {
    /// An empty table.
    pub fn new(settings: Settings, metrics: Arc<Metrics>, connector: Connector) -> Self {
        Self {
            table: RwLock::default(),
            memory: Mutex::default(),
            metrics,
            changes: Changes::default(),
            connector,
            settings,
        }
    }

    /// The current table.
    pub fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears of every change: weights, endpoints, brakes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a snapshot the current table.
    pub fn apply(&self, snapshot: &Snapshot) {
        // One at a time: the next table is made from the current one.
        let mut memory = self.memory();
        let old = self.table();
        let mut table = RouteTable::default();
        for config in snapshot.models.values() {
            let model = self.model(&mut memory, &old, config, snapshot);
            table.models.insert(config.name.clone(), Arc::new(model));
            table.holders.add(&claimant(config), &config.claims);
        }
        memory.models.retain(|name, _| table.models.contains_key(name));
        note_gone(&mut memory, &old, &table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        drop(memory);
        self.changes.announce();
    }

    /// Drops series of what is long gone, and connections that nobody used for long.
    pub fn sweep(&self, now: Instant) {
        self.memory().gone.retain(|(model, revision), since| {
            let keep = now.saturating_duration_since(*since) < self.settings.series_retention;
            if !keep {
                match revision {
                    Some(revision) => self.metrics.forget_arm(model, revision),
                    None => self.metrics.forget_model(model),
                }
            }
            keep
        });
        self.table().models.values().flat_map(|model| &model.arms).for_each(|arm| arm.endpoints.sweep());
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A table that could not be finished was not swapped in, so what is remembered still fits the current one.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self, memory: &mut Memory, old: &RouteTable, config: &ModelConfig, snapshot: &Snapshot) -> Model {
        let known = memory.models.remove(&config.name);
        let mut known = match known {
            Some(known) if known.uid == config.uid => known,
            another => self.remember(config, another.and_then(|another| another.weights)),
        };
        let old = old.models.get(&config.name).filter(|old| old.config.uid == config.uid);

        let told = config.weights.clone().filter(|weights| !weights.backends.is_empty());
        let last = known.weights.take();
        let in_force = told.or_else(|| last.clone().filter(|last| last.generation > 0));
        known.inherited.take_if(|former| in_force.is_some() || !is_served(former, config, snapshot));
        known.weights = in_force.or_else(|| known.inherited.clone()).or_else(|| guess(config, snapshot));
        if known.weights != last {
            tracing::info!(modeldeployment = config.name, weights = ?known.weights, "weights in force");
        }

        let generation = known.weights.as_ref().map_or(0, |weights| weights.generation);
        known.metrics.generation.set(generation);
        let backends = known.weights.as_ref().map(with_preview).unwrap_or_default();
        Self::settle_brakes(&mut known, generation, &backends);
        let arms: Vec<_> =
            backends.iter().map(|backend| self.arm(&mut known, old, config, snapshot, backend)).collect();

        let model = Model {
            config: config.clone(),
            timeout_headers: TimeoutHeaders::new(config.timeout),
            weights: known.weights.clone(),
            lingering: lingering(&known, &backends),
            arms,
            schedule: Arc::clone(&known.schedule),
            budget: Arc::clone(&known.budget),
            metrics: Arc::clone(&known.metrics),
        };
        memory.models.insert(config.name.clone(), known);
        model
    }

    /// `former`: weights of another ModelDeployment of the same name, which was deleted without its pods. Traffic stays as it is until this one has weights of
    /// its own; of these the generation says nothing, so that no operator takes them for a confirmation.
    fn remember(&self, config: &ModelConfig, former: Option<Weights>) -> Remembered {
        let start = hash(&[self.settings.pod_name.as_bytes(), config.uid.as_bytes()]);
        let budget = Budget::new(self.settings.shield_floor, self.settings.shield_percent, Instant::now().into_std());
        Remembered {
            uid: config.uid.clone(),
            weights: None,
            inherited: former.map(|former| Weights { generation: 0, ..former }),
            arms: HashMap::new(),
            schedule: Arc::new(Schedule::starting_at(start)),
            budget: Arc::new(budget),
            metrics: Arc::new(self.metrics.model(&config.name)),
        }
    }

    /// Tells every brake the weights in force, also those of revisions that have no weight any more: that is what releases them.
    fn settle_brakes(known: &mut Remembered, generation: i64, backends: &[Backend]) {
        for backend in backends {
            known.arms.entry(backend.revision.clone()).or_default();
        }
        known.arms.retain(|revision, state| {
            let backend = backends.iter().find(|backend| backend.revision == *revision);
            state.brake.apply(generation, backend.map_or(0, |backend| backend.permille));
            backend.is_some() || state.in_flight() > 0
        });
    }

    fn arm(
        &self,
        known: &mut Remembered,
        old: Option<&Arc<Model>>,
        config: &ModelConfig,
        snapshot: &Snapshot,
        backend: &Backend,
    ) -> Arc<Arm> {
        let empty = (EndpointGroup::default(), EndpointSet::default());
        let group = snapshot.endpoints.get(&(config.name.clone(), backend.revision.clone())).unwrap_or(&empty.0);
        let before = old.and_then(|old| old.arm(&backend.revision));
        let same_generation = old.filter(|old| generation(old.weights.as_ref()) == generation(known.weights.as_ref()));
        let tally = same_generation.and(before).map_or_else(Arc::default, |arm| Arc::clone(&arm.tally));
        let endpoints = EndpointSet::new(group, before.map_or(&empty.1, |arm| &arm.endpoints), &self.connector);
        let metrics = self.metrics.arm(&config.name, &backend.revision, backend.role);
        let state = known.arms.entry(backend.revision.clone()).or_default().clone();
        let braked = backend.role == Role::Candidate && state.brake.is_tripped();
        metrics.braked.set(i64::from(braked));
        metrics.weight.set(i64::from(backend.permille));
        metrics.endpoints.set(endpoints.len() as i64);
        Arc::new(Arm {
            revision: backend.revision.clone(),
            // Revisions are label values, hence always valid here.
            header: HeaderValue::from_str(&backend.revision).unwrap_or(HeaderValue::from_static("invalid")),
            role: backend.role,
            permille: backend.permille,
            endpoints,
            state,
            tally,
            metrics,
            brake: config.brake,
            changes: self.changes.clone(),
        })
    }
}

fn lingering(known: &Remembered, backends: &[Backend]) -> Vec<(String, Arc<ArmState>)> {
    let gone = known.arms.iter().filter(|(revision, _)| backends.iter().all(|backend| backend.revision != **revision));
    gone.map(|(revision, state)| (revision.clone(), Arc::clone(state))).collect()
}

fn generation(weights: Option<&Weights>) -> i64 {
    weights.map_or(0, |weights| weights.generation)
}

/// The backends, and the preview revision as a candidate without weight when it is not among them.
fn with_preview(weights: &Weights) -> Vec<Backend> {
    let mut backends = weights.backends.clone();
    if let Some(preview) = &weights.preview
        && backends.iter().all(|backend| backend.revision != *preview)
    {
        backends.push(Backend { revision: preview.clone(), role: Role::Candidate, permille: 0 });
    }
    backends
}

/// Whether a revision to which weights send has endpoints.
fn is_served(weights: &Weights, config: &ModelConfig, snapshot: &Snapshot) -> bool {
    weights.backends.iter().filter(|backend| backend.permille > 0).any(|backend| {
        let group = snapshot.endpoints.get(&(config.name.clone(), backend.revision.clone()));
        group.is_some_and(|group| !group.ready.is_empty() || !group.draining.is_empty())
    })
}

/// All traffic to one revision, for a gateway that has never seen weights (a fresh pod while the status was lost).
///
/// The choice, safest first: the revision that the status calls stable; else among revisions with endpoints the one with most
/// ready pods, because stable keeps full capacity during a rollout while a candidate is sized by its share; of equals the oldest.
/// The generation is 0, so that no operator takes this for a confirmation.
fn guess(config: &ModelConfig, snapshot: &Snapshot) -> Option<Weights> {
    let revision = config.stable.clone().or_else(|| {
        let groups = snapshot.endpoints.iter().filter(|((model, _), _)| *model == config.name);
        let usable = groups.filter(|(_, group)| !group.ready.is_empty() || !group.draining.is_empty());
        let best = usable.max_by_key(|(_, group)| (group.ready.len(), std::cmp::Reverse(group.created)))?;
        Some(best.0.1.clone())
    })?;
    let backends = vec![Backend { revision, role: Role::Stable, permille: 1000 }];
    Some(Weights { generation: 0, backends, preview: None })
}

fn claimant(config: &ModelConfig) -> Arc<Claimant> {
    Arc::new(Claimant { created: config.created, uid: config.uid.clone(), name: config.name.clone() })
}

/// Remembers since when series belong to nothing. The weight is 0 from now on; the counters stay for a while, for the last scrape.
fn note_gone(memory: &mut Memory, old: &RouteTable, new: &RouteTable) {
    let keys = |table: &RouteTable| -> HashSet<(String, Option<String>)> {
        let arms = table.models.iter().flat_map(|(name, model)| {
            let revisions = model.arms.iter().map(|arm| Some(arm.revision.clone()));
            revisions.chain([None]).map(|revision| (name.clone(), revision))
        });
        arms.collect()
    };
    let new_keys = keys(new);
    for arm in old.models.iter().flat_map(|(name, model)| model.arms.iter().map(move |arm| (name, arm))) {
        if !new_keys.contains(&(arm.0.clone(), Some(arm.1.revision.clone()))) {
            arm.1.metrics.weight.set(0);
            arm.1.metrics.braked.set(0);
            arm.1.metrics.endpoints.set(0);
        }
    }
    memory.gone.retain(|key, _| !new_keys.contains(key));
    for key in keys(old).difference(&new_keys) {
        memory.gone.entry(key.clone()).or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests;
