//! Fixtures of tests: settings of an operator, views of objects that were just applied, and merges
//! of JSON. For the tests of the core and of the operator, and for the simulator.

mod json;
mod settings;
mod views;

pub use json::merge_json;
pub use settings::plan_settings;
pub use views::{applied_object, applied_replica_set};
