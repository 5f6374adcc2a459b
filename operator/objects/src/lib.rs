//! Objects of Kubernetes: names, settings and builders of every object of a ModelDeployment (the
//! table "Objects of one ModelDeployment" in docs/contracts.md). Pure: no client, no clock.
//!
//! Each builder is a pure function and returns a [`DesiredObject`] that holds only the fields that
//! we mean: under server-side apply a field that is not there is not ours, so what others set
//! stays. Every object is already [`with_applied_hash`].
//!
//! # When to apply
//!
//! The plan compares the stamp of what we want with the stamp of what is there. Defaulting and
//! foreign fields of the API server therefore never look like a difference, and an object that is
//! as it was applied costs no request. Whether somebody changed *our* fields since is told by the
//! API server, which keeps who owns them (`slipway_core::fields`); the sizes of ReplicaSets are
//! compared by value.
//!
//! # Owners
//!
//! Everything is applied with the field manager `slipway`. Objects of one ModelDeployment have it
//! as their controller.
//!
//! The gateway's objects are shared by all ModelDeployments of a namespace ([`is_shared`]) and
//! carry a plain owner reference to each of them, so that they are collected with the last one. All
//! else in them is the same for every ModelDeployment (it depends on
//! [`PlanSettings`](crate::settings::PlanSettings) alone), and the stamp leaves owner references
//! out, so ModelDeployments never fight over them. The shell merges the references in by UID, and
//! Kubernetes' garbage collector removes the reference of a ModelDeployment that is gone.

mod autoscaler;
mod cache;
mod canonical_json;
pub mod desired;
mod gateway;
pub mod gateway_settings;
mod hash;
mod keys;
mod kinds;
mod meta;
mod network_policy;
mod pod;
mod queue;
mod replica_set;
pub mod reserved;
pub mod revision;
mod service;
pub mod settings;
mod template;
mod volumes;
mod worker;

pub use autoscaler::{disruption_budget, model_autoscaler};
pub use gateway::{
    gateway_applied_hash, gateway_autoscaler, gateway_deployment, gateway_disruption_budget,
    gateway_objects, gateway_role_binding, gateway_service_account, initial_gateway_replicas,
};
pub use hash::{applied_hash, with_applied_hash};
pub use keys::{KEYS, KEYS_FILES};
pub use kinds::{ManagedKind, ObjectTarget};
pub use meta::{MAX_OWNERS, controller_reference, is_shared};
pub use network_policy::{
    gateway_network_policy, network_policy, template_network_policy, worker_network_policy,
};
pub use replica_set::{container_images, has_fetch_step, replica_set};
pub use reserved::{DIGEST_VARIABLE, FETCH, GATEWAY, preview_name, revision_name, worker_name};
pub use service::{gateway_service, preview_service, revision_service, stable_service};
pub use worker::{worker_autoscaler, worker_deployment};

#[cfg(test)]
mod tests;
