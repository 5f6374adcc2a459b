//! The public contract of Slipway: the types of the API group `ml.slipway.dev`, the labels,
//! annotations and condition reasons that are part of it, who holds a host or the name of a model,
//! and the CustomResourceDefinition generated from the types.
//!
//! No client lives here. Whoever talks to a cluster brings their own.

// KubeSchema expands every struct once more inside a function, where `pub` reaches nothing.
#![allow(unreachable_pub)]

pub mod commands;
pub mod conditions;
pub mod labels;
pub mod quantity;
pub mod routing;
mod rules;
pub mod schema;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of all kinds in this crate.
pub const GROUP: &str = "ml.slipway.dev";

/// Every CustomResourceDefinition of this crate, as it is installed: API conventions applied (see
/// [`schema`]).
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![schema::apply_conventions(v1alpha1::ModelDeployment::crd())]
}

/// The YAML of one CustomResourceDefinition as it is committed and shipped.
///
/// # Errors
/// When the definition cannot be expressed in YAML, which would be a bug here.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Generated from crds/src by `cargo run -p slipway-crds --bin crdgen`; do not edit.\n{}",
        serde_yaml::to_string(crd)?
    ))
}
