//! What others change or remove of our objects: put back at once, and then at most once a minute, so that nobody who changes it back each time can make us write
//! without end.

use crate::action::Action;
use crate::context::Context;
use crate::desired::Desired;
use crate::draft::Draft;
use crate::fields::{self, Change, Managed};
use crate::observed::{CONTESTED, Disturbance, ObjectView, ReplicaSetView};
use crate::time::after;

/// Seconds between two times at which the same object is put back.
const PAUSE: i64 = 60;
/// Seconds after which it is tried whether an admission webhook or policy still changes what we write.
const OVERRIDDEN: i64 = 10 * PAUSE;

/// Applies an object that is missing, not as it was applied last, or not ours yet. Its stamp was just made by the builder; making it once more would be the
/// greater part of a plan's time.
pub(super) fn apply(
    cx: &Context<'_>,
    draft: &mut Draft,
    desired: Desired,
    view: Option<&ObjectView>,
    actions: &mut Vec<Action>,
) {
    let known = cx.observed.disturbances.get(&desired.target());
    let change = match view {
        None => known.filter(|it| it.removed).map(|_| Change::Removed),
        Some(view) if view.applied == desired.stamp() || view.managed.is_stamp_lost() => {
            changed(&view.managed, &desired)
        }
        Some(_) => None,
    };
    let owned = |view: &ObjectView| match &desired.metadata().owner_references {
        Some(_) => view.owners.contains(&cx.spec.uid),
        None => view.owners.is_empty(),
    };
    let settled = view.is_some_and(|view| owned(view) && view.applied == desired.stamp());
    if settled && change.is_none() {
        rest(cx, draft, desired, known, actions);
    } else {
        write(cx, draft, desired, change, known, actions);
    }
}

/// Applies a ReplicaSet again whose template or labels somebody changed. One that was made by another version of the operator, or with other settings, is left
/// as it is: what it was made from is not known.
pub(super) fn mend(
    cx: &Context<'_>,
    draft: &mut Draft,
    there: &ReplicaSetView,
    desired: Desired,
    actions: &mut Vec<Action>,
) {
    let known = cx.observed.disturbances.get(&desired.target());
    if there.applied != desired.stamp() {
        return;
    }
    match changed(&there.managed, &desired) {
        Some(change) => write(cx, draft, desired, Some(change), known, actions),
        None => tell(cx, draft, &desired, known),
    }
}

/// Applies a ReplicaSet that was made with other settings: a restart was asked for, and new pods shall be what is made today.
pub(super) fn renew(cx: &Context<'_>, draft: &mut Draft, desired: Desired, actions: &mut Vec<Action>) {
    let known = cx.observed.disturbances.get(&desired.target());
    write(cx, draft, desired, None, known, actions);
}

fn changed(managed: &Managed, desired: &Desired) -> Option<Change> {
    // What is compared costs a copy of the object.
    managed.fields.as_ref()?;
    let by = managed.changed_by.clone();
    managed.lost(&fields::compared(desired)).map(|field| Change::Changed { field, by })
}

fn write(
    cx: &Context<'_>,
    draft: &mut Draft,
    desired: Desired,
    change: Option<Change>,
    known: Option<&Disturbance>,
    actions: &mut Vec<Action>,
) {
    // The second time, and from then on: a person may change their mind once.
    let again = known.filter(|it| it.restored > 0 && it.applied == desired.stamp() && it.is_recent(cx.now, CONTESTED));
    if let Some(again) = again {
        contest(draft, &desired, again);
        if let Some(at) = within(cx, again, PAUSE) {
            draft.wake(after(at, PAUSE));
            return;
        }
    }
    let desired = Box::new(desired);
    actions.push(match change {
        Some(change) => Action::Restore { desired, change },
        None => Action::Apply(desired),
    });
}

/// An object that is as it was applied. What the API server did not take as we wrote it is written again from time to time: it may be allowed by now.
fn rest(cx: &Context<'_>, draft: &mut Draft, desired: Desired, known: Option<&Disturbance>, actions: &mut Vec<Action>) {
    tell(cx, draft, &desired, known);
    let Some((known, field)) = known.and_then(|it| Some((it, it.overridden.as_ref()?))) else { return };
    draft.overridden.push(format!("{}: {field} is changed by an admission webhook or policy", desired.target()));
    match within(cx, known, OVERRIDDEN) {
        Some(at) => draft.wake(after(at, OVERRIDDEN)),
        None => actions.push(Action::Apply(Box::new(desired))),
    }
}

/// Says that somebody keeps changing an object, until it has stayed as it is for a while.
fn tell(cx: &Context<'_>, draft: &mut Draft, desired: &Desired, known: Option<&Disturbance>) {
    let Some(known) = known.filter(|it| it.restored > 1 && it.applied == desired.stamp()) else { return };
    if let Some(at) = within(cx, known, CONTESTED) {
        contest(draft, desired, known);
        draft.wake(after(at, CONTESTED));
    }
}

fn contest(draft: &mut Draft, desired: &Desired, known: &Disturbance) {
    let by = known.changed_by.as_deref().unwrap_or("somebody else");
    draft.contested.push(format!(
        "{} is changed or removed by {by} again and again; it is put back at most once a minute",
        desired.target()
    ));
}

/// When an object was applied last, if that was within so many seconds.
fn within(cx: &Context<'_>, known: &Disturbance, seconds: i64) -> Option<jiff::Timestamp> {
    known.applied_at.filter(|_| known.is_recent(cx.now, seconds))
}
