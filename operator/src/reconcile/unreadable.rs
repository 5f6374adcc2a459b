//! ModelDeployments that cannot be planned: their status or an event reports it, and their objects
//! stay unchanged.

use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::controller::Action as Next;
use kube::{Api, Resource, ResourceExt};
use slipway_cluster_views::{GuardedModel, ModelMemory};
use slipway_core::event::PlannedEvent;
use slipway_core::stalled_status;
use slipway_crds::conditions::reason::{INVALID_SPEC, TOO_LARGE};
use slipway_crds::v1alpha1::ModelDeployment;

use crate::apply::{ModelIdentity, WriteError, status, with_timeout};
use crate::reconcile::context::ReconcileContext;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::holder::holds_namespace;
use crate::reconcile::publish::publish_events;
use crate::watch::size_limit::{is_too_large, size_problem};

/// Reports a ModelDeployment that the API server accepted but this operator cannot deserialize (for
/// example one written for a newer version) or does not cache because of its size. Its objects stay
/// unchanged.
pub(crate) async fn report_unreadable(
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
    let (reason, note) = if is_too_large(error) {
        if !report_too_large(error, &subject, ctx).await? {
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

/// Writes the problem into the status of an object that is too large. Returns whether the status
/// changed.
///
/// # Errors
/// When the object cannot be read or written.
async fn report_too_large(
    error: &str,
    subject: &ModelIdentity,
    ctx: &ReconcileContext,
) -> Result<bool, WriteError> {
    let api = Api::<ModelDeployment>::namespaced(ctx.client.clone(), &subject.namespace);
    // The rest of the status contains the weights that gateways follow, and this process does not
    // cache it, so it is read first. The operator may list `modeldeployments` but not get them.
    let one = ListParams::default().fields(&format!("metadata.name={}", subject.name));
    let found =
        with_timeout("list", "ModelDeployment", &subject.name, api.list(&one)).await?.items.pop();
    let same = |object: &ModelDeployment| {
        object.uid().as_deref() == Some(&subject.uid) && size_problem(object).is_some()
    };
    let Some(object) = found.filter(same) else { return Ok(false) };
    let stored = object.status.clone().unwrap_or_default();
    let new_status =
        stalled_status(stored, TOO_LARGE, error, object.metadata.generation, Timestamp::now());
    if !status::status_differs(object.status.as_ref(), &new_status) {
        return Ok(false);
    }
    let version = object.resource_version();
    let written = status::apply_status(
        &ctx.client,
        &ctx.own_writes,
        subject,
        version.as_deref(),
        &new_status,
    )
    .await;
    // The answer is as large as the object.
    ctx.own_writes.forget(&subject.uid, &subject.as_owner());
    written.map(|()| true)
}
