//! What this pod tells the operator: one line of JSON a second, and at once when something changed.
//!
//! An operator that asks for changes (`/v1/state?changes=true`) is told everything once and then what is new; one that does not, everything in each line.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

use crate::{
    brake::Trip,
    gateway::Gateway,
    model::{Model, Tally},
};

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// This pod.
    pub pod: String,
    /// Requests of all clients since the process began.
    pub clients: Clients,
    /// All ModelDeployments, or those about which there is news.
    pub models: Vec<ModelState>,
    /// Present when a line says only what is new since the line before.
    #[serde(flatten)]
    pub news: Option<News>,
}

/// Requests of all clients.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// All that ended.
    pub ended: u64,
    /// Those that failed by no fault of the client.
    pub failed: u64,
}

/// What there is besides in a stream of news.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// Always: what the line does not name is as it was.
    pub changes: bool,
    /// UIDs of ModelDeployments that are not there any more.
    pub gone: Vec<String>,
    /// Whether what there is now goes on in the next line.
    pub more: bool,
}

/// One ModelDeployment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelState {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The generation of weights in force; 0 when none was ever seen.
    pub generation: i64,
    /// Requests since the generation was applied, by revision.
    pub requests: BTreeMap<String, u64>,
    /// Those that were answered, clients' own mistakes included, by revision.
    pub answered: BTreeMap<String, u64>,
    /// Requests since the generation was applied that were kept from the candidate, because their bodies could not be kept to be sent again.
    pub unshielded: u64,
    /// Requests that are there now, by revision.
    pub in_flight: BTreeMap<String, usize>,
    /// Ready endpoints, by revision.
    pub ready_endpoints: BTreeMap<String, usize>,
    /// Why this pod keeps traffic from a candidate, if it does.
    pub brake: Option<Trip>,
}

/// The state at this moment.
pub fn state(gateway: &Gateway) -> State {
    let mut models: Vec<_> = gateway.router.models().iter().map(|model| model_state(model)).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    State { pod: gateway.settings.pod_name.clone(), clients: clients(gateway), models, news: None }
}

fn clients(gateway: &Gateway) -> Clients {
    let totals = &gateway.metrics.totals;
    // In this order, so that no more have failed than ended.
    let failed = totals.failed.load(Ordering::Relaxed);
    Clients { ended: totals.ended.load(Ordering::Relaxed), failed }
}

fn model_state(model: &Model) -> ModelState {
    let arms = || model.arms.iter();
    let tally = |of: fn(&Tally) -> &AtomicU64| {
        arms().map(|arm| (arm.revision.clone(), of(&arm.tally).load(Ordering::Relaxed))).collect()
    };
    let lingering = model.lingering.iter().map(|(revision, state)| (revision.clone(), state.in_flight()));
    let in_flight = arms().map(|arm| (arm.revision.clone(), arm.state.in_flight()));
    ModelState {
        name: model.config.name.clone(),
        uid: model.config.uid.clone(),
        generation: model.weights.as_ref().map_or(0, |weights| weights.generation),
        requests: tally(|tally| &tally.requests),
        unshielded: arms().map(|arm| arm.tally.unshielded.load(Ordering::Relaxed)).sum(),
        // In this order, so that what looks ended has its answer counted.
        in_flight: in_flight.chain(lingering.filter(|(_, count)| *count > 0)).collect(),
        answered: tally(|tally| &tally.answered),
        ready_endpoints: arms().map(|arm| (arm.revision.clone(), arm.endpoints.ready())).collect(),
        brake: arms().find(|arm| arm.is_braked()).and_then(|arm| arm.state.brake.trip()),
    }
}

/// The state as a line; an empty line when it cannot be written, which would be a bug, and which a reader skips.
pub fn line(state: &State) -> String {
    let mut line = serde_json::to_string(state).unwrap_or_default();
    line.push('\n');
    line
}

/// ModelDeployments in one line. A line is read whole, and thus bounded by its reader.
const MAX_MODELS: usize = 500;
/// Counts of a ModelDeployment that is not in a rollout are told so many seconds apart: nobody waits for them, and ten thousand a second are a load.
const REST: u64 = 60;

/// What one listener was told.
#[derive(Debug, Default)]
pub struct Told {
    models: HashMap<String, Print>,
    /// Seconds that it has listened.
    seconds: u64,
    /// What is to be told in the next lines.
    pending: VecDeque<Arc<Model>>,
}

/// What was told of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Print {
    uid: String,
    /// Of all that a plan may wait for.
    state: u64,
    /// Of the counts.
    counts: u64,
}

impl Print {
    fn of(model: &Model) -> Self {
        let (mut state, mut counts) = (DefaultHasher::new(), 0_u64);
        model.weights.as_ref().map(|weights| weights.generation).hash(&mut state);
        for arm in &model.arms {
            (&arm.revision, arm.endpoints.ready(), arm.is_braked()).hash(&mut state);
            // Requests that go are as much news as those that come.
            counts = counts.wrapping_mul(31).wrapping_add(arm.tally.requests.load(Ordering::Relaxed));
            counts = counts.wrapping_mul(31).wrapping_add(arm.tally.answered.load(Ordering::Relaxed));
            counts = counts.wrapping_mul(31).wrapping_add(arm.state.in_flight() as u64);
        }
        for (revision, arm) in &model.lingering {
            (revision, arm.in_flight()).hash(&mut state);
        }
        Self { uid: model.config.uid.clone(), state: state.finish(), counts }
    }
}

impl Told {
    /// What is new of these ModelDeployments, or of all; `seconds` since the listener came.
    pub fn news(&mut self, gateway: &Gateway, names: Option<&BTreeSet<Arc<str>>>) -> State {
        let mut gone = Vec::new();
        match names {
            Some(names) => {
                for name in names {
                    let model = gateway.router.table().models.get(&**name).cloned();
                    self.compare(name, model, true, &mut gone);
                }
            }
            None => {
                self.seconds += 1;
                let models = gateway.router.models();
                let there: HashSet<&str> = models.iter().map(|model| model.config.name.as_str()).collect();
                let left: Vec<_> = self.models.keys().filter(|name| !there.contains(name.as_str())).cloned().collect();
                left.iter().for_each(|name| self.compare(name, None, true, &mut gone));
                for model in &models {
                    self.compare(&model.config.name, Some(Arc::clone(model)), false, &mut gone);
                }
            }
        }
        self.next(gateway, gone)
    }

    /// Whether there is more of it.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next part.
    pub fn next(&mut self, gateway: &Gateway, gone: Vec<String>) -> State {
        let part = self.pending.drain(..self.pending.len().min(MAX_MODELS));
        let models = part.map(|model| model_state(&model)).collect();
        let more = self.has_more();
        let (pod, clients) = (gateway.settings.pod_name.clone(), clients(gateway));
        State { pod, clients, models, news: Some(News { changes: true, gone, more }) }
    }

    fn compare(&mut self, name: &str, model: Option<Arc<Model>>, at_once: bool, gone: &mut Vec<String>) {
        let print = model.as_deref().map(Print::of);
        let before = self.models.get(name);
        if let Some(before) = before.filter(|before| print.as_ref().is_none_or(|print| print.uid != before.uid)) {
            gone.push(before.uid.clone());
        }
        let (Some(model), Some(print)) = (model, print) else {
            self.models.remove(name);
            return;
        };
        let counts_are_due = at_once || !is_at_rest(&model) || self.seconds % REST == turn(name);
        let is_news = before.is_none_or(|before| {
            (&before.uid, before.state) != (&print.uid, print.state) || before.counts != print.counts && counts_are_due
        });
        if is_news {
            self.models.insert(name.to_owned(), print);
            self.pending.push_back(model);
        }
    }
}

/// Whether no plan waits for its counts.
fn is_at_rest(model: &Model) -> bool {
    model.arms.len() <= 1 && model.lingering.is_empty()
}

/// The second of [`REST`] in which its counts are told.
fn turn(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % REST
}
