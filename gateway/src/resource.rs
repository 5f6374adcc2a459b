//! A ModelDeployment as far as a gateway reads it.
//!
//! A gateway may be older than the operator, or newer than the definition of the kind. So it reads only what it applies. A field that it does not know is nothing to it;
//! where a value of the spec has a form that it does not understand, the last spec that it understood stays in force, and the weights and aborts that the operator
//! writes take effect all the same.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use slipway_crds::v1alpha1::ModelDeployment;

/// A ModelDeployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoutedModelDeployment {
    /// Name, UID, creation.
    pub metadata: ObjectMeta,
    /// What the user wrote.
    spec: Value,
    /// What the operator wrote.
    status: Value,
}

impl RoutedModelDeployment {
    /// The spec.
    ///
    /// # Errors
    /// When a value has a form that is not understood.
    pub fn spec(&self) -> Result<Spec, serde_json::Error> {
        Spec::deserialize(&self.spec)
    }

    /// The spec without what is not understood.
    pub fn understood_spec(&self) -> Spec {
        let (model, cache, traffic) = (&self.spec["model"], &self.spec["cache"], &self.spec["traffic"]);
        let traffic = Traffic {
            hosts: understood(&traffic["hosts"]),
            timeout_seconds: understood(&traffic["timeoutSeconds"]),
            max_request_bytes: understood(&traffic["maxRequestBytes"]),
            stickiness: understood(&traffic["stickiness"]),
            shield: understood(&traffic["shield"]),
            brake: understood(&traffic["brake"]),
        };
        let replicas = understood(&self.spec["replicas"]);
        Spec { model: understood(model), replicas, cache: understood(cache), traffic }
    }

    /// The revision that serves.
    pub fn stable(&self) -> Option<String> {
        understood(&self.status["stable"]["revision"])
    }

    /// The weights, if there are any.
    ///
    /// # Errors
    /// When they are not understood.
    pub fn weights(&self) -> Result<Option<Weights>, serde_json::Error> {
        Option::deserialize(&self.status["traffic"])
    }
}

fn understood<T: DeserializeOwned + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

/// Part of the spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The model.
    pub model: Model,
    /// Replicas of stable.
    pub replicas: Option<i32>,
    /// Caches.
    pub cache: Cache,
    /// How traffic is split.
    pub traffic: Traffic,
}

/// Part of `spec.model`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Name in the protocol.
    pub name: Option<String>,
}

/// Part of `spec.cache`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// The result cache.
    pub results: Option<Switch>,
    /// The feature cache.
    pub features: Option<Switch>,
}

/// A part that can be switched off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// Whether it is on; it is when it does not say.
    pub enabled: Option<bool>,
}

/// Part of `spec.traffic`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Traffic {
    /// Declared hosts.
    pub hosts: Vec<String>,
    /// Deadline of a request.
    pub timeout_seconds: Option<i32>,
    /// Largest body.
    pub max_request_bytes: Option<i32>,
    /// Keeps an entity on its side.
    pub stickiness: Option<Stickiness>,
    /// Replays to stable.
    pub shield: Shield,
    /// Takes a failing candidate out.
    pub brake: Brake,
}

/// Part of `spec.traffic.stickiness`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stickiness {
    /// The header that names an entity.
    pub header: String,
}

/// Part of `spec.traffic.shield`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Shield {
    /// It is on unless this is `Disabled`: a word that is not known takes no protection away.
    pub mode: String,
    /// How long the candidate may take.
    pub candidate_timeout_milliseconds: Option<i32>,
}

/// Part of `spec.traffic.brake`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Brake {
    /// Failures before it acts.
    pub min_failures: Option<i32>,
    /// Share of failures at which it acts; 0 is off.
    pub failure_percent: Option<i32>,
}

/// `status.traffic`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// Grows with every change.
    #[serde(default)]
    pub generation: i64,
    /// Revisions and shares.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// The revision behind the preview address.
    #[serde(default)]
    pub preview_revision: Option<String>,
}

/// One revision's share.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The revision.
    pub revision: String,
    /// `Stable`; everything else is on trial and may be taken out.
    pub role: String,
    /// Its share in thousandths.
    pub weight_permille: i32,
}

impl Resource for RoutedModelDeployment {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        ModelDeployment::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        ModelDeployment::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        ModelDeployment::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        ModelDeployment::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
