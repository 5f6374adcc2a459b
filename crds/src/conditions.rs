//! Condition types and reasons of a ModelDeployment. Both are API: tools match on them.

/// The stable revision serves: a pod of it and a gateway are ready. No rollout, rollback or
/// scale-up is a matter of this. Always there; all others only while they hold.
pub const READY: &str = "Ready";
/// Nothing goes on by itself: somebody has to change something, and the message says what. As
/// kstatus reads it; never together with `Reconciling`.
pub const STALLED: &str = "Stalled";
/// A rollout goes on, or pods are missing. As kstatus reads it.
pub const RECONCILING: &str = "Reconciling";
/// The last verdict of the judge over all gates; there in a rollout.
pub const GATE_PASSED: &str = "GatePassed";
/// The newest revision was taken back; the reason says by whom or why.
pub const ROLLED_BACK: &str = "RolledBack";
/// The rollout waits for a person: a pause step, `spec.paused`, or a hold that ran out.
pub const PAUSED: &str = "Paused";
/// A host or the model name is held by an older ModelDeployment of the namespace, or a host cannot
/// be used; everything else of it works.
pub const CONFLICTED: &str = "Conflicted";
/// The gateway of the namespace is of another version of the operator and is not updated until
/// somebody has looked; it serves all the same.
pub const GATEWAY_OUTDATED: &str = "GatewayOutdated";
/// The pods of the stable revision have another image of the operator's than new ones would have;
/// they serve all the same, until `spec.restartTime` or a new revision.
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

/// Reasons. One place, so that documentation and tests can list them.
pub mod reason {
    /// No rollout goes on and all is well.
    pub const STABLE: &str = "Stable";
    /// The first revision of a new ModelDeployment is coming up.
    pub const INITIALIZING: &str = "Initializing";
    /// The candidate's pods are coming up: capacity comes before weight.
    pub const SCALING_CANDIDATE: &str = "ScalingCandidate";
    /// A weight was written and not every gateway has confirmed it yet.
    pub const WAITING_FOR_CONFIRMATION: &str = "WaitingForConfirmation";
    /// A gateway does not confirm the weights for so long that nobody can be sure who sends what:
    /// nothing goes to the candidate until all confirm.
    pub const GATEWAYS_UNREACHABLE: &str = "GatewaysUnreachable";
    /// The judge collects evidence at the current weight.
    pub const ANALYZING: &str = "Analyzing";
    /// A pause step runs.
    pub const PAUSE_STEP: &str = "PauseStep";
    /// `spec.paused` is true.
    pub const USER_PAUSED: &str = "UserPaused";
    /// Blue-green: green is up behind the preview address and waits for promotion.
    pub const PREVIEW: &str = "Preview";
    /// All traffic is at the new revision, the old one is still warm and rollback is armed.
    pub const PROBATION: &str = "Probation";
    /// The last rollout ended with the new revision as stable: in events and in the history.
    pub const PROMOTED: &str = "Promoted";
    /// Fewer replicas of the stable revision are ready than asked for.
    pub const DEGRADED: &str = "Degraded";
    /// Pods that were made before `spec.restartTime` are replaced, one at a time.
    pub const RESTARTING: &str = "Restarting";
    /// The restart does not go on: a new pod does not get ready, or `spec.disruptionBudget` lets no
    /// pod go. The others serve on.
    pub const RESTART_STALLED: &str = "RestartStalled";
    /// The operator was given another image of the model server, or of the Redis beside it, since
    /// the pods were made.
    pub const IMAGE_CHANGED: &str = "ImageChanged";
    /// No pod of the stable revision is ready.
    pub const UNAVAILABLE: &str = "Unavailable";
    /// A person set the abort annotation.
    pub const USER_ABORTED: &str = "UserAborted";
    /// A gate failed.
    pub const GATE_FAILED: &str = "GateFailed";
    /// A gateway took the candidate out by itself.
    pub const BRAKED: &str = "Braked";
    /// The candidate did not become available within `progressDeadlineSeconds`.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// The candidate cannot load its model; the message carries the runtime's reason.
    pub const MODEL_LOAD_FAILED: &str = "ModelLoadFailed";
    /// Another new revision took the candidate's place.
    pub const SUPERSEDED: &str = "Superseded";
    /// The evidence was held longer than `maxHoldSeconds`.
    pub const HOLD_EXCEEDED: &str = "HoldExceeded";
    /// The evidence was held for `maxHoldSeconds`, and no request to the candidate was answered in
    /// that time.
    pub const NEVER_ANSWERED: &str = "NeverAnswered";
    /// The spec is back at the stable revision.
    pub const REVERTED: &str = "Reverted";
    /// No verdict yet.
    pub const NO_VERDICT: &str = "NoVerdict";
    /// Every gate passes.
    pub const PASS: &str = "Pass";
    /// At least one gate fails.
    pub const FAIL: &str = "Fail";
    /// There is evidence, and not enough of it.
    pub const NEED_MORE_DATA: &str = "NeedMoreData";
    /// The provider answers, and has no usable data.
    pub const NO_DATA: &str = "NoData";
    /// Prometheus cannot be reached, or answers wrongly.
    pub const PROVIDER_DOWN: &str = "ProviderDown";
    /// The spec cannot be acted on; the message names the field and the remedy.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The object is larger than the operator keeps; the message has its size and the remedy.
    pub const TOO_LARGE: &str = "TooLarge";
    /// The API server refused a write of the operator, or an object of the same name belongs to
    /// somebody else; the message says which.
    pub const WRITE_REFUSED: &str = "WriteRefused";
    /// Somebody else keeps changing or removing an object of the operator; the message says which,
    /// and who where that is known.
    pub const WRITE_REVERTED: &str = "WriteReverted";
    /// A host of `spec.traffic.hosts` is an older ModelDeployment's, or has the form of the address
    /// of a Service; the message names both and the remedy.
    pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
    /// The update of gateways has stopped: those that were updated do worse, or an administrator
    /// has paused it.
    pub const UPDATE_STOPPED: &str = "UpdateStopped";
    /// The annotation of the namespace with settings of its gateway cannot be followed; the message
    /// names the field and the remedy.
    pub const INVALID_GATEWAY_SETTINGS: &str = "InvalidGatewaySettings";
    /// The name of the model is an older ModelDeployment's; the message names it and the remedy.
    pub const MODEL_NAME_CONFLICT: &str = "ModelNameConflict";
}
