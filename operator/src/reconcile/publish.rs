//! Publishes the events of a reconcile.

use jiff::Timestamp;
use slipway_core::event::PlannedEvent;

use crate::apply::ModelIdentity;
use crate::reconcile::context::ReconcileContext;

/// Publishes events. A failure is only logged and counted, because events are only informative.
pub(crate) async fn publish_events(
    notes: &[PlannedEvent],
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) {
    for note in notes {
        if let Err(error) = ctx.events.publish(subject, note, Timestamp::now()).await {
            ctx.metrics.events_lost.inc();
            tracing::warn!(name = subject.name, namespace = subject.namespace, %error, "event lost");
        }
    }
}
