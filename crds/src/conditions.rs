//! Condition types and reasons of a ModelDeployment. Both are part of the API: tools match on them.

/// The stable revision serves: at least one of its pods and a gateway are ready. Independent of
/// rollouts, rollbacks and scale-ups. Always present; the other conditions are present only while
/// they hold.
pub const READY: &str = "Ready";
/// The operator cannot proceed until a user changes something; the message names it. Has the
/// meaning that kstatus gives it, and never holds together with `Reconciling`.
pub const STALLED: &str = "Stalled";
/// A rollout is in progress, or pods are missing. Has the meaning that kstatus gives it.
pub const RECONCILING: &str = "Reconciling";
/// The last verdict of the judge over all gates; present during a rollout.
pub const GATE_PASSED: &str = "GatePassed";
/// The newest revision was rolled back; the reason gives the cause.
pub const ROLLED_BACK: &str = "RolledBack";
/// The rollout waits for a user: at a pause step, because of `spec.paused`, or because a hold
/// lasted too long.
pub const PAUSED: &str = "Paused";
/// An older ModelDeployment of the namespace holds a host or the model name of this one, or a host
/// cannot be used. All other functions of the ModelDeployment work.
pub const CONFLICTED: &str = "Conflicted";
/// The gateway of the namespace has another version than the operator and is not updated until an
/// administrator acts. It continues to serve.
pub const GATEWAY_OUTDATED: &str = "GatewayOutdated";
/// The pods of the stable revision run another operator-supplied image than new pods would. They
/// continue to serve and are replaced by `spec.restartTime` or a new revision.
pub const OUTDATED_IMAGE: &str = "OutdatedImage";
/// All condition types, in the order in which they are written.
pub const TYPES: [&str; 9] = [
    READY,
    STALLED,
    RECONCILING,
    GATE_PASSED,
    ROLLED_BACK,
    PAUSED,
    CONFLICTED,
    GATEWAY_OUTDATED,
    OUTDATED_IMAGE,
];

/// Condition reasons, in one place so that documentation and tests can list them.
pub mod reason {
    /// No rollout is in progress and the stable revision is healthy.
    pub const STABLE: &str = "Stable";
    /// The first revision of a new ModelDeployment starts.
    pub const INITIALIZING: &str = "Initializing";
    /// The candidate's pods start: the candidate gets capacity before it gets weight.
    pub const SCALING_CANDIDATE: &str = "ScalingCandidate";
    /// A weight was written, and not every gateway has confirmed it yet.
    pub const WAITING_FOR_CONFIRMATION: &str = "WaitingForConfirmation";
    /// A gateway has not confirmed the weights for so long that the actual split is uncertain. The
    /// candidate gets no traffic until all gateways confirm.
    pub const GATEWAYS_UNREACHABLE: &str = "GatewaysUnreachable";
    /// The judge collects evidence at the current weight.
    pub const ANALYZING: &str = "Analyzing";
    /// A pause step is active.
    pub const PAUSE_STEP: &str = "PauseStep";
    /// `spec.paused` is true, or a user paused the rollout by the command `pause`.
    pub const USER_PAUSED: &str = "UserPaused";
    /// Blue-green: the green revision is available behind the preview address and waits for
    /// promotion.
    pub const PREVIEW: &str = "Preview";
    /// All traffic goes to the new revision. The old one keeps its pods, so that a rollback is
    /// immediate.
    pub const PROBATION: &str = "Probation";
    /// The last rollout ended with the new revision as the stable one. Used in events and in the
    /// history.
    pub const PROMOTED: &str = "Promoted";
    /// Fewer replicas of the stable revision are ready than the spec requests.
    pub const DEGRADED: &str = "Degraded";
    /// Pods created before `spec.restartTime` are replaced, one at a time.
    pub const RESTARTING: &str = "Restarting";
    /// The restart makes no progress: a new pod does not become ready, or `spec.disruptionBudget`
    /// allows no eviction. The other pods continue to serve.
    pub const RESTART_STALLED: &str = "RestartStalled";
    /// Since the pods were created, the operator's configuration names another image of the model
    /// server, or of the Redis sidecar.
    pub const IMAGE_CHANGED: &str = "ImageChanged";
    /// No pod of the stable revision is ready.
    pub const UNAVAILABLE: &str = "Unavailable";
    /// A user set the abort annotation.
    pub const USER_ABORTED: &str = "UserAborted";
    /// A gate failed.
    pub const GATE_FAILED: &str = "GateFailed";
    /// A gateway stopped sending traffic to the candidate because its brake acted.
    pub const BRAKED: &str = "Braked";
    /// The candidate did not become available within `progressDeadlineSeconds`.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// The candidate cannot load its model; the message contains the reason that the model server
    /// reports.
    pub const MODEL_LOAD_FAILED: &str = "ModelLoadFailed";
    /// Another new revision replaced the candidate.
    pub const SUPERSEDED: &str = "Superseded";
    /// A step stayed without a verdict for longer than `maxHoldSeconds`.
    pub const HOLD_EXCEEDED: &str = "HoldExceeded";
    /// A step stayed without a verdict for `maxHoldSeconds`, and the candidate answered no request
    /// in that time.
    pub const NEVER_ANSWERED: &str = "NeverAnswered";
    /// The spec equals the stable revision again.
    pub const REVERTED: &str = "Reverted";
    /// There is no verdict yet.
    pub const NO_VERDICT: &str = "NoVerdict";
    /// Every gate passed.
    pub const PASS: &str = "Pass";
    /// At least one gate failed.
    pub const FAIL: &str = "Fail";
    /// There is evidence, but not enough for a verdict.
    pub const NEED_MORE_DATA: &str = "NeedMoreData";
    /// The provider of the evidence responds, but has no usable data.
    pub const NO_DATA: &str = "NoData";
    /// Prometheus is unreachable, or its response is not usable.
    pub const PROVIDER_DOWN: &str = "ProviderDown";
    /// The operator cannot act on the spec; the message names the field and the remedy.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The object is larger than the operator caches; the message contains its size and the remedy.
    pub const TOO_LARGE: &str = "TooLarge";
    /// The API server rejected a write of the operator, or an object of the same name has another
    /// owner. The message names the object.
    pub const WRITE_REFUSED: &str = "WriteRefused";
    /// Another client keeps changing or deleting an object of the operator. The message names the
    /// object, and the client if it is known.
    pub const WRITE_REVERTED: &str = "WriteReverted";
    /// An older ModelDeployment holds a host of `spec.traffic.hosts`, or a host has the form of a
    /// Service's address. The message names both and the remedy.
    pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
    /// The update of the gateways stopped: the updated ones perform worse, or an administrator
    /// paused the update.
    pub const UPDATE_STOPPED: &str = "UpdateStopped";
    /// The operator cannot apply the annotation of the namespace with the settings of its gateway;
    /// the message names the field and the remedy.
    pub const INVALID_GATEWAY_SETTINGS: &str = "InvalidGatewaySettings";
    /// An older ModelDeployment holds the model name; the message names it and the remedy.
    pub const MODEL_NAME_CONFLICT: &str = "ModelNameConflict";
}
