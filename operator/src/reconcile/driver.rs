//! One reconcile: observe, plan, apply, publish. Comments mark each step as pure or I/O; no step
//! makes a decision about rollouts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action as Next;
use kube::{Resource, ResourceExt};
use slipway_chassis::telemetry;
use slipway_cluster_views::GuardedModel;
use slipway_core::plan::plan;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::apply::ModelIdentity;
use crate::reconcile::context::ReconcileContext;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::execute::{execute_plan, requeue_after};
use crate::reconcile::holder::holds_namespace;
use crate::reconcile::unreadable::report_unreadable;
use crate::watch::observe::observe_model;

/// Longest interval between checks for a write that the watch has not reported.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Reconciles one ModelDeployment and counts it.
///
/// # Errors
/// When a write failed; [`on_error`] determines the delay of the retry.
pub(crate) async fn reconcile_model(
    object: Arc<GuardedModel>,
    ctx: Arc<ReconcileContext>,
) -> Result<Next, ReconcileError> {
    let _running = ctx.running.start();
    let start = Instant::now();
    let span = || {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        slipway_chassis::span!("reconcile", modeldeployment = name, namespace)
    };
    let work = async {
        match &object.0 {
            Ok(valid) => reconcile_readable(valid, &ctx).await,
            Err(invalid) => report_unreadable(&object, &invalid.error, &ctx).await,
        }
    };
    let result = telemetry::run_in_span(span, work).await;
    ctx.metrics.count_reconcile(
        result.as_ref().map_or_else(ReconcileError::category, |_| "ok"),
        start.elapsed().as_secs_f64(),
    );
    result
}

/// Delay of the retry after a failure. A change of a watched object still triggers a reconcile at
/// once.
#[expect(clippy::needless_pass_by_value, reason = "the shape that the Controller asks for")]
pub(crate) fn on_error(
    object: Arc<GuardedModel>,
    error: &ReconcileError,
    ctx: Arc<ReconcileContext>,
) -> Next {
    let wait = ctx.memories.record_failure(&object.uid().unwrap_or_default());
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
    // (I/O) In incomplete caches, objects would seem to be missing.
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
        ctx.forget(&subject.uid, &subject.as_owner());
        return Ok(Next::await_change());
    }
    if !holds_namespace(object.owner_ref(&()), &subject, ctx).await? {
        return Ok(Next::await_change());
    }
    if let Some(wait) = ctx.memories.remaining_wait(&subject.uid, &ctx.views, Instant::now()) {
        return Ok(Next::requeue(wait.min(RECHECK_INTERVAL)));
    }
    // (pure)
    let now = Timestamp::now();
    let report_of = |pod_uid: &str| {
        (
            ctx.gateway_streams.report(pod_uid, &subject.uid),
            ctx.gateway_streams.unreachable(pod_uid),
        )
    };
    let evidence = ctx.poller.evidence(&subject.uid);
    let refusals = ctx.memories.refusal_reports(&subject.uid);
    let disturbances = ctx.disturbances.for_model(&subject.as_owner(), now);
    let settings = ctx.settings.for_namespace(&subject.namespace);
    let mut observed =
        observe_model(object, &ctx.views, report_of, evidence, refusals, disturbances, &settings);
    let plan = plan(&observed, now);
    // (I/O)
    let wait = execute_plan(&mut observed, &plan, now, &subject, ctx).await?;
    ctx.memories.reset_failures(&subject.uid);
    Ok(Next::requeue(requeue_after(&plan, wait, now)))
}
