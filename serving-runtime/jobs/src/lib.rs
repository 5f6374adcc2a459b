//! Asynchronous predictions: jobs that wait in a queue, workers that run them in batches, results
//! that can be read and are called back.
//!
//! `worker` takes jobs through [`Predictor`](slipway_runtime_predict::predictor::Predictor),
//! `callback` tells the results. What is promised is in docs/queue.md.

pub mod args;
pub mod broker;
pub mod callback;
pub mod metrics;
pub mod service;
pub mod submit;
pub mod view;
pub mod worker;
