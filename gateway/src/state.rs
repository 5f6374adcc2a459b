//! What this pod tells the operator: one line of JSON a second, and at once when something changed.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
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
    /// All ModelDeployments, by name.
    pub models: Vec<ModelState>,
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
    /// Requests that are there now, by revision.
    pub in_flight: BTreeMap<String, usize>,
    /// Ready endpoints, by revision.
    pub ready_endpoints: BTreeMap<String, usize>,
    /// Why this pod keeps traffic from a candidate, if it does.
    pub brake: Option<Trip>,
}

/// The state at this moment.
pub fn state(gateway: &Gateway) -> State {
    let table = gateway.router.table();
    let mut models: Vec<_> = table.models.values().map(|model| model_state(model)).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    State { pod: gateway.settings.pod_name.clone(), models }
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
        // In this order, so that what looks ended has its answer counted.
        in_flight: in_flight.chain(lingering.filter(|(_, count)| *count > 0)).collect(),
        answered: tally(|tally| &tally.answered),
        ready_endpoints: arms().map(|arm| (arm.revision.clone(), arm.endpoints.ready())).collect(),
        brake: arms().find(|arm| arm.is_braked()).and_then(|arm| arm.state.brake.trip()),
    }
}

/// The state as a line; an empty line when it cannot be written, which would be a bug, and which a reader skips.
pub fn line(gateway: &Gateway) -> String {
    let mut line = serde_json::to_string(&state(gateway)).unwrap_or_default();
    line.push('\n');
    line
}
