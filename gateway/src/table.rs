//! The route table, changed by one ModelDeployment at a time, and what is remembered of each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use http::HeaderValue;
use slipway_crds::routing::{ClaimRegistry, RouteClaimant};
use slipway_prediction_id::Report;
use tokio::{sync::watch, time::Instant};

use crate::{
    budget::Budget,
    config::{Backend, EndpointGroup, ModelConfig, Role, Settings, Snapshot, Weights},
    convert::Endpoints,
    endpoint::EndpointSet,
    keys::Keys,
    metrics::{Metrics, ModelMetrics},
    model::{Arm, ArmState, Changes, LimitHeaders, Model, Pools, Shares},
    split::{Schedule, Stickiness},
    upstream::Connector,
};

/// Everything that routing needs, at one moment.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// ModelDeployments by name.
    pub models: HashMap<String, Arc<Model>>,
    /// Who holds declared hosts and the names of models.
    pub holders: ClaimRegistry,
}

/// Holds the current table and makes the next.
#[derive(Debug)]
pub struct Router {
    table: RwLock<RouteTable>,
    memory: Mutex<Memory>,
    metrics: Arc<Metrics>,
    changes: Changes,
    connector: Connector,
    pools: Pools,
    settings: Settings,
    keys: Arc<Keys>,
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
    shares: Shares,
    metrics: Arc<ModelMetrics>,
}

impl Router {
    /// An empty table.
    pub fn new(settings: Settings, pools: Pools, metrics: Arc<Metrics>, connector: Connector, keys: Arc<Keys>) -> Self {
        Self {
            table: RwLock::default(),
            memory: Mutex::default(),
            metrics,
            changes: Changes::default(),
            connector,
            pools,
            settings,
            keys,
        }
    }

    /// The current table. Not for long: changes wait for it.
    pub fn table(&self) -> RwLockReadGuard<'_, RouteTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every change: weights, endpoints, brakes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Names of the ModelDeployments that changed after a version; none when too many have.
    pub fn changed_since(&self, version: u64) -> Option<BTreeSet<Arc<str>>> {
        self.changes.since(version)
    }

    /// All ModelDeployments, without keeping the table from those who change it.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.table().models.values().cloned().collect()
    }

    /// Makes a snapshot the current table.
    pub fn apply(&self, snapshot: &Snapshot) {
        let mut endpoints: HashMap<&str, Endpoints> = HashMap::new();
        for ((model, revision), group) in &snapshot.endpoints {
            endpoints.entry(model).or_default().insert(revision.clone(), group.clone());
        }
        let gone: Vec<_> =
            self.table().models.keys().filter(|name| !snapshot.models.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| self.update(name, None));
        for (name, config) in &snapshot.models {
            self.update(name, Some((config, endpoints.remove(name.as_str()).unwrap_or_default())));
        }
    }

    /// One ModelDeployment is another, or is gone.
    pub fn update(&self, name: &str, told: Option<(&ModelConfig, Endpoints)>) {
        // One at a time: what comes is made from what is there.
        let mut memory = self.memory();
        let old = self.table().models.get(name).cloned();
        let new = told.map(|(config, endpoints)| Arc::new(self.model(&mut memory, old.as_ref(), config, &endpoints)));
        if new.is_none() {
            memory.models.remove(name);
        }
        note_gone(&mut memory, name, old.as_deref(), new.as_deref());
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = old {
            table.holders.remove(&claimant(&old.config), &old.config.claims);
            table.models.remove(name);
        }
        if let Some(new) = new {
            table.holders.add(&claimant(&new.config), &new.config.claims);
            table.models.insert(name.to_owned(), new);
        }
        drop(table);
        drop(memory);
        self.changes.announce(name);
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
        self.models().iter().flat_map(|model| &model.arms).for_each(|arm| arm.endpoints.sweep());
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A table that could not be finished was not swapped in, so what is remembered still fits the current one.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(
        &self,
        memory: &mut Memory,
        old: Option<&Arc<Model>>,
        config: &ModelConfig,
        endpoints: &Endpoints,
    ) -> Model {
        let known = memory.models.remove(&config.name);
        let mut known = match known {
            Some(known) if known.uid == config.uid => known,
            another => self.remember(config, another.and_then(|another| another.weights)),
        };
        let old = old.filter(|old| old.config.uid == config.uid);

        let told = config.weights.clone().filter(|weights| !weights.backends.is_empty());
        let last = known.weights.take();
        let in_force = told.or_else(|| last.clone().filter(|last| last.generation > 0));
        known.inherited.take_if(|former| in_force.is_some() || !is_served(former, endpoints));
        known.weights = in_force.or_else(|| known.inherited.clone()).or_else(|| guess(config, endpoints));
        if known.weights != last {
            tracing::info!(modeldeployment = config.name, weights = ?known.weights, "weights in force");
        }

        let generation = known.weights.as_ref().map_or(0, |weights| weights.generation);
        known.metrics.generation.set(generation);
        let backends = known.weights.as_ref().map(with_preview).unwrap_or_default();
        Self::settle_brakes(&mut known, generation, &backends);
        let arms: Vec<_> =
            backends.iter().map(|backend| self.arm(&mut known, old, config, endpoints, backend)).collect();

        let model = Model {
            config: config.clone(),
            limits: LimitHeaders::new(config.timeout, config.max_request),
            weights: known.weights.clone(),
            lingering: lingering(&known, &backends),
            arms,
            schedule: Arc::clone(&known.schedule),
            stickiness: Stickiness::new(self.keys.master().as_ref(), &config.uid, &config.rollout),
            budget: Arc::clone(&known.budget),
            shares: known.shares.clone(),
            metrics: Arc::clone(&known.metrics),
        };
        memory.models.insert(config.name.clone(), known);
        model
    }

    /// `former`: weights of another ModelDeployment of the same name, which was deleted without its pods. Traffic stays as it is until this one has weights of
    /// its own; of these the generation says nothing, so that no operator takes them for a confirmation.
    fn remember(&self, config: &ModelConfig, former: Option<Weights>) -> Remembered {
        let budget = Budget::new(self.settings.shield_floor, self.settings.shield_percent, Instant::now().into_std());
        Remembered {
            uid: config.uid.clone(),
            weights: None,
            inherited: former.map(|former| Weights { generation: 0, ..former }),
            arms: HashMap::new(),
            schedule: Arc::new(Schedule::starting_at(Report::random_sample())),
            budget: Arc::new(budget),
            shares: Shares::new(&self.pools),
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
        endpoints: &Endpoints,
        backend: &Backend,
    ) -> Arc<Arm> {
        let empty = (EndpointGroup::default(), EndpointSet::default());
        let group = endpoints.get(&backend.revision).unwrap_or(&empty.0);
        let before = old.and_then(|old| old.arm(&backend.revision));
        let same_generation = old.filter(|old| generation(old.weights.as_ref()) == generation(known.weights.as_ref()));
        let tally = same_generation.and(before).map_or_else(Arc::default, |arm| Arc::clone(&arm.tally));
        let endpoints = EndpointSet::new(group, before.map_or(&empty.1, |arm| &arm.endpoints), &self.connector);
        let preview = known.weights.as_ref().and_then(|weights| weights.preview.as_ref()) == Some(&backend.revision);
        let metrics = self.metrics.arm(&config.name, &backend.revision, backend.role, preview);
        self.metrics.outcomes.declare(&config.name, &backend.revision, &config.outcomes);
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
            changes: self.changes.of(&config.name),
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
fn is_served(weights: &Weights, endpoints: &Endpoints) -> bool {
    weights.backends.iter().filter(|backend| backend.permille > 0).any(|backend| {
        let group = endpoints.get(&backend.revision);
        group.is_some_and(|group| !group.ready.is_empty() || !group.draining.is_empty())
    })
}

/// All traffic to one revision, for a gateway that has never seen weights (a fresh pod while the status was lost).
///
/// The choice, safest first: the revision that the status calls stable; else among revisions with endpoints the one with most
/// ready pods, because stable keeps full capacity during a rollout while a candidate is sized by its share; of equals the oldest.
/// The generation is 0, so that no operator takes this for a confirmation.
fn guess(config: &ModelConfig, endpoints: &Endpoints) -> Option<Weights> {
    let revision = config.stable.clone().or_else(|| {
        let usable = endpoints.iter().filter(|(_, group)| !group.ready.is_empty() || !group.draining.is_empty());
        let best = usable.max_by_key(|(_, group)| (group.ready.len(), std::cmp::Reverse(group.created)))?;
        Some(best.0.clone())
    })?;
    let backends = vec![Backend { revision, role: Role::Stable, permille: 1000 }];
    Some(Weights { generation: 0, backends, preview: None })
}

fn claimant(config: &ModelConfig) -> Arc<RouteClaimant> {
    Arc::new(RouteClaimant { created: config.created, uid: config.uid.clone(), name: config.name.clone() })
}

/// Remembers since when series belong to nothing. The weight is 0 from now on; the counters stay for a while, for the last scrape.
fn note_gone(memory: &mut Memory, name: &str, old: Option<&Model>, new: Option<&Model>) {
    let has = |model: Option<&Model>, revision: &str| model.is_some_and(|model| model.arm(revision).is_some());
    let key = |revision: Option<&str>| (name.to_owned(), revision.map(str::to_owned));
    if new.is_some() {
        memory.gone.remove(&key(None));
    } else if old.is_some() {
        memory.gone.entry(key(None)).or_insert_with(Instant::now);
    }
    for arm in new.iter().flat_map(|model| &model.arms) {
        memory.gone.remove(&key(Some(&arm.revision)));
    }
    for arm in old.iter().flat_map(|model| &model.arms).filter(|arm| !has(new, &arm.revision)) {
        arm.metrics.weight.set(0);
        arm.metrics.braked.set(0);
        arm.metrics.endpoints.set(0);
        memory.gone.entry(key(Some(&arm.revision))).or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests;
