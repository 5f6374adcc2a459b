//! Invariants of the world that hold under all faults.

use std::collections::{BTreeSet, VecDeque};

use slipway_core::command::PendingCommands;
use slipway_core::sizing::replicas_for_share;
use slipway_core::traffic::CONFIRMATION_SECONDS;
use slipway_core::validate::{RolloutStep, validate_spec};
use slipway_crds::conditions::reason;
use slipway_crds::v1alpha1::{
    GateType, ModelDeployment, ModelDeploymentStatus, RevisionRole, RolloutOutcome, RolloutStage,
};

use crate::behavior::ModelBehavior;
use crate::cluster::SimulatedCluster;
use crate::gateway::SimulatedGateway;

/// Seconds of earlier replica counts that are considered: a revision without weight does not grow
/// when the count grows, and a gateway may lag by that much.
const REPLICAS_WINDOW_SECONDS: usize = 100;
/// Longest time for which a candidate may have an unconfirmed weight: twice what the plan allows,
/// because the time restarts for the replacement of a crashed gateway, plus the lags of clocks,
/// views and restarts.
const MAX_UNCONFIRMED_SECONDS: i64 = 2 * CONFIRMATION_SECONDS + 120;
/// Maximum number of writes within a minute, including those due to faults.
const MAX_WRITES_PER_MINUTE: u64 = 150;

/// The recorded history of a world.
#[derive(Default)]
pub(crate) struct InvariantMonitor {
    replicas: Vec<i32>,
    writes: VecDeque<u64>,
    excused_until: i64,
    generation: i64,
    /// The revision that was rolled back, with the spec and the commands of that time: it must
    /// stay rolled back.
    aborted: Option<(String, ModelDeployment)>,
    /// The stable revision when the status was deleted, until the status names one again.
    wiped_stable: Option<String>,
    stable: Option<String>,
    status_wiped: bool,
    /// Versions whose promotion a user ordered, independent of the judge.
    pub(crate) ordered_promotions: BTreeSet<String>,
    /// Notes for the transcript.
    pub(crate) notes: Vec<String>,
    /// Since when the candidate has an unconfirmed weight.
    unconfirmed_since: Option<i64>,
    /// Rollouts of much worse versions, and how many of them were promoted without an order.
    pub(crate) bad: (u32, u32),
    /// Rollouts of equally good versions, and how many of them a gate rolled back.
    pub(crate) good: (u32, u32),
}

impl InvariantMonitor {
    /// Records that the status was deleted: generations restart, and the stable revision may be
    /// wrong for a while.
    pub(crate) fn note_wipe(&mut self, now: i64) {
        self.status_wiped = true;
        self.wiped_stable = self.stable.take();
        self.excused_until = self.excused_until.max(now + 30);
    }

    /// Records that another client scaled a ReplicaSet: sizes are wrong until the plan reacts. A
    /// revision without a role does not get its pods back, and a lagging gateway may still send to
    /// it.
    pub(crate) fn note_manual_scale(&mut self, now: i64) {
        self.excused_until = self.excused_until.max(now + 60);
    }

    pub(crate) fn check_tick(
        &mut self,
        now: i64,
        cluster: &SimulatedCluster,
        gateways: &[SimulatedGateway],
    ) -> Vec<String> {
        let mut broken = Vec::new();
        self.replicas.push(cluster.object.spec.replicas.unwrap_or(1));
        self.writes.push_back(cluster.writes);
        if self.writes.len() > 60 {
            let before = self.writes.pop_front().unwrap_or_default();
            if cluster.writes - before > MAX_WRITES_PER_MINUTE {
                broken.push(format!(
                    "{now}s: {} writes within a minute: a hot loop",
                    cluster.writes - before
                ));
            }
        }
        if let Some(status) = &cluster.object.status {
            self.check_confirmation(now, status, &mut broken);
            self.check_stored(now, status, &mut broken);
            self.check_remembered(now, cluster, status, &mut broken);
        }
        for set in &cluster.replica_sets {
            let served = set.served_digests();
            // A client that scales a ReplicaSet before its first pod has reported creates pods with
            // unknown models, until the plan removes them.
            if served.len() > 1 && now > self.excused_until {
                broken.push(format!(
                    "{now}s: {} serves several models: {served:?}",
                    set.view.version
                ));
            }
        }
        if now > self.excused_until {
            self.check_selected_pods(now, cluster, gateways, &mut broken);
        }
        broken
    }

    /// A candidate must not have an unconfirmed weight for long, unless a crashing operator cannot
    /// check it.
    fn check_confirmation(
        &mut self,
        now: i64,
        status: &ModelDeploymentStatus,
        broken: &mut Vec<String>,
    ) {
        let Some(traffic) = &status.traffic else { return };
        let has_weight = traffic
            .backends
            .iter()
            .any(|it| it.role == RevisionRole::Candidate && it.weight_permille > 0);
        if !has_weight
            || traffic.confirmed_generation == traffic.generation
            || now <= self.excused_until
        {
            self.unconfirmed_since = None;
            return;
        }
        let since = *self.unconfirmed_since.get_or_insert(now);
        if now - since > MAX_UNCONFIRMED_SECONDS {
            broken.push(format!(
                "{now}s: generation {} is not confirmed since {since}s",
                traffic.generation
            ));
            self.unconfirmed_since = None;
        }
    }

    /// Checks the stored status: an abort moves the traffic in the same write, and generations only
    /// grow.
    fn check_stored(&mut self, now: i64, status: &ModelDeploymentStatus, broken: &mut Vec<String>) {
        let Some(traffic) = &status.traffic else { return };
        let sum: i32 = traffic.backends.iter().map(|it| it.weight_permille).sum();
        if sum != 1000 {
            broken.push(format!("{now}s: stored weights sum to {sum}"));
        }
        let aborted = status.rollout.as_ref().is_some_and(|it| it.stage == RolloutStage::Aborted);
        if aborted && traffic.backends.len() != 1 {
            broken.push(format!("{now}s: aborted, and the candidate has a weight"));
        }
        if traffic.generation < self.generation && !self.status_wiped {
            broken.push(format!(
                "{now}s: generation {} after {}",
                traffic.generation, self.generation
            ));
        }
        (self.generation, self.status_wiped) = (traffic.generation, false);
    }

    /// Checks that the contents of a deleted status still hold if a ReplicaSet has them in its
    /// marks.
    fn check_remembered(
        &mut self,
        now: i64,
        cluster: &SimulatedCluster,
        status: &ModelDeploymentStatus,
        broken: &mut Vec<String>,
    ) {
        let stable = status.stable.as_ref().map(|it| it.revision.clone());
        if let Some(now_stable) = &stable {
            let before = self.wiped_stable.take();
            let before =
                before.filter(|it| cluster.replica_set(it).is_some_and(|set| set.view.desired > 0));
            if let Some(before) = before.filter(|it| it != now_stable) {
                broken.push(format!(
                    "{now}s: {now_stable} is stable after the status was wiped, and {before} was"
                ));
            }
        }
        let marked = stable.filter(|it| {
            cluster.replica_set(it).is_some_and(|set| set.view.marks.stable_since.is_some())
        });
        self.stable = marked;
        // A new spec or command comes from a user and resets this.
        self.aborted.take_if(|(_, then)| {
            then.spec != cluster.object.spec
                || then.metadata.annotations != cluster.object.metadata.annotations
        });
        let Some(rollout) = &status.rollout else { return };
        if rollout.stage == RolloutStage::Aborted {
            let marked = cluster
                .replica_set(&rollout.revision)
                .is_some_and(|set| set.view.marks.aborted.is_some());
            let waits = !PendingCommands::for_object(&cluster.object).is_empty();
            self.aborted =
                (marked && !waits).then(|| (rollout.revision.clone(), cluster.object.clone()));
        } else if self.aborted.as_ref().is_some_and(|(it, _)| *it == rollout.revision) {
            broken.push(format!(
                "{now}s: {} was taken back, and goes on by itself",
                rollout.revision
            ));
            self.aborted = None;
        }
    }

    /// Every revision to which a ready gateway sends must have enough requested pods.
    fn check_selected_pods(
        &self,
        now: i64,
        cluster: &SimulatedCluster,
        gateways: &[SimulatedGateway],
        broken: &mut Vec<String>,
    ) {
        let traffic = cluster.object.status.as_ref().and_then(|status| status.traffic.as_ref());
        for gateway in gateways.iter().filter(|gateway| gateway.ready) {
            let Some(applied) = &gateway.applied_traffic else { continue };
            // A gateway that does not receive new weights uses the old ones for as long as its
            // watch is delayed.
            let hears = traffic.is_some_and(|it| {
                (it.generation, &it.backends) == (applied.generation, &applied.backends)
            });
            let deaf =
                if hears { 0 } else { usize::try_from(now - gateway.applied_at).unwrap_or(0) };
            let fewest = self
                .replicas
                .iter()
                .rev()
                .take(REPLICAS_WINDOW_SECONDS.max(deaf))
                .copied()
                .min()
                .unwrap_or_default();
            for backend in &applied.backends {
                let want = replicas_for_share(fewest, backend.weight_permille);
                let have = cluster.replica_set(&backend.revision).map_or(0, |set| set.view.desired);
                // The first pod of a revision without a digest in the spec stays alone until it has
                // reported.
                let known = cluster
                    .replica_set(&backend.revision)
                    .is_none_or(|set| set.is_known(now, REPLICAS_WINDOW_SECONDS as i64));
                if have < want && known {
                    broken.push(format!(
                        "{now}s: {} sends {} to {} which has {have} of {want} pods",
                        gateway.name, backend.weight_permille, backend.revision
                    ));
                }
            }
        }
    }

    /// Counts the results when rollouts end.
    pub(crate) fn score_rollouts(
        &mut self,
        before: Option<&ModelDeploymentStatus>,
        cluster: &SimulatedCluster,
    ) {
        let Some(after) = &cluster.object.status else { return };
        let Some(record) = after
            .history
            .first()
            .filter(|it| before.and_then(|old| old.history.first()) != Some(it))
        else {
            return;
        };
        // The stable revision with which it was compared.
        let Some(rival) = before.and_then(|old| old.stable.as_ref()) else { return };
        let truth = |version: &str| cluster.behaviors.get(version);
        let (Some(theirs), Some(ours)) = (truth(&record.version), truth(&rival.version)) else {
            return;
        };
        let ordered = self.ordered_promotions.contains(&record.version);
        if is_judged(&cluster.object)
            && is_worse(&cluster.object, theirs, ours)
            && record.outcome != RolloutOutcome::Superseded
        {
            self.bad.0 += 1;
            let missed = record.outcome == RolloutOutcome::Promoted && !ordered;
            self.bad.1 += u32::from(missed);
            if missed {
                self.notes.push(format!(
                    "score: {} is worse than {} and was promoted",
                    record.version, rival.version
                ));
            }
        }
        if theirs.is_as_good_as(ours) {
            self.good.0 += 1;
            self.good.1 += u32::from(record.reason == reason::GATE_FAILED);
        }
    }
}

/// Whether the strategy has a step at which both revisions get traffic, so that the judge can
/// compare them.
pub(crate) fn is_judged(object: &ModelDeployment) -> bool {
    validate_spec(object)
        .steps
        .iter()
        .any(|step| matches!(step, RolloutStep::Weight(weight) if slipway_core::validate::is_judged(*weight)))
}

/// Whether the gates must detect a version as much worse than another.
pub(crate) fn is_worse(
    object: &ModelDeployment,
    theirs: &ModelBehavior,
    ours: &ModelBehavior,
) -> bool {
    let gates = object.spec.analysis.gates.as_deref().unwrap_or_default();
    let labels = gates.iter().any(|gate| gate.type_ == GateType::Accuracy);
    // A rival with crashing pods has failures of its own.
    ours.crash == 0.0
        && (theirs.hangs
            || theirs.error_rate > ours.error_rate + 0.2
            || (labels && theirs.wrong_rate > ours.wrong_rate + 0.2))
}
