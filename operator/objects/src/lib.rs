//! Kubernetes objects: names, settings and builders of every object of a ModelDeployment (the table
//! "Objects of one ModelDeployment" in docs/contracts.md). Pure: no client, no clock.
//!
//! Each builder is a pure function and returns a [`DesiredObject`] with only the fields that the
//! operator sets. With server-side apply an absent field is not owned, so values of other clients
//! stay. Every object already has its hash ([`with_applied_hash`]).
//!
//! # When to apply
//!
//! The plan compares the applied hash of the desired object with that of the existing one. Defaults
//! of the API server and fields of other clients therefore never count as a difference, and an
//! unchanged object costs no request. Whether another client has changed one of the operator's own
//! fields since is detected by the field ownership that the API server records
//! (`slipway_core::fields`); the sizes of ReplicaSets are compared by value.
//!
//! # Owners
//!
//! Every object is applied with the field manager `slipway`. The ModelDeployment is the controller
//! of its own objects.
//!
//! All ModelDeployments of a namespace share the gateway's objects ([`is_shared`]), which have a
//! plain owner reference to each of them, so that they are garbage-collected with the last one.
//! Everything else in them is the same for every ModelDeployment (it depends only on
//! [`PlanSettings`](crate::settings::PlanSettings)), and the hash excludes owner references, so
//! ModelDeployments never overwrite each other's content. The operator process merges the
//! references by UID, and Kubernetes' garbage collector removes the reference of a deleted
//! ModelDeployment.

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
