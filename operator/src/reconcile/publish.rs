//! Events about what a reconcile did.

use jiff::Timestamp;
use slipway_core::event::PlannedEvent;

use crate::apply::ModelIdentity;
use crate::reconcile::context::ReconcileContext;

/// Events are for people: one that is lost stops nothing.
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
