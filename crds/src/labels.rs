//! Labels and annotations: part of the API, docs/contracts.md, "Labels and annotations".

/// `app.kubernetes.io/managed-by`, always [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "slipway";
/// `app.kubernetes.io/part-of`: the name of the ModelDeployment.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// `app.kubernetes.io/component`: one of the `COMPONENT_*` values.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// [`COMPONENT`] of the pods of the model server.
pub const COMPONENT_RUNTIME: &str = "runtime";
/// [`COMPONENT`] of the gateway's pods.
pub const COMPONENT_GATEWAY: &str = "gateway";
/// [`COMPONENT`] of the pods that run jobs.
pub const COMPONENT_WORKER: &str = "worker";
/// How labels and annotations of Slipway begin. Pod templates of users may set none.
pub const PREFIX: &str = "ml.slipway.dev/";
/// The ModelDeployment that an object belongs to.
pub const MODEL_DEPLOYMENT: &str = "ml.slipway.dev/modeldeployment";
/// The revision that an object belongs to.
pub const REVISION: &str = "ml.slipway.dev/revision";

/// Annotation of a Namespace: settings of its own for its gateway, as YAML of the shape of the
/// chart's `gateway`: `replicas`, `autoscaling`, `template`.
pub const GATEWAY_SETTINGS: &str = "ml.slipway.dev/gateway";

/// Annotation of a person: end the current pause, or skip what the current step waits for. For the
/// value of commands see `commands.rs`.
pub const PROMOTE: &str = "ml.slipway.dev/promote";
/// Annotation of a person: skip all remaining steps and gates; capacity and confirmation still
/// hold.
pub const PROMOTE_FULL: &str = "ml.slipway.dev/promote-full";
/// Annotation of a person: send all traffic back to the stable revision.
pub const ABORT: &str = "ml.slipway.dev/abort";
/// Annotation of a person: start an aborted revision again from its first step.
pub const RETRY: &str = "ml.slipway.dev/retry";
/// Annotation of a person: hold the rollout where it is.
pub const PAUSE: &str = "ml.slipway.dev/pause";
/// Annotation of a person: let a rollout go on that was held by [`PAUSE`].
pub const RESUME: &str = "ml.slipway.dev/resume";
/// The commands, in the order in which they are looked at: an abort wins over everything.
pub const COMMANDS: [&str; 6] = [ABORT, RETRY, PAUSE, RESUME, PROMOTE_FULL, PROMOTE];

/// Annotation on a ReplicaSet: the label `version` of the model that its pods serve, for people.
pub const VERSION: &str = "ml.slipway.dev/version";

/// Annotation on a ReplicaSet: the digest of the model that its pods serve, and refuse others;
/// empty until the first pod has told.
pub const MODEL_DIGEST: &str = "ml.slipway.dev/model-digest";

/// Annotation on the pods of workers: the newest `spec.restartTime` that is over, so that another
/// one replaces them.
pub const RESTART_TIME: &str = "ml.slipway.dev/restart-time";

/// Annotation on a ReplicaSet: since when its revision was the stable one, as RFC 3339. Read when
/// the status is lost; of several the latest counts.
pub const STABLE_SINCE: &str = "ml.slipway.dev/stable-since";
/// Annotation on a ReplicaSet: when and why the rollout of its revision was taken back, as RFC
/// 3339, a blank and the reason. Read when the status is lost.
pub const ABORTED: &str = "ml.slipway.dev/aborted";

/// Annotation on objects that the operator makes: hash of what was applied last. A child is applied
/// again when it differs, and only then.
pub const APPLIED: &str = "ml.slipway.dev/applied";

/// The selector of the scale subresource: the runtime pods of all revisions, stable over time.
pub fn scale_selector(name: &str) -> String {
    format!("{COMPONENT}={COMPONENT_RUNTIME},{MODEL_DEPLOYMENT}={name}")
}
