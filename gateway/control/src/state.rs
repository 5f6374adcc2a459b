//! The state that this pod reports to the operator: one line of JSON per second, and at once after
//! a change.
//!
//! An operator that requests changes (`/v1/state?changes=true`) receives the full state once and
//! then only changes; any other client receives the full state in each line.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slipway_contracts::state::{ClientCounts, MAX_MODELS_PER_LINE, ModelState, StateLine};
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::{ArmCounts, RoutedModel};

/// The current state.
pub fn full_state(gateway: &GatewayContext) -> StateLine {
    let mut models: Vec<_> =
        gateway.router.models().iter().map(|model| model_state(model)).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    StateLine {
        pod: gateway.settings.pod_name.clone(),
        clients: Some(client_counts(gateway)),
        models,
        ..StateLine::default()
    }
}

fn client_counts(gateway: &GatewayContext) -> ClientCounts {
    let totals = &gateway.metrics.totals;
    // Read in this order, so that `failed` never exceeds `ended`.
    let failed = totals.failed.load(Ordering::Relaxed);
    ClientCounts { ended: totals.ended.load(Ordering::Relaxed), failed }
}

fn model_state(model: &RoutedModel) -> ModelState {
    let arms = || model.arms.iter();
    let tally = |of: fn(&ArmCounts) -> &AtomicU64| {
        arms().map(|arm| (arm.revision.clone(), of(&arm.counts).load(Ordering::Relaxed))).collect()
    };
    let lingering =
        model.draining_arms.iter().map(|(revision, state)| (revision.clone(), state.in_flight()));
    let in_flight = arms().map(|arm| (arm.revision.clone(), arm.state.in_flight()));
    ModelState {
        name: model.config.name.clone(),
        uid: model.config.uid.clone(),
        generation: model.weights.as_ref().map_or(0, |weights| weights.generation),
        requests: tally(|tally| &tally.requests),
        unshielded: arms().map(|arm| arm.counts.unshielded.load(Ordering::Relaxed)).sum(),
        // Read in this order, so that the answer of every ended request is counted.
        in_flight: in_flight
            .chain(lingering.filter(|(_, count)| *count > 0))
            .map(|(revision, count)| (revision, count as u64))
            .collect(),
        answered: Some(tally(|tally| &tally.answered)),
        ready_endpoints: arms()
            .map(|arm| (arm.revision.clone(), arm.endpoints.ready_count() as u64))
            .collect(),
        brake: arms().find(|arm| arm.is_braked()).and_then(|arm| arm.state.brake.trip()),
    }
}

/// The state as a line; an empty line when serialization fails, which would be a bug. Readers skip
/// empty lines.
pub fn encode_line(state: &StateLine) -> String {
    let mut line = serde_json::to_string(state).unwrap_or_default();
    line.push('\n');
    line
}

/// Reporting interval in seconds for the counts of a ModelDeployment without a rollout: no plan
/// waits for them, and reporting ten thousand of them every second would cause load.
const REST_INTERVAL_SECONDS: u64 = 60;

/// The state that one stream has reported so far.
#[derive(Debug, Default)]
pub struct ReportedState {
    models: HashMap<String, ModelFingerprint>,
    /// Age of the stream in seconds.
    seconds: u64,
    /// ModelDeployments to report in the next lines.
    pending: VecDeque<Arc<RoutedModel>>,
}

/// Identifies the reported state of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelFingerprint {
    uid: String,
    /// Hash of the values that a plan may wait for.
    state: u64,
    /// Hash of the counts.
    counts: u64,
}

impl ModelFingerprint {
    fn from_model(model: &RoutedModel) -> Self {
        let (mut state, mut counts) = (DefaultHasher::new(), 0_u64);
        model.weights.as_ref().map(|weights| weights.generation).hash(&mut state);
        for arm in &model.arms {
            (&arm.revision, arm.endpoints.ready_count(), arm.is_braked()).hash(&mut state);
            // The end of a request is a change, too.
            counts =
                counts.wrapping_mul(31).wrapping_add(arm.counts.requests.load(Ordering::Relaxed));
            counts =
                counts.wrapping_mul(31).wrapping_add(arm.counts.answered.load(Ordering::Relaxed));
            counts = counts.wrapping_mul(31).wrapping_add(arm.state.in_flight() as u64);
        }
        for (revision, arm) in &model.draining_arms {
            (revision, arm.in_flight()).hash(&mut state);
        }
        Self { uid: model.config.uid.clone(), state: state.finish(), counts }
    }
}

impl ReportedState {
    /// Determines what has changed in these ModelDeployments, or in all, and returns the first part
    /// of it. A call for all marks the next second of the stream.
    pub fn take_changes(
        &mut self,
        gateway: &GatewayContext,
        names: Option<&BTreeSet<Arc<str>>>,
    ) -> StateLine {
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
                let there: HashSet<&str> =
                    models.iter().map(|model| model.config.name.as_str()).collect();
                let left: Vec<_> = self
                    .models
                    .keys()
                    .filter(|name| !there.contains(name.as_str()))
                    .cloned()
                    .collect();
                left.iter().for_each(|name| self.compare(name, None, true, &mut gone));
                for model in &models {
                    self.compare(&model.config.name, Some(Arc::clone(model)), false, &mut gone);
                }
            }
        }
        self.next_part(gateway, gone)
    }

    /// Whether more parts follow.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next part of the changes.
    pub fn next_part(&mut self, gateway: &GatewayContext, gone: Vec<String>) -> StateLine {
        let part = self.pending.drain(..self.pending.len().min(MAX_MODELS_PER_LINE));
        let models = part.map(|model| model_state(&model)).collect();
        let more = self.has_more();
        let (pod, clients) = (gateway.settings.pod_name.clone(), Some(client_counts(gateway)));
        StateLine { pod, clients, models, changes: true, gone: Some(gone), more: Some(more) }
    }

    fn compare(
        &mut self,
        name: &str,
        model: Option<Arc<RoutedModel>>,
        at_once: bool,
        gone: &mut Vec<String>,
    ) {
        let print = model.as_deref().map(ModelFingerprint::from_model);
        let before = self.models.get(name);
        if let Some(before) =
            before.filter(|before| print.as_ref().is_none_or(|print| print.uid != before.uid))
        {
            gone.push(before.uid.clone());
        }
        let (Some(model), Some(print)) = (model, print) else {
            self.models.remove(name);
            return;
        };
        let counts_are_due = at_once
            || !is_at_rest(&model)
            || self.seconds % REST_INTERVAL_SECONDS == report_second(name);
        let is_news = before.is_none_or(|before| {
            (&before.uid, before.state) != (&print.uid, print.state)
                || before.counts != print.counts && counts_are_due
        });
        if is_news {
            self.models.insert(name.to_owned(), print);
            self.pending.push_back(model);
        }
    }
}

/// Whether no plan waits for its counts.
fn is_at_rest(model: &RoutedModel) -> bool {
    model.arms.len() <= 1 && model.draining_arms.is_empty()
}

/// The second within [`REST_INTERVAL_SECONDS`] in which its counts are reported.
fn report_second(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % REST_INTERVAL_SECONDS
}
