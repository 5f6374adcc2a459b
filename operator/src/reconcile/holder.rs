//! Namespaces of other operators: their ModelDeployments are not changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::apply::ModelIdentity;
use crate::namespaces::lease_object::other_operator_note;
use crate::reconcile::context::ReconcileContext;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::publish::publish_events;

/// (I/O) Whether this operator holds the namespace. Takes a namespace without a holder, with a
/// Lease that `owner` owns. Nothing is written before the holder is known.
pub(crate) async fn holds_namespace(
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

/// Leaves a ModelDeployment to another operator. It is reconciled again when the holder of its
/// namespace changes.
async fn leave_to_holder(subject: &ModelIdentity, holder: &str, ctx: &ReconcileContext) {
    if !ctx.memories.is_new_holder(&subject.uid, holder) {
        return;
    }
    ctx.forget(&subject.uid, &subject.as_owner());
    // That forgot also what it was told.
    ctx.memories.is_new_holder(&subject.uid, holder);
    publish_events(
        &[other_operator_note(&subject.namespace, ctx.leases.identity(), holder)],
        subject,
        ctx,
    )
    .await;
}
