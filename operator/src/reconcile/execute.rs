//! Executes a plan: its status and its actions in their order, then its events.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use slipway_chassis::backoff::Jitter;
use slipway_cluster_views::ReconcileTrigger;
use slipway_core::action::{PlanAction, ReconcilePlan};
use slipway_core::event::PlannedEvent;
use slipway_core::observed::ObservedState;
use slipway_crds::conditions::reason::WRITE_REFUSED;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutRecord};
use slipway_objects::ObjectTarget;

use crate::apply::actions::action_target;
use crate::apply::{ActionApplier, ApplyOutcome, ModelIdentity, WriteError, status};
use crate::namespaces::keys::keys_target;
use crate::reconcile::context::ReconcileContext;
use crate::reconcile::memory::refusals::WriteRound;
use crate::reconcile::publish::publish_events;

/// Interval between reconciles without a trigger, in case a watch has lost an event. Such a
/// reconcile sends no request.
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
/// Delay of the next plan after a status write. Parts of a plan wait until a decision is stored
/// (for example, pods that a stored weight selects are not removed), and the operator's own status
/// write does not trigger a reconcile. When nothing is left to do, this plan sends no request.
const REPLAN_DELAY: Duration = Duration::from_millis(50);

/// Executes the plan in its order. A rejected action does not prevent the others. Returns the delay
/// of the next reconcile that a status or a delayed write needs, if any.
pub(crate) async fn execute_plan(
    observed: &mut ObservedState,
    plan: &ReconcilePlan,
    now: Timestamp,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Result<Option<Duration>, WriteError> {
    ctx.poller.set_request(&subject.uid, &ReconcileTrigger::from(subject), plan.evidence.as_ref());
    ctx.gateway_streams.set_draining(&subject.uid, draining_revisions(&plan.status));
    let stored = observed.object.status.clone();
    let before = status::status_differs(stored.as_ref(), &plan.status);
    // Written even when it is unchanged: the API server rejects it when the object has another
    // version, so a suspended leader that has lost its lease cannot delete objects based on
    // outdated state. The API server stores nothing for an unchanged status.
    if plan.status_first {
        write_status(&plan.status, observed, subject, ctx).await?;
    }
    let ActionsOutcome { failure, next_retry: waits, restored } =
        execute_actions(&observed.object, plan, now, subject, ctx).await;
    publish_events(&restored, subject, ctx).await;
    let refused = newly_refused(observed, subject, ctx);
    // The same plan, with the rejections in its input, adds them to the status: no other part of it
    // can differ.
    let refused_status = refused.as_ref().map(|_| slipway_core::plan::plan(observed, now).status);
    let status = refused_status.as_ref().unwrap_or(&plan.status);
    ctx.metrics.conditions.show(&subject.uid, &subject.namespace, &subject.name, status);
    let written = if before && plan.status_first { Some(&plan.status) } else { stored.as_ref() };
    let differs = status::status_differs(written, status);
    if differs {
        // After a failure the next reconcile may be a minute away, so the status is not delayed.
        let may_wait = plan.status_may_wait
            && plan.events.is_empty()
            && refused_status.is_none()
            && failure.is_none();
        if let Some(left) =
            may_wait.then(|| ctx.memories.status_time_left(&subject.uid, Instant::now())).flatten()
        {
            return Ok([Some(left), waits].into_iter().flatten().min());
        }
        write_status(status, observed, subject, ctx).await?;
    }
    ctx.memories.clear_status_wait(&subject.uid);
    for record in ended_rollouts(stored.as_ref(), &plan.status) {
        ctx.metrics.count_rollout(record.outcome);
    }
    publish_events(&plan.events, subject, ctx).await;
    publish_events(&refused.unwrap_or_default(), subject, ctx).await;
    if let Some(failure) = failure {
        return Err(failure);
    }
    Ok([(before || differs).then_some(REPLAN_DELAY), waits].into_iter().flatten().min())
}

async fn write_status(
    status: &ModelDeploymentStatus,
    observed: &ObservedState,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Result<(), WriteError> {
    // The first status write of this plan has changed the object's version.
    let version = ctx.own_writes.newest(&observed.object).resource_version();
    status::apply_status(&ctx.client, &ctx.own_writes, subject, version.as_deref(), status).await
}

/// The outcome of a plan's actions.
#[derive(Default)]
struct ActionsOutcome {
    /// The first failure.
    failure: Option<WriteError>,
    /// Delay until the next waiting action is due.
    next_retry: Option<Duration>,
    /// Events about restored objects.
    restored: Vec<PlannedEvent>,
}

/// Executes all actions that are due.
async fn execute_actions(
    object: &ModelDeployment,
    plan: &ReconcilePlan,
    now: Timestamp,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> ActionsOutcome {
    let (client, views, turns, own) =
        (&ctx.client, &ctx.views, &ctx.namespace_locks, &ctx.own_writes);
    let applier = ActionApplier { client, views, subject, locks: turns, object, own_writes: own };
    let mut round = ctx.memories.start_round(&subject.uid);
    let mut acted = ActionsOutcome::default();
    ensure_keys(ctx, &applier, &mut round, &mut acted).await;
    for action in &plan.actions {
        // As soon as the owner of the keys exists, and so before the pods that need them.
        ensure_keys(ctx, &applier, &mut round, &mut acted).await;
        let target = action_target(action);
        if !round.is_due(&target, Instant::now()) {
            continue;
        }
        if let PlanAction::Delete { kind, name, .. } = action {
            let target = ObjectTarget::new(*kind, name);
            ctx.disturbances.record_deletion(&subject.owner_of(name), target);
        }
        match applier.execute(action).await {
            Ok(done) => {
                acted.restored.extend(record_written(action, &done, now, ctx));
                done.expectation
                    .into_iter()
                    .for_each(|it| ctx.memories.expect_write(&subject.uid, it, Instant::now()));
            }
            Err(error) => {
                round.record_failure(target, &error, Instant::now());
                acted.failure.get_or_insert(error);
            }
        }
    }
    acted.next_retry = round.finish(&ctx.memories, Instant::now());
    acted
}

/// Creates the keys of the namespace where they may be missing.
async fn ensure_keys(
    ctx: &ReconcileContext,
    applier: &ActionApplier<'_>,
    round: &mut WriteRound,
    acted: &mut ActionsOutcome,
) {
    let target = keys_target();
    if !round.is_due(&target, Instant::now()) || round.has_failed(&target) {
        return;
    }
    if let Err(error) = ctx.keys.ensure(applier).await {
        round.record_failure(target, &error, Instant::now());
        acted.failure.get_or_insert(error);
    }
}

/// Records a write for later plans; returns the events about it.
fn record_written(
    action: &PlanAction,
    done: &ApplyOutcome,
    now: Timestamp,
    ctx: &ReconcileContext,
) -> Option<PlannedEvent> {
    let (desired, change) = match action {
        PlanAction::Apply(desired) => (desired, None),
        PlanAction::Restore { desired, change } => (desired, Some(change)),
        _ => return None,
    };
    let owner = done.written.as_ref()?;
    ctx.disturbances.record_applied(owner, desired, change, done.overridden.clone(), now);
    change.map(|change| change.to_event(&desired.target()))
}

/// Adds new rejections to the plan's input; returns the events about them.
fn newly_refused(
    observed: &mut ObservedState,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Option<Vec<PlannedEvent>> {
    let refusals = ctx.memories.refusal_reports(&subject.uid);
    if refusals == observed.refusals {
        return None;
    }
    let before = std::mem::replace(&mut observed.refusals, refusals).unwrap_or_default();
    let all = observed.refusals.iter().flatten();
    let note = |message: &str| PlannedEvent {
        warning: true,
        reason: WRITE_REFUSED.to_owned(),
        action: "Apply".to_owned(),
        note: message.to_owned(),
    };
    Some(
        all.filter(|(target, _)| !before.contains_key(*target))
            .map(|(_, refusal)| note(&refusal.message))
            .collect(),
    )
}

/// Delay of the next reconcile: the time set by the plan or needed by the status, else
/// [`RESYNC_INTERVAL`] with ten percent jitter.
pub(crate) fn requeue_after(
    plan: &ReconcilePlan,
    for_status: Option<Duration>,
    now: Timestamp,
) -> Duration {
    let net = Jitter::PlusMinus(0.1).apply_random(RESYNC_INTERVAL);
    let wake =
        plan.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    [wake, for_status].into_iter().flatten().fold(net, Duration::min)
}

/// Revisions that are listed with a weight of zero.
fn draining_revisions(status: &ModelDeploymentStatus) -> BTreeSet<String> {
    let backends = status.traffic.iter().flat_map(|t| &t.backends);
    let (used, unused): (Vec<_>, Vec<_>) = backends.partition(|b| b.weight_permille > 0);
    let named = [&status.stable, &status.candidate].into_iter().flatten().map(|r| &r.revision);
    let named = named.chain(status.rollout.iter().map(|rollout| &rollout.revision));
    let past = status.history.iter().take(1).map(|r| &r.revision);
    let all = unused.iter().map(|b| &b.revision).chain(named).chain(past);
    all.filter(|revision| !used.iter().any(|b| b.revision == **revision)).cloned().collect()
}

/// Rollouts that are recorded as ended in the new status and not in the stored one.
fn ended_rollouts<'a>(
    stored: Option<&ModelDeploymentStatus>,
    new: &'a ModelDeploymentStatus,
) -> Vec<&'a RolloutRecord> {
    let known = |r: &RolloutRecord| {
        let same = |k: &RolloutRecord| {
            k.revision == r.revision && k.start_time.0.as_second() == r.start_time.0.as_second()
        };
        stored.is_some_and(|s| s.history.iter().any(same))
    };
    new.history.iter().filter(|r| !known(r)).collect()
}

#[cfg(test)]
mod tests;
