//! The world as the plan sees it: data only. It may be stale; whatever cannot be undone therefore
//! carries a precondition.

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

/// Everything that one decision depends on, besides the time.
#[derive(Clone, Debug)]
pub struct ObservedState {
    /// The ModelDeployment with its spec and its last written status.
    pub object: ModelDeployment,
    /// ReplicaSets that carry this ModelDeployment's label.
    pub replica_sets: Vec<ReplicaSetView>,
    /// Other objects that carry this ModelDeployment's label.
    pub children: BTreeMap<ObjectTarget, ObjectView>,
    /// The namespace's gateway.
    pub gateway: GatewayView,
    /// Pods that carry this ModelDeployment's label, workers included.
    pub pods: Vec<PodView>,
    /// What keeps pods of this ModelDeployment from running.
    pub pod_problems: Vec<PodProblem>,
    /// What pods of this ModelDeployment have fetched.
    pub fetched_models: Vec<FetchedModel>,
    /// Hosts and the name of the model that an older ModelDeployment of the namespace holds.
    pub conflicts: Vec<ClaimConflict>,
    /// Writes for this ModelDeployment that are refused. Nothing: none was tried yet by this
    /// process, so that what the status says of refusals is still the newest.
    pub refusals: Option<BTreeMap<WriteTarget, RefusalReport>>,
    /// Objects that this process wrote a short while ago, that others removed, or that others keep
    /// changing.
    pub disturbances: BTreeMap<ObjectTarget, ObjectDisturbance>,
    /// The newest evidence of the metrics poller, if any.
    pub evidence: Option<GateEvidence>,
    /// What the operator was started with.
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

/// What is remembered of one object that we write, for the time in which it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectDisturbance {
    /// It was there, and somebody else removed it.
    pub removed: bool,
    /// The hash of what was applied last.
    pub applied_hash: String,
    /// When that was; nothing: not by this process.
    pub applied_at: Option<Timestamp>,
    /// How often the same was applied again, each time soon after the time before: how often it
    /// was put back.
    pub restore_count: u32,
    /// Who changed it last, where the API server told.
    pub changed_by: Option<String>,
    /// A field that the API server did not take as it was applied: an admission webhook or policy
    /// changed it.
    pub overridden_field: Option<String>,
}

impl ObjectDisturbance {
    /// What is remembered once an object was applied with a stamp. `overridden`: see
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

    /// Whether it was applied within so many seconds. A clock that was set back since makes that
    /// unknown.
    pub(crate) fn is_recent(&self, now: Timestamp, seconds: i64) -> bool {
        let age = self.applied_at.map(|at| now.duration_since(at));
        age.is_some_and(|age| !age.is_negative() && age < SignedDuration::from_secs(seconds))
    }

    /// Whether nothing depends on it any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.removed && self.overridden_field.is_none() && !self.is_recent(now, CONTESTED_SECONDS)
    }
}

/// One ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSetView {
    /// Name.
    pub name: String,
    /// UID: precondition of scaling and deleting.
    pub uid: String,
    /// Value of the revision label.
    pub revision: String,
    /// Why Kubernetes makes no pods for it, in its own words (quota, admission, account); empty
    /// when it does.
    pub failure: String,
    /// Value of the version annotation.
    pub version: String,
    /// The model of its pods.
    pub digest: ModelDigest,
    /// What it says of the past.
    pub marks: RevisionMarks,
    /// Creation.
    pub created_at: Timestamp,
    /// `spec.replicas`.
    pub desired: i32,
    /// `status.replicas`.
    pub current: i32,
    /// `status.readyReplicas`.
    pub ready: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// Whether the ReplicaSet controller has seen the newest spec; otherwise the counts may lag.
    pub is_observed: bool,
    /// Whether it is ours: our ModelDeployment is its controller, or would be
    /// ([`Self::orphaned`]). A foreign one is never touched.
    pub owned: bool,
    /// Whether it has no controller, and is ours by name and labels: left by a ModelDeployment of
    /// this name that was deleted without its children. It counts as ours, and nothing but
    /// adopting is done to it before it is.
    pub orphaned: bool,
    /// Value of the annotation `ml.slipway.dev/applied`.
    pub applied_hash: String,
    /// Images of its template, by container.
    pub images: BTreeMap<String, String>,
    /// Which of its fields are ours.
    pub managed_fields: ManagedFields,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What is known of the bytes that the pods of a ReplicaSet serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelDigest {
    /// Its pods have no step that would tell: their image holds the model.
    #[default]
    Unreported,
    /// The first pod has not told yet.
    Pending,
    /// This one; its pods refuse others.
    Pinned(String),
}

impl ModelDigest {
    /// Reads the value of the annotation [`slipway_crds::labels::MODEL_DIGEST`].
    pub fn from_annotation(value: Option<&str>) -> Self {
        match value {
            None => Self::Unreported,
            Some("") => Self::Pending,
            Some(digest) => Self::Pinned(digest.to_owned()),
        }
    }

    /// The digest, once it is known.
    pub fn known_digest(&self) -> Option<&str> {
        match self {
            Self::Pinned(digest) => Some(digest),
            Self::Unreported | Self::Pending => None,
        }
    }
}

/// What a pod has fetched before it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedModel {
    /// Value of the revision label.
    pub revision: String,
    /// Pod.
    pub pod: String,
    /// `sha256:<hex>`.
    pub digest: String,
}

/// Any other child object: is it there, and is it what was applied last?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// UID: precondition of deleting.
    pub uid: String,
    /// Value of the annotation `ml.slipway.dev/applied`: the hash of what was applied last.
    pub applied_hash: String,
    /// Which of its fields are ours.
    pub managed_fields: ManagedFields,
    /// UIDs of its owners.
    pub owners: Vec<String>,
    /// UID of its controller.
    pub controller: Option<String>,
    /// Why Kubernetes makes no pods for it, in its own words; empty when it does, and for what has
    /// no pods.
    pub failure: String,
    /// Of a HorizontalPodAutoscaler whose metrics come: how many replicas it wants.
    pub desired_replicas: Option<i32>,
    /// Of a Deployment: all its pods are ready and made from its newest template.
    pub rolled_out: bool,
}

/// The namespace's gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayView {
    /// Its objects.
    pub objects: BTreeMap<ManagedKind, ObjectView>,
    /// Pods of the gateway that are not being deleted or still serve.
    pub pods: Vec<GatewayPod>,
    /// ModelDeployments that share it, this one included.
    pub sharing_models: usize,
    /// Whether its pods may be replaced by those of another version of the operator now.
    pub update: UpdatePermission,
}

/// Whether a gateway may be updated. Gateways are updated namespace by namespace, as models are
/// step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpdatePermission {
    /// Now.
    #[default]
    Allowed,
    /// Not yet: others are updated and looked at first.
    Waiting,
    /// Not before somebody has looked: updated gateways do worse than before, or an administrator
    /// has paused it. Says why, for people of any namespace.
    Stopped(String),
}

/// One pod of the gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayPod {
    /// Name.
    pub name: String,
    /// Whether the pod is ready: then Services send requests to it, and its confirmation is
    /// needed.
    pub ready: bool,
    /// Its newest line about this ModelDeployment (same UID), while the stream to it stands.
    pub report: Option<GatewayReport>,
    /// While the stream to it does not stand: since when, and why.
    pub unreachable: Option<UnreachableGateway>,
}

/// A gateway pod that the operator does not hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreachableGateway {
    /// Since when: the first try, or the loss of the stream.
    pub since: Timestamp,
    /// Address, port and the newest error, for people.
    pub error: String,
}

/// What a gateway pod says of one ModelDeployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayReport {
    /// Newest generation of `status.traffic` that it applied.
    pub generation: i64,
    /// Requests by revision since that generation was applied.
    pub requests: BTreeMap<String, u64>,
    /// Those of them that were answered, clients' own mistakes included, by revision. None from a
    /// gateway that does not tell.
    pub answered: Option<BTreeMap<String, u64>>,
    /// Requests since that generation was applied that were kept from the candidate, because their
    /// bodies could not be kept to be sent again.
    pub unshielded: u64,
    /// Requests in flight by revision.
    pub in_flight: BTreeMap<String, u64>,
    /// Endpoints that it holds for ready, by revision.
    pub ready_endpoints: BTreeMap<String, u64>,
    /// Set while this pod has taken a candidate out by itself.
    pub brake: Option<BrakeTrip>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// UID: precondition of its eviction.
    pub uid: String,
    /// UID of the ReplicaSet that made it, if one did.
    pub replica_set_uid: Option<String>,
    /// Creation.
    pub created_at: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted, or has ended: its ReplicaSet counts it no more.
    pub deleting: bool,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProblem {
    /// Value of the revision label.
    pub revision: String,
    /// Pod.
    pub pod: String,
    /// Reason: of the waiting or terminated container, or of the scheduling condition
    /// (`CrashLoopBackOff`, `ImagePullBackOff`, `Unschedulable`, …).
    pub reason: String,
    /// Message of the same: for the runtime's container its termination message, which may be the
    /// JSON line of docs/contracts.md (the init container `fetch`).
    pub message: String,
    /// Restarts of the container so far.
    pub restarts: i32,
}
