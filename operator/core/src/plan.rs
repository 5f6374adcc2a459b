//! The decision.

mod children;
mod disturbance;
mod finish;
mod identify;
mod marks;
mod network_policies;
mod restart;
mod scale;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use crate::action::Plan;

use crate::action::Action;
use crate::command::{self, Pending};
use crate::context::Context;
use crate::draft::Draft;
use crate::observed::Observed;
use crate::{strategy, traffic};

/// What shall be done about one ModelDeployment, and what its status shall say.
///
/// Total and deterministic: any input has an answer, and the same input has the same one. What was decided and what may be taken away on the strength of it are
/// in one plan; see [`Plan::status_first`] for the order that makes this safe when the view was stale.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let cx = Context::new(observed, now);
    if observed.object.metadata.deletion_timestamp.is_some() {
        // Owner references take everything along.
        return finish::nothing(&cx);
    }
    let mut draft = Draft::new(&cx, identify::stable(&cx));
    let mut pending = Pending::of(&observed.object);
    if observed.object.status.is_none() {
        command::first_sight(&observed.object, &mut draft.handled);
    }
    identify::repair(&cx, &mut draft);
    strategy::retarget(&cx, &mut draft, &mut pending);
    confirm(&cx, &mut draft);
    strategy::run(&cx, &mut draft, &mut pending);
    strategy::traffic_left(&cx, &mut draft);
    let scaling = scale::scaling(&cx, &mut draft);
    let restart = restart::actions(&cx, &mut draft);
    let evicts = restart.iter().any(|action| matches!(action, Action::Evict { .. }));
    let taken = evicts || !scaling.take.is_empty();
    let mut actions = scaling.grow;
    actions.extend(children::applies(&cx, &mut draft));
    children::adoptions(&cx, &mut actions);
    scale::pins(&cx, &mut actions);
    write_replicas(&cx, &mut actions);
    marks::actions(&cx, &draft, &mut actions);
    actions.extend(scaling.take);
    actions.extend(restart);
    finish::finish(&cx, draft, actions, taken)
}

/// Notes that every gateway uses the newest weights, once.
fn confirm(cx: &Context<'_>, draft: &mut Draft) {
    let current = draft.traffic.generation;
    if current <= 0 || traffic::is_confirmed(&draft.traffic) || !traffic::all_ready_at(&cx.observed.gateway, current) {
        return;
    }
    let at = cx.stamp_after();
    traffic::confirm(&mut draft.traffic, at);
    let last = draft.rollout.as_mut().and_then(|rollout| rollout.steps.last_mut());
    if let Some(record) = last.filter(|record| record.confirmed_time.is_none() && record.end_time.is_none()) {
        record.confirmed_time = Some(Time(at));
    }
}

/// Writes `spec.replicas` where it is left out: without a value there the scale subresource answers an error, so that neither an autoscaler nor
/// `kubectl scale` could begin.
fn write_replicas(cx: &Context<'_>, actions: &mut Vec<Action>) {
    if cx.observed.object.spec.replicas.is_none() && cx.spec.problem.is_none() {
        actions.push(Action::WriteReplicas { replicas: cx.spec.replicas });
    }
}
