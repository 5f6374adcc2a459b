//! The public contract of Slipway: the types of the API group `ml.slipway.dev`, its labels,
//! annotations and condition reasons, the rule for which ModelDeployment holds a host or a model
//! name, and the CustomResourceDefinition generated from the types.
//!
//! The crate contains no API client. A program that talks to a cluster uses its own.

#![warn(missing_docs)]
// KubeSchema expands every struct a second time inside a function, where `pub` has no effect.
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

/// All CustomResourceDefinitions of this crate as they are installed, with the API conventions
/// applied (see [`schema`]).
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![schema::apply_conventions(v1alpha1::ModelDeployment::crd())]
}

/// The YAML of one CustomResourceDefinition as it is committed and released.
///
/// # Errors
/// If the definition cannot be serialized as YAML, which would be a bug in this crate.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Generated from crds/src by `cargo run -p slipway-crds --bin crdgen`; do not edit.\n{}",
        serde_yaml::to_string(crd)?
    ))
}
