//! Labels and annotations. They are part of the API; see docs/contracts.md, "Labels and
//! annotations".

/// `app.kubernetes.io/managed-by`; its value is always [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
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
/// The revision to which an object belongs.
pub const REVISION: &str = "ml.slipway.dev/revision";

/// Annotation of a Namespace: settings for the gateway of that namespace, as YAML with the
/// structure of the chart's `gateway`: `replicas`, `autoscaling`, `template`.
pub const GATEWAY_SETTINGS: &str = "ml.slipway.dev/gateway";

/// Annotation set by a user: end the current pause, or skip what the current step waits for. For
/// the form of the value see `commands.rs`.
pub const PROMOTE: &str = "ml.slipway.dev/promote";
/// Annotation set by a user: skip all remaining steps and gates. The candidate still needs its
/// capacity and the gateways' confirmation.
pub const PROMOTE_FULL: &str = "ml.slipway.dev/promote-full";
/// Annotation set by a user: send all traffic to the stable revision.
pub const ABORT: &str = "ml.slipway.dev/abort";
/// Annotation set by a user: restart the rollout of an aborted revision at its first step.
pub const RETRY: &str = "ml.slipway.dev/retry";
/// Annotation set by a user: pause the rollout at its current step.
pub const PAUSE: &str = "ml.slipway.dev/pause";
/// Annotation set by a user: resume a rollout that [`PAUSE`] paused.
pub const RESUME: &str = "ml.slipway.dev/resume";
/// The commands in the order in which the operator reads them: an abort has precedence over all
/// others.
pub const COMMANDS: [&str; 6] = [ABORT, RETRY, PAUSE, RESUME, PROMOTE_FULL, PROMOTE];

/// Annotation on a ReplicaSet: the `version` of the model that its pods serve. Informational.
pub const VERSION: &str = "ml.slipway.dev/version";

/// Annotation on a ReplicaSet: the digest of the model that its pods serve; they reject any other
/// model. Empty until the first pod has reported a digest.
pub const MODEL_DIGEST: &str = "ml.slipway.dev/model-digest";

/// Annotation on the pods of workers: the newest past `spec.restartTime`. A new value replaces the
/// pods.
pub const RESTART_TIME: &str = "ml.slipway.dev/restart-time";

/// Annotation on a ReplicaSet: the time since which its revision is the stable one, as RFC 3339.
/// Read when the status is lost; if several ReplicaSets have it, the latest time wins.
pub const STABLE_SINCE: &str = "ml.slipway.dev/stable-since";
/// Annotation on a ReplicaSet: when and why the rollout of its revision was rolled back, as an RFC
/// 3339 time, a space and the reason. Read when the status is lost.
pub const ABORTED: &str = "ml.slipway.dev/aborted";

/// Annotation on objects that the operator makes: hash of what was applied last. A child is applied
/// again when it differs, and only then.
pub const APPLIED: &str = "ml.slipway.dev/applied";

/// The selector of the scale subresource: the runtime pods of all revisions, stable over time.
pub fn scale_selector(name: &str) -> String {
    format!("{COMPONENT}={COMPONENT_RUNTIME},{MODEL_DEPLOYMENT}={name}")
}
