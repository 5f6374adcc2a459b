//! Namespaces of other operators: their ModelDeployments are left alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::apply::ModelIdentity;
use crate::namespaces::lease_object::other_operator_note;
use crate::reconcile::context::ReconcileContext;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::publish::publish_events;

/// (I/O) Whether this operator looks after the namespace: of several one does, and takes it in the
/// name of `owner` where nobody does. Until that is known nothing is written.
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

/// Leaves a ModelDeployment to another operator. It is looked at again when its namespace changes
/// hands.
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
