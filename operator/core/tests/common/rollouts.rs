//! Rollouts with which several tests begin.

use serde_json::{Value, json};

use super::World;

pub fn steps(weights: &[i32]) -> Value {
    let steps: Vec<Value> = weights.iter().map(|weight| json!({ "setWeight": weight })).collect();
    json!({ "strategy": { "canary": { "steps": steps } } })
}

pub fn canary(version: &str) -> World {
    let mut world = World::serving(steps(&[5, 50, 100]));
    world.version(version);
    world
}

pub fn all_at(world: &World, version: &str) -> bool {
    world.weights() == [(version.to_owned(), 1000)]
}
