//! Reverts changes and deletions of the operator's objects by other clients: at once, and then at
//! most once a minute, so that a client that repeats its change cannot cause endless writes.

use slipway_objects::desired::DesiredObject;

use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::fields::{self, ForeignChange, ManagedFields};
use crate::observed::{CONTESTED_SECONDS, ObjectDisturbance, ObjectView, ReplicaSetView};
use crate::time::add_seconds;

/// Seconds between two restores of the same object.
const RESTORE_PAUSE_SECONDS: i64 = 60;
/// Seconds after which the operator checks whether an admission webhook or policy still changes
/// what it writes.
const OVERRIDE_RETRY_SECONDS: i64 = 10 * RESTORE_PAUSE_SECONDS;

/// Applies an object of the ModelDeployment's own.
pub(super) fn apply_child(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: DesiredObject,
    actions: &mut Vec<PlanAction>,
) {
    let view = cx.observed.children.get(&desired.target());
    apply_object(cx, draft, desired, view, actions);
}

/// Applies an object that is missing, not as it was applied last, or not ours yet. Its stamp was
/// just made by the builder; making it once more would be the greater part of a plan's time.
pub(super) fn apply_object(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: DesiredObject,
    view: Option<&ObjectView>,
    actions: &mut Vec<PlanAction>,
) {
    let known = cx.observed.disturbances.get(&desired.target());
    let change = match view {
        None => known.filter(|it| it.removed).map(|_| ForeignChange::Removed),
        Some(view)
            if view.applied_hash == desired.applied_hash()
                || view.managed_fields.is_applied_hash_lost() =>
        {
            foreign_change(&view.managed_fields, &desired)
        }
        Some(_) => None,
    };
    let owned = |view: &ObjectView| match &desired.metadata().owner_references {
        Some(_) => view.owners.contains(&cx.spec.uid),
        None => view.owners.is_empty(),
    };
    let settled =
        view.is_some_and(|view| owned(view) && view.applied_hash == desired.applied_hash());
    if settled && change.is_none() {
        retry_overridden(cx, draft, desired, known, actions);
    } else {
        push_write(cx, draft, desired, change, known, actions);
    }
}

/// Applies a ReplicaSet again if another client changed its template or labels. A ReplicaSet of
/// another version of the operator, or with other settings, is left unchanged, because its original
/// content is not known.
pub(super) fn restore_replica_set(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    there: &ReplicaSetView,
    desired: DesiredObject,
    actions: &mut Vec<PlanAction>,
) {
    let known = cx.observed.disturbances.get(&desired.target());
    if there.applied_hash != desired.applied_hash() {
        return;
    }
    match foreign_change(&there.managed_fields, &desired) {
        Some(change) => push_write(cx, draft, desired, Some(change), known, actions),
        None => report_contested(cx, draft, &desired, known),
    }
}

/// Applies a ReplicaSet that was created with other settings, because a restart was requested and
/// new pods use the current settings.
pub(super) fn update_replica_set(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: DesiredObject,
    actions: &mut Vec<PlanAction>,
) {
    let known = cx.observed.disturbances.get(&desired.target());
    push_write(cx, draft, desired, None, known, actions);
}

fn foreign_change(managed: &ManagedFields, desired: &DesiredObject) -> Option<ForeignChange> {
    // The comparison needs a copy of the object.
    managed.fields.as_ref()?;
    let by = managed.changed_by.clone();
    managed
        .lost_field(&fields::compared_fields(desired))
        .map(|field| ForeignChange::Changed { field, by })
}

fn push_write(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: DesiredObject,
    change: Option<ForeignChange>,
    known: Option<&ObjectDisturbance>,
    actions: &mut Vec<PlanAction>,
) {
    // Only from the second time on: a user may change an object once.
    let again = known.filter(|it| {
        it.restore_count > 0
            && it.applied_hash == desired.applied_hash()
            && it.is_recent(cx.now, CONTESTED_SECONDS)
    });
    if let Some(again) = again {
        add_contested(draft, &desired, again);
        if let Some(at) = applied_within(cx, again, RESTORE_PAUSE_SECONDS) {
            draft.wake_at(add_seconds(at, RESTORE_PAUSE_SECONDS));
            return;
        }
    }
    let desired = Box::new(desired);
    actions.push(match change {
        Some(change) => PlanAction::Restore { desired, change },
        None => PlanAction::Apply(desired),
    });
}

/// Handles an object that is as it was applied. If the API server stored a field differently, the
/// object is applied again from time to time, because the change may be allowed by now.
fn retry_overridden(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: DesiredObject,
    known: Option<&ObjectDisturbance>,
    actions: &mut Vec<PlanAction>,
) {
    report_contested(cx, draft, &desired, known);
    let Some((known, field)) = known.and_then(|it| Some((it, it.overridden_field.as_ref()?)))
    else {
        return;
    };
    draft.overridden_objects.push(format!(
        "{}: {field} is changed by an admission webhook or policy",
        desired.target()
    ));
    match applied_within(cx, known, OVERRIDE_RETRY_SECONDS) {
        Some(at) => draft.wake_at(add_seconds(at, OVERRIDE_RETRY_SECONDS)),
        None => actions.push(PlanAction::Apply(Box::new(desired))),
    }
}

/// Reports an object that other clients keep changing, until it has not been changed for a while.
fn report_contested(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    desired: &DesiredObject,
    known: Option<&ObjectDisturbance>,
) {
    let Some(known) =
        known.filter(|it| it.restore_count > 1 && it.applied_hash == desired.applied_hash())
    else {
        return;
    };
    if let Some(at) = applied_within(cx, known, CONTESTED_SECONDS) {
        add_contested(draft, desired, known);
        draft.wake_at(add_seconds(at, CONTESTED_SECONDS));
    }
}

fn add_contested(draft: &mut PlanDraft, desired: &DesiredObject, known: &ObjectDisturbance) {
    let by = known.changed_by.as_deref().unwrap_or("somebody else");
    draft.contested_objects.push(format!(
        "{} is changed or removed by {by} again and again; it is put back at most once a minute",
        desired.target()
    ));
}

/// Time at which an object was applied last, if within `seconds`.
fn applied_within(
    cx: &PlanContext<'_>,
    known: &ObjectDisturbance,
    seconds: i64,
) -> Option<jiff::Timestamp> {
    known.applied_at.filter(|_| known.is_recent(cx.now, seconds))
}
