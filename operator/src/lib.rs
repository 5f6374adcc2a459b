//! The I/O shell of the Slipway operator: watch, observe, plan, apply, status. It decides nothing about rollouts; that is
//! [`slipway_core::plan`]'s.

pub mod admin;
pub mod apply;
pub mod args;
pub mod backoff;
pub mod cache;
pub mod children;
pub mod claims;
pub mod client;
pub mod condition_metrics;
pub mod context;
pub mod controller;
pub mod disturbances;
pub mod error;
pub mod events;
pub mod gateway_link;
pub mod gateway_report;
pub mod gateway_updates;
pub mod lease;
pub mod main_watch;
pub mod managed;
pub mod metrics_source;
pub mod network_policies;
pub mod observe;
mod overridden;
pub mod own_writes;
pub mod prometheus;
pub mod promql;
pub mod put;
pub mod rbac;
pub mod reconcile;
pub mod refusals;
mod replicas;
pub mod run;
pub mod status;
pub mod telemetry;
pub mod views;
