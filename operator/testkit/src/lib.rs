//! Fixtures of tests: settings of an operator, objects, views of objects that were just applied,
//! and merges of JSON. For the tests of the core, of the caches and of the operator, and for the
//! simulator.

mod json;
mod replica_sets;
mod settings;
mod views;

pub use json::merge_json;
pub use replica_sets::replica_set_of;
pub use settings::plan_settings;
pub use views::{applied_object, applied_replica_set};
