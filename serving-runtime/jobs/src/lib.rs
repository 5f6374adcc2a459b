//! Asynchronous predictions: jobs wait in a queue, workers run them in batches, and results can be
//! read and are sent to callbacks.
//!
//! `worker` runs jobs through [`Predictor`](slipway_runtime_predict::predictor::Predictor),
//! `callback` sends the results. The guarantees are in docs/queue.md.

pub mod args;
pub mod broker;
pub mod callback;
pub mod metrics;
pub mod service;
pub mod submit;
pub mod view;
pub mod worker;
