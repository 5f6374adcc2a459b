//! The state that the plan observes: data only. It may be stale, so every irreversible action has a
//! precondition.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use slipway_contracts::state::BrakeTrip;
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_judge::evidence::GateEvidence;
use slipway_objects::settings::PlanSettings;
use slipway_objects::{ManagedKind, ObjectTarget};

use crate::conflicts::ClaimConflict;
use crate::fields::{ForeignChange, ManagedFields};
use crate::marks::RevisionMarks;
use crate::refusal::{RefusalReport, WriteTarget};

/// Everything that one decision depends on, except the time.
#[derive(Clone, Debug)]
pub struct ObservedState {
    /// The ModelDeployment with its spec and its stored status.
    pub object: ModelDeployment,
    /// ReplicaSets with this ModelDeployment's label.
    pub replica_sets: Vec<ReplicaSetView>,
    /// Other objects that carry this ModelDeployment's label.
    pub children: BTreeMap<ObjectTarget, ObjectView>,
    /// The namespace's gateway.
    pub gateway: GatewayView,
    /// Pods with this ModelDeployment's label, including workers.
    pub pods: Vec<PodView>,
    /// Problems that keep pods of this ModelDeployment from running.
    pub pod_problems: Vec<PodProblem>,
    /// Models that pods of this ModelDeployment have fetched.
    pub fetched_models: Vec<FetchedModel>,
    /// Hosts and model names that an older ModelDeployment of the namespace holds.
    pub conflicts: Vec<ClaimConflict>,
    /// Writes for this ModelDeployment that are refused. Nothing: none was tried yet by this
    /// process, so that what the status says of refusals is still the newest.
    pub refusals: Option<BTreeMap<WriteTarget, RefusalReport>>,
    /// Objects that this process wrote a short while ago, that others removed, or that others keep
    /// changing.
    pub disturbances: BTreeMap<ObjectTarget, ObjectDisturbance>,
    /// The newest evidence of the metrics poller, if any.
    pub evidence: Option<GateEvidence>,
    /// Settings of the operator.
    pub settings: PlanSettings,
}

impl ObservedState {
    /// The object of a kind and a name that carries this ModelDeployment's label.
    pub fn child(&self, kind: ManagedKind, name: &str) -> Option<&ObjectView> {
        self.children.get(&ObjectTarget::new(kind, name))
    }

    /// Those of a kind, by name.
    pub fn children_of(&self, kind: ManagedKind) -> impl Iterator<Item = (&str, &ObjectView)> {
        let children = self.children.iter().filter(move |(target, _)| target.kind == kind);
        children.map(|(target, view)| (target.name.as_str(), view))
    }
}

/// Seconds for which somebody is said to keep changing an object after it was put back the second
/// time: longer than the pause between two times, so that the condition does not change each time.
pub(crate) const CONTESTED_SECONDS: i64 = 120;

/// What the operator remembers about one of its objects, as long as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectDisturbance {
    /// Whether the object existed and another client deleted it.
    pub removed: bool,
    /// The hash of what was applied last.
    pub applied_hash: String,
    /// Time of that apply; `None` if not by this process.
    pub applied_at: Option<Timestamp>,
    /// How often the same content was applied again, each time soon after the previous time, that
    /// is, how often the object was restored.
    pub restore_count: u32,
    /// The client that changed the object last, if the API server reports it.
    pub changed_by: Option<String>,
    /// A field that the API server stored differently than it was applied, because an admission
    /// webhook or policy changed it.
    pub overridden_field: Option<String>,
}

impl ObjectDisturbance {
    /// The record after an object was applied with the hash `stamp`. For `overridden` see
    /// [`Self::overridden_field`].
    pub fn after_apply(
        before: Option<&Self>,
        stamp: &str,
        change: Option<&ForeignChange>,
        overridden: Option<String>,
        now: Timestamp,
    ) -> Self {
        let same =
            before.filter(|it| it.applied_hash == stamp && it.is_recent(now, CONTESTED_SECONDS));
        let restored =
            same.map_or(u32::from(change.is_some()), |it| it.restore_count.saturating_add(1));
        let by = match change {
            Some(ForeignChange::Changed { by, .. }) => by.clone(),
            _ => None,
        };
        Self {
            removed: false,
            applied_hash: stamp.to_owned(),
            applied_at: Some(now),
            restore_count: restored,
            changed_by: by.or_else(|| same.and_then(|it| it.changed_by.clone())),
            overridden_field: overridden,
        }
    }

    /// Whether the object was applied within the last `seconds`. False if the clock was set back
    /// since.
    pub(crate) fn is_recent(&self, now: Timestamp, seconds: i64) -> bool {
        let age = self.applied_at.map(|at| now.duration_since(at));
        age.is_some_and(|age| !age.is_negative() && age < SignedDuration::from_secs(seconds))
    }

    /// Whether no decision depends on this record any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.removed && self.overridden_field.is_none() && !self.is_recent(now, CONTESTED_SECONDS)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSetView {
    pub name: String,
    /// UID, used as precondition of scaling and deleting.
    pub uid: String,
    pub revision: String,
    /// Why Kubernetes creates no pods for it, in the words of Kubernetes (quota, admission,
    /// account); empty if it does.
    pub failure: String,
    pub version: String,
    pub digest: ModelDigest,
    pub marks: RevisionMarks,
    pub created_at: Timestamp,
    pub desired: i32,
    pub current: i32,
    pub ready: i32,
    pub available: i32,
    /// Whether the ReplicaSet controller has processed the newest spec; otherwise the counts may
    /// lag.
    pub is_observed: bool,
    /// Whether it belongs to this ModelDeployment, which is its controller or would adopt it
    /// ([`Self::orphaned`]). Others are never changed.
    pub owned: bool,
    /// Whether it has no controller but the operator's name and labels, left by a ModelDeployment
    /// of this name that was deleted without its children. It counts as owned; until it is
    /// adopted, adopting is the only write to it.
    pub orphaned: bool,
    pub applied_hash: String,
    /// Images of its template, by container.
    pub images: BTreeMap<String, String>,
    /// Field ownership.
    pub managed_fields: ManagedFields,
    pub deleting: bool,
}

/// What is known about the model that the pods of a ReplicaSet serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelDigest {
    /// Its pods have no init container that reports a digest: their image contains the model.
    #[default]
    Unreported,
    /// The first pod has not reported a digest yet.
    Pending,
    /// The digest; pods of the ReplicaSet reject other models.
    Pinned(String),
}

impl ModelDigest {
    /// Parses the value of the annotation [`slipway_crds::labels::MODEL_DIGEST`].
    pub fn from_annotation(value: Option<&str>) -> Self {
        match value {
            None => Self::Unreported,
            Some("") => Self::Pending,
            Some(digest) => Self::Pinned(digest.to_owned()),
        }
    }

    /// The digest, if it is known.
    pub fn known_digest(&self) -> Option<&str> {
        match self {
            Self::Pinned(digest) => Some(digest),
            Self::Unreported | Self::Pending => None,
        }
    }
}

/// The model that a pod has fetched before it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedModel {
    pub revision: String,
    /// Name of the pod.
    pub pod: String,
    /// Digest in the form `sha256:<hex>`.
    pub digest: String,
}

/// Any other child object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// UID, used as precondition of deleting.
    pub uid: String,
    /// Value of the annotation `ml.slipway.dev/applied`: the hash of what was applied last.
    pub applied_hash: String,
    /// Field ownership.
    pub managed_fields: ManagedFields,
    pub owners: Vec<String>,
    pub controller: Option<String>,
    /// Why Kubernetes creates no pods for it, in the words of Kubernetes; empty if it does, and
    /// for kinds without pods.
    pub failure: String,
    /// Desired replicas of a HorizontalPodAutoscaler whose metrics are available.
    pub desired_replicas: Option<i32>,
    /// Whether all pods of a Deployment are ready and match its newest template.
    pub rolled_out: bool,
}

/// The gateway of the namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayView {
    /// What the operator makes for it, by kind.
    pub objects: BTreeMap<ManagedKind, ObjectView>,
    /// Pods of the gateway that are not being deleted or still serve.
    pub pods: Vec<GatewayPod>,
    /// Number of ModelDeployments that share the gateway, including this one.
    pub sharing_models: usize,
    /// Whether the pods may now be replaced by those of another version of the operator.
    pub update: UpdatePermission,
}

/// Whether a gateway may be updated. Gateways are updated one namespace after the other, as models
/// are step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpdatePermission {
    #[default]
    Allowed,
    /// Others are updated and observed first.
    Waiting,
    /// No update until an administrator acts, because updated gateways perform worse than before or
    /// an administrator paused updates. The message may be shown to users of any namespace.
    Stopped(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayPod {
    pub name: String,
    /// Whether the pod is ready: Services then send requests to it, and its confirmation is
    /// needed.
    pub ready: bool,
    /// The newest report about this ModelDeployment (same UID), while the stream from the pod is
    /// open.
    pub report: Option<GatewayReport>,
    /// The failure of the stream from the pod, while it is not open.
    pub unreachable: Option<UnreachableGateway>,
}

/// A gateway pod from which the operator receives no reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreachableGateway {
    /// Time of the first connection attempt, or of the loss of the stream.
    pub since: Timestamp,
    /// Address, port and the newest error, for display.
    pub error: String,
}

/// The report of a gateway pod about one ModelDeployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayReport {
    /// Newest generation of `status.traffic` that it applied.
    pub generation: i64,
    /// Requests by revision since that generation was applied.
    pub requests: BTreeMap<String, u64>,
    /// The answered ones of these requests, including client errors, by revision. `None` from a
    /// gateway that does not report them.
    pub answered: Option<BTreeMap<String, u64>>,
    /// Requests since that generation was applied that the gateway did not send to the candidate,
    /// because it could not buffer their bodies for a second attempt.
    pub unshielded: u64,
    /// Requests in flight by revision.
    pub in_flight: BTreeMap<String, u64>,
    /// Endpoints that the gateway considers ready, by revision.
    pub ready_endpoints: BTreeMap<String, u64>,
    /// Set while this pod's brake keeps requests from a candidate.
    pub brake: Option<BrakeTrip>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub name: String,
    /// UID, used as precondition of the eviction.
    pub uid: String,
    /// UID of the ReplicaSet that created the pod, if there is one.
    pub replica_set_uid: Option<String>,
    pub created_at: Timestamp,
    pub ready: bool,
    /// Whether the pod is being deleted or has terminated: its ReplicaSet does not count it any
    /// more.
    pub deleting: bool,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProblem {
    pub revision: String,
    /// Name of the pod.
    pub pod: String,
    /// Reason of the waiting or terminated container, or of the scheduling condition
    /// (`CrashLoopBackOff`, `ImagePullBackOff`, `Unschedulable`, …).
    pub reason: String,
    /// Message of the same. For the container of the model server it is the termination message,
    /// which may be the JSON line of docs/contracts.md (the init container `fetch`).
    pub message: String,
    /// Number of restarts of the container so far.
    pub restarts: i32,
}
