//! The controller that the watches feed.

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

/// Gathers what changes together, such as a ReplicaSet and its pods, into one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Reconciles at one time. They wait for the API server most of the time.
const CONCURRENCY: u16 = 16;

/// Runs the controller until `ctx.stop`; reconciles that have begun are finished.
pub async fn run_controller(
    watch: &WatchContext,
    ctx: Arc<ReconcileContext>,
    pushed: UnboundedReceiver<ReconcileTrigger>,
) {
    let (reader, writer) = reflector::store::<GuardedModel>();
    let pushed =
        stream::unfold(pushed, |mut from| async move { from.recv().await.map(|t| (t, from)) });
    // The main watch feeds the store; what triggers is decided by the fingerprints, so the stream
    // of objects itself triggers nothing.
    let controller = Controller::for_stream(stream::pending(), reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(watch_models(watch, &ctx, writer))
        .reconcile_on(watch_children(watch, &ctx))
        // Gateways that confirmed, braked, drained or went silent, and new evidence.
        .reconcile_on(pushed)
        .graceful_shutdown_on(ctx.stop.clone().cancelled_owned());
    controller
        .run(reconcile_model, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                // Failures of reconciles are logged where they happen; the rest is an object that
                // has gone meanwhile.
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}
