//! One reconcile: observe, plan, apply, publish. Every step says whether it does I/O; no step
//! decides anything about rollouts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::controller::Action as Next;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use slipway_core::action::{PlanAction, ReconcilePlan};
use slipway_core::event::PlannedEvent;
use slipway_core::observed::ObservedState;
use slipway_core::plan::plan;
use slipway_crds::conditions::reason::{INVALID_SPEC, TOO_LARGE, WRITE_REFUSED};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutRecord};

use crate::apply::{ActionApplier, ApplyOutcome, ModelIdentity, action_target};
use crate::cache::ObjectOwner;
use crate::children::ManagedKind;
use crate::context::ReconcileContext;
use crate::error::{ReconcileError, WriteError};
use crate::model_watch::GuardedModel;
use crate::observe::observe_model;
use crate::refusals::WriteRound;
use crate::{keys, namespace_lease, status, too_large};

/// When to look again although nothing happened: a net under watches that lost something. It costs
/// no request.
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);
/// After a status was written: some of a plan waits for what it decided to be stored (what a stored
/// weight selects is not taken away, say). Our own write triggers nothing by itself, so the next
/// plan is asked for here; where nothing is left to do it costs no request.
const REPLAN_DELAY: Duration = Duration::from_millis(50);
/// Longest pause between looks at a write that the watch has not brought back.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Reconciles one ModelDeployment and counts it.
///
/// # Errors
/// When a write failed; [`on_error`] says when to try again.
pub async fn reconcile_model(
    object: Arc<GuardedModel>,
    ctx: Arc<ReconcileContext>,
) -> Result<Next, ReconcileError> {
    let _running = ctx.running.start();
    let start = Instant::now();
    let result = match &object.0 {
        Ok(valid) => reconcile_readable(valid, &ctx).await,
        Err(invalid) => report_unreadable(&object, &invalid.error, &ctx).await,
    };
    ctx.metrics.count_reconcile(
        result.as_ref().map_or_else(ReconcileError::category, |_| "ok"),
        start.elapsed().as_secs_f64(),
    );
    result
}

/// When to try again after a failure. A change of anything that is watched comes through at once
/// all the same.
#[expect(clippy::needless_pass_by_value, reason = "the shape that the Controller asks for")]
pub fn on_error(
    object: Arc<GuardedModel>,
    error: &ReconcileError,
    ctx: Arc<ReconcileContext>,
) -> Next {
    let wait = ctx.backoff.record_failure(&object.uid().unwrap_or_default());
    tracing::warn!(
        name = object.name_any(),
        namespace = object.namespace(),
        category = error.category(),
        %error,
        "reconcile failed"
    );
    Next::requeue(wait)
}

async fn reconcile_readable(
    stored: &ModelDeployment,
    ctx: &ReconcileContext,
) -> Result<Next, ReconcileError> {
    // (I/O) Half a view would look like missing objects.
    if ctx.stop.run_until_cancelled(ctx.wait_until_synced()).await != Some(true) {
        return Err(ReconcileError::CachesGone);
    }
    let object = ctx.own_writes.newest(stored);
    let subject = ModelIdentity {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    };
    if object.metadata.deletion_timestamp.is_some() {
        // The children go by their owner references.
        ctx.forget(&subject.uid, &ObjectRef::from(&subject));
        return Ok(Next::await_change());
    }
    if !holds_namespace(object.owner_ref(&()), &subject, ctx).await? {
        return Ok(Next::await_change());
    }
    if let Some(wait) = ctx.expectations.remaining_wait(&subject.uid, &ctx.views, Instant::now()) {
        return Ok(Next::requeue(wait.min(RECHECK_INTERVAL)));
    }
    // (pure)
    let now = Timestamp::now();
    let heard = |pod_uid: &str| {
        (
            ctx.gateway_streams.report(pod_uid, &subject.uid),
            ctx.gateway_streams.unreachable(pod_uid),
        )
    };
    let evidence = ctx.poller.evidence(&subject.uid);
    let refusals = ctx.refusals.messages(&subject.uid);
    let disturbances =
        ctx.disturbances.for_model(&ObjectOwner::model(&subject.namespace, &subject.name), now);
    let settings = ctx.settings.for_namespace(&subject.namespace);
    let mut observed =
        observe_model(object, &ctx.views, heard, evidence, refusals, disturbances, &settings);
    let plan = plan(&observed, now);
    // (I/O)
    let wait = execute_plan(&mut observed, &plan, now, &subject, ctx).await?;
    ctx.backoff.reset(&subject.uid);
    Ok(Next::requeue(requeue_after(&plan, wait, now)))
}

/// (I/O) Whether this operator looks after the namespace: of several one does, and takes it in the
/// name of `owner` where nobody does. Until that is known nothing is written.
async fn holds_namespace(
    owner: Option<OwnerReference>,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Result<bool, ReconcileError> {
    if ctx.stop.run_until_cancelled(ctx.leases.wait_until_synced()).await.is_none() {
        return Err(ReconcileError::CachesGone);
    }
    let Some(holder) = ctx.leases.acquire(&ctx.client, &subject.namespace, owner).await? else {
        return Ok(true);
    };
    leave_to_holder(subject, &holder, ctx).await;
    Ok(false)
}

/// Leaves a ModelDeployment to another operator. It is looked at again when its namespace changes
/// hands.
async fn leave_to_holder(subject: &ModelIdentity, holder: &str, ctx: &ReconcileContext) {
    if !ctx.leases.is_new_holder(&subject.uid, holder) {
        return;
    }
    ctx.forget(&subject.uid, &ObjectRef::from(subject));
    // That forgot also what it was told.
    ctx.leases.is_new_holder(&subject.uid, holder);
    publish_events(
        &[namespace_lease::other_operator_note(&subject.namespace, ctx.leases.identity(), holder)],
        subject,
        ctx,
    )
    .await;
}

/// Does what the plan says, in its order. An action that is refused keeps no other one from being
/// done. Gives when to look again for the sake of the status or of a write that waits, if for that.
async fn execute_plan(
    observed: &mut ObservedState,
    plan: &ReconcilePlan,
    now: Timestamp,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Result<Option<Duration>, WriteError> {
    ctx.poller.set_request(&subject.uid, &ObjectRef::from(subject), plan.evidence.as_ref());
    ctx.gateway_streams.set_draining(&subject.uid, draining_revisions(&plan.status));
    let stored = observed.object.status.clone();
    let before = status::status_differs(stored.as_ref(), &plan.status);
    // Also when it is the same: at another version of the object it is refused, so that a leader
    // that slept, and whose lease is another's by now, takes nothing away by what it remembers. The
    // API server stores nothing then.
    if plan.status_first {
        write_status(&plan.status, observed, subject, ctx).await?;
    }
    let ActionsOutcome { failure, next_retry: waits, restored } =
        execute_actions(&observed.object, plan, now, subject, ctx).await;
    publish_events(&restored, subject, ctx).await;
    let refused = newly_refused(observed, subject, ctx);
    // What is refused is told by the same plan with that in its view: nothing else of it can
    // differ.
    let told = refused.as_ref().map(|_| slipway_core::plan::plan(observed, now).status);
    let status = told.as_ref().unwrap_or(&plan.status);
    ctx.metrics.conditions.show(&subject.uid, &subject.namespace, &subject.name, status);
    let written = if before && plan.status_first { Some(&plan.status) } else { stored.as_ref() };
    let differs = status::status_differs(written, status);
    if differs {
        // After a failure the next look may be a minute away: nothing waits for it.
        let may_wait =
            plan.status_may_wait && plan.events.is_empty() && told.is_none() && failure.is_none();
        if let Some(left) =
            may_wait.then(|| ctx.status_debounce.time_left(&subject.uid, Instant::now())).flatten()
        {
            return Ok([Some(left), waits].into_iter().flatten().min());
        }
        write_status(status, observed, subject, ctx).await?;
    }
    ctx.status_debounce.clear(&subject.uid);
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
    // Our own first write of this plan has made the object newer.
    let version = ctx.own_writes.newest(&observed.object).resource_version();
    status::apply_status(&ctx.client, &ctx.own_writes, subject, version.as_deref(), status).await
}

/// What came of the actions of a plan.
#[derive(Default)]
struct ActionsOutcome {
    /// The first failure.
    failure: Option<WriteError>,
    /// How long the next one that waits has to wait.
    next_retry: Option<Duration>,
    /// What to tell of what was put back.
    restored: Vec<PlannedEvent>,
}

/// Tries all actions whose time has come.
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
    let mut round = ctx.refusals.start_round(&subject.uid);
    let mut acted = ActionsOutcome::default();
    ensure_keys(ctx, &applier, &mut round, &mut acted).await;
    for action in &plan.actions {
        // As soon as there is who owns them, and so before the pods that want them.
        ensure_keys(ctx, &applier, &mut round, &mut acted).await;
        let target = action_target(action);
        if !round.is_due(&target, Instant::now()) {
            continue;
        }
        if let PlanAction::Delete { kind, name, .. } = action {
            let target = format!("{} {name}", ManagedKind::from(*kind).kind_name());
            ctx.disturbances.record_deletion(&subject.owner_of(name), target);
        }
        match applier.execute(action).await {
            Ok(done) => {
                acted.restored.extend(record_written(action, &done, now, ctx));
                done.expectation
                    .into_iter()
                    .for_each(|it| ctx.expectations.expect(&subject.uid, it, Instant::now()));
            }
            Err(error) => {
                round.record_failure(&target, &error, Instant::now());
                acted.failure.get_or_insert(error);
            }
        }
    }
    acted.next_retry = round.finish(&ctx.refusals, Instant::now());
    acted
}

/// Makes the keys of the namespace, where they may be missing.
async fn ensure_keys(
    ctx: &ReconcileContext,
    applier: &ActionApplier<'_>,
    round: &mut WriteRound,
    acted: &mut ActionsOutcome,
) {
    if !round.is_due(keys::TARGET, Instant::now()) || round.has_failed(keys::TARGET) {
        return;
    }
    if let Err(error) = ctx.keys.ensure(applier).await {
        round.record_failure(keys::TARGET, &error, Instant::now());
        acted.failure.get_or_insert(error);
    }
}

/// Remembers what was written, for the plans that follow; gives what to tell of it.
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

/// Takes what is refused by now into the view, when that is news; gives what to tell of it.
fn newly_refused(
    observed: &mut ObservedState,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Option<Vec<PlannedEvent>> {
    let refusals = ctx.refusals.messages(&subject.uid);
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
            .map(|(_, message)| note(message))
            .collect(),
    )
}

/// Events are for people: one that is lost stops nothing.
async fn publish_events(notes: &[PlannedEvent], subject: &ModelIdentity, ctx: &ReconcileContext) {
    for note in notes {
        if let Err(error) = ctx.events.publish(subject, note, Timestamp::now()).await {
            ctx.metrics.events_lost.inc();
            tracing::warn!(name = subject.name, namespace = subject.namespace, %error, "event lost");
        }
    }
}

/// A ModelDeployment that the API server took and this operator cannot read, written for a newer
/// version, say, or does not keep. Nothing of it is touched.
async fn report_unreadable(
    object: &GuardedModel,
    error: &str,
    ctx: &ReconcileContext,
) -> Result<Next, ReconcileError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let subject = ModelIdentity { namespace, name, uid: object.uid().unwrap_or_default() };
    if object.meta().deletion_timestamp.is_some()
        || !holds_namespace(object.owner_ref(&()), &subject, ctx).await?
    {
        return Ok(Next::await_change());
    }
    tracing::warn!(
        name = subject.name,
        namespace = subject.namespace,
        error,
        "ModelDeployment cannot be planned"
    );
    let (reason, note) = if too_large::is_too_large(error) {
        if !too_large::report_too_large(error, &subject, ctx).await? {
            return Ok(Next::await_change());
        }
        (TOO_LARGE, error.to_owned())
    } else {
        (
            INVALID_SPEC,
            format!("this operator cannot read the object and leaves everything as it is: {error}"),
        )
    };
    publish_events(
        &[PlannedEvent { warning: true, reason: reason.to_owned(), action: "Read".into(), note }],
        &subject,
        ctx,
    )
    .await;
    Ok(Next::await_change())
}

/// When to look again: when the plan says, for the sake of the status, else by the safety net with
/// a tenth of jitter.
fn requeue_after(plan: &ReconcilePlan, for_status: Option<Duration>, now: Timestamp) -> Duration {
    let net = RESYNC_INTERVAL.mul_f64(0.9 + 0.2 * rand::random::<f64>());
    let wake =
        plan.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    [wake, for_status].into_iter().flatten().fold(net, Duration::min)
}

/// Revisions that are named and get no traffic.
fn draining_revisions(status: &ModelDeploymentStatus) -> BTreeSet<String> {
    let backends = status.traffic.iter().flat_map(|t| &t.backends);
    let (used, unused): (Vec<_>, Vec<_>) = backends.partition(|b| b.weight_permille > 0);
    let named = [&status.stable, &status.candidate].into_iter().flatten().map(|r| &r.revision);
    let named = named.chain(status.rollout.iter().map(|rollout| &rollout.revision));
    let past = status.history.iter().take(1).map(|r| &r.revision);
    let all = unused.iter().map(|b| &b.revision).chain(named).chain(past);
    all.filter(|revision| !used.iter().any(|b| b.revision == **revision)).cloned().collect()
}

/// Rollouts that the new status records as ended and the stored one does not.
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

impl From<&ModelIdentity> for ObjectRef<GuardedModel> {
    fn from(subject: &ModelIdentity) -> Self {
        Self::new(&subject.name).within(&subject.namespace)
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
