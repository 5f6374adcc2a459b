//! One reconcile: observe, plan, apply, publish. Every step says whether it does I/O; no step decides anything about rollouts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action as Next;
use kube::runtime::reflector::ObjectRef;
use slipway_core::action::{Note, Plan};
use slipway_core::plan::plan;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutRecord};

use crate::apply::{Applier, Subject};
use crate::context::Context;
use crate::error::{Error, WriteError};
use crate::main_watch::Guarded;
use crate::observe::observe;
use crate::status;

/// When to look again although nothing happened: a net under watches that lost something. It costs no request.
const SAFETY_NET: Duration = Duration::from_secs(600);
/// After a status was written: some of a plan waits for what it decided to be stored (what a stored weight selects is not taken away, say). Our own
/// write triggers nothing by itself, so the next plan is asked for here; where nothing is left to do it costs no request.
const REPLAN: Duration = Duration::from_millis(50);
/// Longest pause between looks at a write that the watch has not brought back.
const RECHECK: Duration = Duration::from_millis(100);
/// Failures in a row after which even a fault that may pass is shown to people.
const PATIENT_FAILURES: u32 = 5;

/// Reconciles one ModelDeployment and counts it.
///
/// # Errors
/// When a write failed; [`on_error`] says when to try again.
pub async fn reconcile(object: Arc<Guarded>, ctx: Arc<Context>) -> Result<Next, Error> {
    let _running = ctx.running.start();
    let start = Instant::now();
    let result = match &object.0 {
        Ok(valid) => step(valid, &ctx).await,
        Err(invalid) => {
            report_unreadable(&object, &invalid.error, &ctx).await;
            Ok(Next::await_change())
        }
    };
    ctx.metrics.reconciled(result.as_ref().map_or_else(Error::category, |_| "ok"), start.elapsed().as_secs_f64());
    result
}

/// When to try again after a failure. A change of anything that is watched comes through at once all the same.
#[expect(clippy::needless_pass_by_value, reason = "the shape that the Controller asks for")]
pub fn on_error(object: Arc<Guarded>, error: &Error, ctx: Arc<Context>) -> Next {
    let wait = ctx.backoff.failed(&object.uid().unwrap_or_default());
    tracing::warn!(
        name = object.name_any(),
        namespace = object.namespace(),
        category = error.category(),
        %error,
        "reconcile failed"
    );
    Next::requeue(wait)
}

async fn step(stored: &ModelDeployment, ctx: &Context) -> Result<Next, Error> {
    // (I/O) Half a view would look like missing objects.
    let synced = ctx.stop.run_until_cancelled(ctx.views.wait_until_synced()).await;
    if synced != Some(true) {
        return Err(Error::CachesGone);
    }
    let object = ctx.own.newest(stored);
    let subject = Subject {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    };
    if object.metadata.deletion_timestamp.is_some() {
        // The children go by their owner references.
        ctx.forget(&subject.uid, &ObjectRef::from(&subject));
        return Ok(Next::await_change());
    }
    if let Some(wait) = ctx.expectations.missing(&subject.uid, &ctx.views, Instant::now()) {
        return Ok(Next::requeue(wait.min(RECHECK)));
    }
    // (pure)
    let now = Timestamp::now();
    let stored_status = object.status.clone();
    let generation = object.metadata.generation;
    let version = object.resource_version();
    let report = |pod_uid: &str| ctx.links.report(pod_uid, &subject.uid);
    let observed = observe(object, &ctx.views, report, ctx.poller.evidence(&subject.uid), &ctx.settings);
    let plan = plan(&observed, now);
    // (I/O)
    match carry_out(&plan, stored_status.as_ref(), version.as_deref(), &subject, ctx).await {
        Ok(wait) => {
            ctx.backoff.reset(&subject.uid);
            Ok(Next::requeue(next_look(&plan, wait, now)))
        }
        Err(error) => {
            // The status may have been written before the action that failed.
            let version = ctx.own.newest(stored).resource_version();
            let faced = FacedWrite { stored: stored_status.as_ref(), plan: &plan, generation, version };
            report_refusal(&error, &faced, &subject, ctx).await;
            Err(error.into())
        }
    }
}

/// Does what the plan says, in its order, and stops at the first error. Gives when to look again for the sake of the status, if for that.
async fn carry_out(
    plan: &Plan,
    stored: Option<&ModelDeploymentStatus>,
    version: Option<&str>,
    subject: &Subject,
    ctx: &Context,
) -> Result<Option<Duration>, WriteError> {
    ctx.poller.ask(&subject.uid, &ObjectRef::from(subject), plan.evidence.as_ref());
    ctx.links.set_draining(&subject.uid, draining(&plan.status));
    let differs = status::differs(stored, &plan.status);
    if differs && plan.status_first {
        status::write(&ctx.client, &ctx.own, subject, version, &plan.status).await?;
    }
    let applier = Applier { client: &ctx.client, views: &ctx.views, subject, turns: &ctx.turns };
    for action in &plan.actions {
        let expectation = applier.carry_out(action).await?;
        ctx.expectations.expect(&subject.uid, expectation, Instant::now());
    }
    if differs && !plan.status_first {
        let may_wait = plan.status_may_wait && plan.events.is_empty();
        if let Some(left) = may_wait.then(|| ctx.waiting.wait(&subject.uid, Instant::now())).flatten() {
            return Ok(Some(left));
        }
        status::write(&ctx.client, &ctx.own, subject, version, &plan.status).await?;
    }
    ctx.waiting.done(&subject.uid);
    for record in ended(stored, &plan.status) {
        ctx.metrics.rollout_ended(record.outcome);
    }
    publish(&plan.events, subject, ctx).await;
    Ok(differs.then_some(REPLAN))
}

/// Events are for people: one that is lost stops nothing.
async fn publish(notes: &[Note], subject: &Subject, ctx: &Context) {
    for note in notes {
        if let Err(error) = ctx.events.publish(subject, note, Timestamp::now()).await {
            ctx.metrics.events_lost.inc();
            tracing::warn!(name = subject.name, namespace = subject.namespace, %error, "event lost");
        }
    }
}

struct FacedWrite<'a> {
    stored: Option<&'a ModelDeploymentStatus>,
    plan: &'a Plan,
    generation: Option<i64>,
    version: Option<String>,
}

/// Shows a failed write in the status and as an event when a person has to act, or when it does not pass.
async fn report_refusal(error: &WriteError, faced: &FacedWrite<'_>, subject: &Subject, ctx: &Context) {
    let lasting = ctx.backoff.failures(&subject.uid) + 1 >= PATIENT_FAILURES;
    if error.kind == "ModelDeployment" || !(error.fault.needs_person() || lasting) {
        return;
    }
    let text = error.to_string();
    // What was written before the actions is the stored status by now.
    let written = faced.plan.status_first && status::differs(faced.stored, &faced.plan.status);
    let base = if written { Some(&faced.plan.status) } else { faced.stored };
    let refused = status::with_refusal(base, &text, faced.generation, Timestamp::now());
    if !status::differs(base, &refused) {
        return;
    }
    if let Err(error) = status::write(&ctx.client, &ctx.own, subject, faced.version.as_deref(), &refused).await {
        tracing::warn!(name = subject.name, namespace = subject.namespace, %error, "refusal not shown in the status");
    }
    let reason = status::WRITE_REFUSED.to_owned();
    publish(&[Note { warning: true, reason, action: "Apply".into(), note: text }], subject, ctx).await;
}

/// A ModelDeployment that the API server took and this operator cannot read: written for a newer version, say. Nothing of it is touched.
async fn report_unreadable(object: &Guarded, error: &str, ctx: &Context) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let subject = Subject { namespace, name, uid: object.uid().unwrap_or_default() };
    tracing::warn!(name = subject.name, namespace = subject.namespace, error, "ModelDeployment cannot be read");
    let note = format!("this operator cannot read the object and leaves everything as it is: {error}");
    let reason = slipway_crds::conditions::reason::INVALID_SPEC.to_owned();
    publish(&[Note { warning: true, reason, action: "Read".into(), note }], &subject, ctx).await;
}

/// When to look again: when the plan says, for the sake of the status, else by the safety net with a tenth of jitter.
fn next_look(plan: &Plan, for_status: Option<Duration>, now: Timestamp) -> Duration {
    let net = SAFETY_NET.mul_f64(0.9 + 0.2 * rand::random::<f64>());
    let wake = plan.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    [wake, for_status].into_iter().flatten().fold(net, Duration::min)
}

/// Revisions that are named and get no traffic.
fn draining(status: &ModelDeploymentStatus) -> BTreeSet<String> {
    let backends = status.traffic.iter().flat_map(|t| &t.backends);
    let (used, unused): (Vec<_>, Vec<_>) = backends.partition(|b| b.weight_permille > 0);
    let named = [&status.stable, &status.candidate].into_iter().flatten().map(|r| &r.revision);
    let past = status.history.iter().take(1).map(|r| &r.revision);
    let all = unused.iter().map(|b| &b.revision).chain(named).chain(past);
    all.filter(|revision| !used.iter().any(|b| b.revision == **revision)).cloned().collect()
}

/// Rollouts that the new status records as ended and the stored one does not.
fn ended<'a>(stored: Option<&ModelDeploymentStatus>, new: &'a ModelDeploymentStatus) -> Vec<&'a RolloutRecord> {
    let known = |r: &RolloutRecord| {
        let same =
            |k: &RolloutRecord| k.revision == r.revision && k.started_at.0.as_second() == r.started_at.0.as_second();
        stored.is_some_and(|s| s.history.iter().any(same))
    };
    new.history.iter().filter(|r| !known(r)).collect()
}

impl From<&Subject> for ObjectRef<Guarded> {
    fn from(subject: &Subject) -> Self {
        Self::new(&subject.name).within(&subject.namespace)
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
