//! The input of one decision.

use jiff::Timestamp;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_judge::runs_user_query;
use slipway_objects::ManagedKind;

use crate::observed::{ModelDigest, ObservedState, ReplicaSetView};
use crate::time::add_seconds;
use crate::validate::{ValidatedSpec, validate_spec};
use crate::{command, replicas, traffic};

/// The input of one decision, with the spec resolved.
pub(crate) struct PlanContext<'a> {
    pub(crate) observed: &'a ObservedState,
    pub(crate) now: Timestamp,
    pub(crate) spec: ValidatedSpec,
    /// The status as stored; the default if there is none.
    pub(crate) stored_status: ModelDeploymentStatus,
}

impl<'a> PlanContext<'a> {
    pub(crate) fn new(observed: &'a ObservedState, now: Timestamp) -> Self {
        let stored = observed.object.status.clone().unwrap_or_default();
        let mut cx =
            Self { observed, now, spec: validate_spec(&observed.object), stored_status: stored };
        let stable = cx
            .stored_status
            .stable
            .as_ref()
            .map_or(cx.spec.revision.as_str(), |stable| stable.revision.as_str());
        let running = cx.replica_set(stable).map_or(0, |set| set.desired);
        let autoscaler_wants = observed
            .child(ManagedKind::HorizontalPodAutoscaler, &cx.spec.name)
            .and_then(|it| it.desired_replicas);
        cx.spec.replicas = replicas::effective_replicas(
            &observed.object,
            cx.spec.autoscaling.as_ref(),
            running,
            autoscaler_wants,
        );
        let forbidden =
            !observed.settings.promql_gates && cx.spec.gates.iter().any(runs_user_query);
        if forbidden && cx.spec.problem.is_none() {
            let why = "gates of type PromQL are switched off by the administrator (prometheus.promqlGates of the chart); use the other types";
            cx.spec.problem = Some(format!("spec.analysis.gates: {why}"));
        }
        cx.spec.paused |=
            command::is_held_by_command(&observed.object, &cx.stored_status, &cx.spec.revision);
        cx
    }

    /// ReplicaSets that belong to this ModelDeployment and are not being deleted.
    pub(crate) fn replica_sets(&self) -> impl Iterator<Item = &'a ReplicaSetView> + use<'a> {
        self.observed.replica_sets.iter().filter(|set| set.owned && !set.deleting)
    }

    /// The ReplicaSet of a revision.
    pub(crate) fn replica_set(&self, revision: &str) -> Option<&'a ReplicaSetView> {
        self.replica_sets().find(|set| set.revision == revision)
    }

    /// Number of ready pods of a revision.
    pub(crate) fn ready_pods(&self, revision: &str) -> i32 {
        self.replica_set(revision).map_or(0, |set| set.ready)
    }

    /// Number of available pods of a revision that will not be removed, that is, its capacity. Zero
    /// while the counts may be older than the last change of size.
    pub(crate) fn capacity(&self, revision: &str) -> i32 {
        self.replica_set(revision)
            .filter(|set| set.is_observed)
            .map_or(0, |set| set.available.min(set.desired))
    }

    /// Whether every ready gateway uses the stored weights. No gateway can have applied what this
    /// plan writes.
    pub(crate) fn gateways_up_to_date(&self) -> bool {
        let stored = self.stored_status.traffic.as_ref().map_or(0, |traffic| traffic.generation);
        traffic::all_ready_at(&self.observed.gateway, stored)
    }

    /// Version of a revision, for display.
    pub(crate) fn version(&self, revision: &str) -> String {
        if revision == self.spec.revision {
            return self.spec.version.clone();
        }
        let known =
            [&self.stored_status.stable, &self.stored_status.candidate].into_iter().flatten();
        let known =
            known.filter(|status| status.revision == revision).map(|status| status.version.clone());
        let rollout = self
            .stored_status
            .rollout
            .iter()
            .filter(|it| it.revision == revision)
            .map(|it| it.version.clone());
        let found = self
            .replica_set(revision)
            .map(|set| set.version.clone())
            .into_iter()
            .chain(known)
            .chain(rollout);
        found.into_iter().find(|version| !version.is_empty()).unwrap_or_else(|| revision.to_owned())
    }

    /// The digest of the model that the pods of a revision serve, once it is known.
    pub(crate) fn digest(&self, revision: &str) -> Option<String> {
        let pinned = self.replica_set(revision).and_then(|set| set.digest.known_digest());
        let asked = self
            .observed
            .object
            .spec
            .model
            .digest
            .as_deref()
            .filter(|_| revision == self.spec.revision);
        let stored =
            [&self.stored_status.stable, &self.stored_status.candidate].into_iter().flatten();
        let stored = stored
            .filter(|status| status.revision == revision)
            .find_map(|status| status.digest.as_deref());
        pinned.or(asked).or(stored).map(str::to_owned)
    }

    /// Whether a revision may have more than one pod: its model is known, and a pod has fetched it.
    /// A pod created just before its ReplicaSet was pinned, as a replacement of the pod that
    /// reported the digest, may have found another model; further pods would then wait for a model
    /// that no longer exists.
    pub(crate) fn is_model_known(&self, set: &ReplicaSetView) -> bool {
        match &set.digest {
            ModelDigest::Unreported => true,
            ModelDigest::Pending => false,
            ModelDigest::Pinned(digest) => {
                self.is_pinned_by_spec(set) || set.desired > 1 || self.has_fetched(set, digest)
            }
        }
    }

    /// Whether the spec names the digest of the revision's model.
    pub(crate) fn is_pinned_by_spec(&self, set: &ReplicaSetView) -> bool {
        set.revision == self.spec.revision && self.observed.object.spec.model.digest.is_some()
    }

    /// Whether a pod of the ReplicaSet has fetched the model with that digest.
    pub(crate) fn has_fetched(&self, set: &ReplicaSetView, digest: &str) -> bool {
        self.observed
            .fetched_models
            .iter()
            .any(|it| it.revision == set.revision && it.digest == digest)
    }

    /// The current time in whole seconds, the resolution of the status.
    pub(crate) fn now_seconds(&self) -> Timestamp {
        Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)
    }

    /// The same, rounded up: a window that begins at this time contains nothing older.
    pub(crate) fn now_seconds_ceil(&self) -> Timestamp {
        if self.now.subsec_nanosecond() == 0 {
            self.now
        } else {
            add_seconds(self.now_seconds(), 1)
        }
    }

    /// Whether `seconds` have passed since a time. A clock that was set back only delays this.
    pub(crate) fn has_elapsed(&self, since: Timestamp, seconds: i64) -> bool {
        self.now >= add_seconds(since, seconds)
    }
}
