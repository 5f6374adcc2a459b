//! The parts of a ModelDeployment that a gateway reads.
//!
//! A gateway may be older than the operator, or newer than the CustomResourceDefinition. It
//! therefore reads only what it applies and ignores unknown fields. When a value of the spec has an
//! unknown format, the last spec that could be parsed stays in force, and the weights and aborts
//! that the operator writes still take effect.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error, IgnoredAny};
use serde_json::Value;
use slipway_crds::v1alpha1::units::permille;
use slipway_crds::v1alpha1::{ModelDeployment, Percentage};

/// Size limit of the kept part of a spec, in bytes as JSON. According to the schema it has at most
/// a tenth of that.
const MAX_SPEC_BYTES: usize = 256 << 10;
/// The kept fields of the spec, by the path of their parent.
const KEPT_FIELDS: [(&[&str], &[&str]); 6] = [
    (&[], &["model", "replicas", "server", "queue", "feedback", "traffic"]),
    (&["model"], &["name"]),
    (&["server"], &["cache", "queue"]),
    (&["server", "cache"], &["results", "features"]),
    (&["queue"], &["maxJobs", "callbacks"]),
    (&["queue", "callbacks"], &["allow"]),
];

/// The parts of a ModelDeployment that a gateway reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoutedModelDeployment {
    /// Name, UID, creation.
    pub metadata: ObjectMeta,
    /// Written by the user.
    spec: Value,
    /// Written by the operator.
    status: Value,
}

impl RoutedModelDeployment {
    /// A ModelDeployment of which only the metadata is known.
    pub fn from_metadata(metadata: &ObjectMeta) -> Self {
        Self { metadata: metadata.clone(), ..Self::default() }
    }

    /// Drops everything that a gateway does not apply: an object may have 1.5 MB, and a namespace
    /// may have hundreds of objects. A spec that is still too large is dropped completely, so that
    /// the last parsed one stays in force; the weights take effect.
    pub fn trim(&mut self) {
        let metadata = &mut self.metadata;
        (metadata.annotations, metadata.labels, metadata.owner_references) = (None, None, None);
        (metadata.finalizers, metadata.managed_fields) = (None, None);
        for (path, fields) in KEPT_FIELDS {
            let value = path.iter().try_fold(&mut self.spec, |value, name| value.get_mut(name));
            retain_fields(value, fields);
        }
        // Only its presence matters.
        let queue = self.spec.get_mut("server").and_then(|server| server.get_mut("queue"));
        if let Some(queue) = queue.filter(|queue| !queue.is_null()) {
            *queue = Value::Bool(true);
        }
        if serde_json::to_string(&self.spec).map_or(0, |text| text.len()) > MAX_SPEC_BYTES {
            self.spec = Value::Null;
        }
        retain_fields(Some(&mut self.status), &["rollout", "stable", "traffic"]);
        retain_fields(self.status.get_mut("rollout"), &["startTime"]);
        retain_fields(self.status.get_mut("stable"), &["revision"]);
    }

    /// The spec.
    ///
    /// # Errors
    /// When a value has an unknown format.
    pub fn spec(&self) -> Result<SpecView, serde_json::Error> {
        SpecView::deserialize(&self.spec)
    }

    /// The spec without the parts that cannot be parsed.
    pub fn lenient_spec(&self) -> SpecView {
        let (server, traffic) = (&self.spec["server"], &self.spec["traffic"]);
        let server = ServerView {
            cache: parse_or_default(&server["cache"]),
            queue: parse_or_default(&server["queue"]),
        };
        let traffic = TrafficView {
            hosts: parse_or_default(&traffic["hosts"]),
            timeout_seconds: parse_or_default(&traffic["timeoutSeconds"]),
            max_request_size: parse_or_default(&traffic["maxRequestSize"]),
            stickiness: parse_or_default(&traffic["stickiness"]),
            revision_header: parse_or_default(&traffic["revisionHeader"]),
            replay: parse_or_default(&traffic["replay"]),
            shield: parse_or_default(&traffic["shield"]),
            brake: parse_or_default(&traffic["brake"]),
        };
        let replicas = parse_or_default(&self.spec["replicas"]);
        let (model, queue) =
            (parse_or_default(&self.spec["model"]), parse_or_default(&self.spec["queue"]));
        SpecView {
            model,
            replicas,
            server,
            queue,
            feedback: parse_or_default(&self.spec["feedback"]),
            traffic,
        }
    }

    /// Start time of the rollout, as in the status; empty without a rollout.
    pub fn rollout_start(&self) -> String {
        parse_or_default(&self.status["rollout"]["startTime"])
    }

    /// The stable revision.
    pub fn stable_revision(&self) -> Option<String> {
        parse_or_default(&self.status["stable"]["revision"])
    }

    /// The weights, if there are any.
    ///
    /// # Errors
    /// When they cannot be parsed.
    pub fn weights(&self) -> Result<Option<WeightsView>, serde_json::Error> {
        let weights: Option<WeightsView> = Option::deserialize(&self.status["traffic"])?;
        let mut backends = weights.iter().flat_map(|weights| &weights.backends);
        match backends.find(|backend| backend.weight_permille == permille::UNREADABLE) {
            Some(backend) => Err(serde_json::Error::custom(format!(
                "the weight of {} is no percentage",
                backend.revision
            ))),
            None => Ok(weights),
        }
    }
}

/// Removes all other fields from an object.
fn retain_fields(value: Option<&mut Value>, fields: &[&str]) {
    if let Some(Value::Object(map)) = value {
        map.retain(|name, _| fields.contains(&name.as_str()));
    }
}

fn parse_or_default<T: DeserializeOwned + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

/// The parts of the spec that a gateway reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpecView {
    pub model: ModelView,
    /// Number of replicas of the stable revision.
    pub replicas: Option<i32>,
    /// The model server.
    pub server: ServerView,
    /// Limits of the queue.
    pub queue: Option<QueueView>,
    /// Accepted feedback.
    pub feedback: FeedbackView,
    /// Traffic settings.
    pub traffic: TrafficView,
}

/// Part of `spec.model`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ModelView {
    /// Model name in the protocol.
    pub name: Option<String>,
}

/// Part of `spec.server`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerView {
    pub cache: CacheView,
    /// Storage of the queue; only its presence matters.
    pub queue: Option<IgnoredAny>,
}

/// Part of `spec.queue`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueView {
    /// Maximum number of waiting jobs.
    pub max_jobs: Option<i64>,
    pub callbacks: Option<CallbacksView>,
}

/// Part of `spec.queue.callbacks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CallbacksView {
    /// Allowed destinations.
    pub allow: Vec<String>,
}

/// Part of `spec.feedback`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FeedbackView {
    /// Names of outcomes.
    pub outcomes: Vec<String>,
}

/// Part of `spec.server.cache`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheView {
    /// The result cache.
    pub results: Option<ModeSwitch>,
    /// The feature cache.
    pub features: Option<ModeSwitch>,
}

/// A part that can be switched off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ModeSwitch {
    /// On unless this is `Disabled`.
    pub mode: String,
}

/// Part of `spec.traffic`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficView {
    /// Declared hosts.
    pub hosts: Vec<String>,
    /// Deadline of a request.
    pub timeout_seconds: Option<i32>,
    /// Largest request body.
    pub max_request_size: Option<Quantity>,
    /// Keeps an entity on one revision.
    pub stickiness: Option<StickinessView>,
    /// Whether answers contain the revision.
    pub revision_header: Option<ModeSwitch>,
    /// Predictions may be sent again unless this is `Disabled`.
    pub replay: String,
    /// Replays to the stable revision.
    pub shield: ShieldView,
    /// Circuit breaker of the candidate.
    pub brake: BrakeView,
}

/// Part of `spec.traffic.stickiness`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StickinessView {
    /// The header that contains the entity.
    pub header: String,
}

/// Part of `spec.traffic.shield`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ShieldView {
    /// On unless this is `Disabled`, so that an unknown value does not remove the protection.
    pub mode: String,
    /// Time limit of the candidate.
    pub candidate_timeout_milliseconds: Option<i32>,
}

/// Part of `spec.traffic.brake`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrakeView {
    /// Number of failures before it can trip.
    pub min_failures: Option<i32>,
    /// On unless this is `Disabled`.
    pub mode: String,
    /// Size of the window in requests.
    pub window_requests: Option<i32>,
    /// Failure rate at which it trips.
    pub failure_rate: Option<Percentage>,
}

/// `status.traffic`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightsView {
    /// Increases with every change.
    #[serde(default)]
    pub generation: i64,
    /// Revisions and their weights.
    #[serde(default)]
    pub backends: Vec<BackendView>,
    /// The revision behind the preview address.
    #[serde(default)]
    pub preview_revision: Option<String>,
}

/// The weight of one revision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    pub revision: String,
    /// `Stable`, or any other value for a revision under test, which the brake may take out.
    pub role: String,
    /// Weight in thousandths.
    #[serde(rename = "weight", with = "permille")]
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: Value) -> RoutedModelDeployment {
        let status = json!({
            "traffic": {"generation": 3, "backends": [{"revision": "r", "role": "Stable", "weight": 100}]},
            "stable": {"revision": "r", "message": "x".repeat(300 << 10)}, "history": ["x".repeat(300 << 10)],
            "rollout": {"startTime": "2026-01-01T00:00:00Z", "steps": []}
        });
        let metadata =
            json!({"name": "m", "uid": "u", "annotations": {"a": "x".repeat(200 << 10)}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
            .unwrap()
    }

    #[test]
    fn of_a_large_object_only_what_is_applied_is_kept() {
        let spec = json!({
            "model": {"name": "n", "uri": "x".repeat(2048)}, "replicas": 2, "template": {"spec": "x".repeat(1 << 20)},
            "server": {"cache": {"results": {"mode": "Enabled"}, "sidecar": "x".repeat(1 << 20)}, "queue": {"redis": {}}},
            "queue": {"maxJobs": 7, "callbacks": {"allow": ["a.example"]}, "worker": "x".repeat(1 << 20)},
            "traffic": {"hosts": ["m.example"], "timeoutSeconds": 5}, "feedback": {"outcomes": ["clicked"]}
        });
        let whole = object(spec);
        let mut kept = whole.clone();
        kept.trim();
        let size = |value: &Value| value.to_string().len();
        assert!(size(&kept.spec) + size(&kept.status) < 2000, "{} {}", kept.spec, kept.status);
        assert_eq!((kept.metadata.name.as_deref(), &kept.metadata.annotations), (Some("m"), &None));
        let applied = |object: &RoutedModelDeployment| {
            let (spec, weights) = (object.spec().unwrap(), object.weights().unwrap());
            format!(
                "{spec:?} {weights:?} {:?} {}",
                object.stable_revision(),
                object.rollout_start()
            )
        };
        assert_eq!(applied(&kept), applied(&whole), "all that is applied is there");
    }

    #[test]
    fn of_what_is_too_large_all_the_same_the_weights_are_kept() {
        let mut object = object(json!({"traffic": {"hosts": ["x".repeat(300 << 10)]}}));
        object.trim();
        assert!(object.spec().is_err(), "the last one stays in force");
        assert_eq!(object.weights().unwrap().unwrap().backends.len(), 1);
    }
}
