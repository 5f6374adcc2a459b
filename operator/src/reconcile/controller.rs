//! The controller, which the watches trigger.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector;
use slipway_cluster_views::{GuardedModel, ReconcileTrigger};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::reconcile::context::ReconcileContext;
use crate::reconcile::driver::{on_error, reconcile_model};
use crate::reconcile::watches::{watch_children, watch_models};
use crate::watch::context::WatchContext;

/// Combines changes that occur together, such as those of a ReplicaSet and its pods, into one
/// reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Maximum number of concurrent reconciles. They mostly wait for the API server.
const CONCURRENCY: u16 = 16;

/// Runs the controller until `ctx.stop`, and then completes the running reconciles.
pub async fn run_controller(
    watch: &WatchContext,
    ctx: Arc<ReconcileContext>,
    pushed: UnboundedReceiver<ReconcileTrigger>,
) {
    let (reader, writer) = reflector::store::<GuardedModel>();
    let pushed =
        stream::unfold(pushed, |mut from| async move { from.recv().await.map(|t| (t, from)) });
    // The main watch fills the store; fingerprints determine what triggers a reconcile, so the
    // stream of objects itself triggers nothing.
    let controller = Controller::for_stream(stream::pending(), reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(watch_models(watch, &ctx, writer))
        .reconcile_on(watch_children(watch, &ctx))
        // Gateways that confirmed, braked, drained or stopped reporting, and new evidence.
        .reconcile_on(pushed)
        .graceful_shutdown_on(ctx.stop.clone().cancelled_owned());
    controller
        .run(reconcile_model, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                // Failures of reconciles are logged where they occur; the remaining errors concern
                // objects that were deleted in the meantime.
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}
