//! The decision logic of the Slipway operator, without input and output.
//!
//! [`plan::plan`] is a function of the observed state and the time passed to it. It uses no client,
//! no clock and no randomness; the same input gives the same output. Everything that it needs to
//! remember is in the status of the ModelDeployment.
//!
//! # Sequence of a decision
//!
//! Validate the spec ([`validate`]) → compute its revision ([`slipway_objects::revision`]) → find
//! the stable revision and repair inconsistent stored state → follow the spec (first revision, new
//! candidate, back to stable) → record confirmations → handle user commands ([`command`]) → run the
//! stage machine until nothing changes → build objects (`slipway-objects`) and sizes ([`sizing`]) →
//! build the status with its conditions.
//!
//! # Invariants
//!
//! [`check`] verifies each invariant for every plan that a test or the simulator makes, in addition
//! to the tests with the invariant in their name.
//!
//! - **I1 whole**: weights sum to 1000, exactly one backend is stable, and it is the stable
//!   revision of the status.
//! - **I2 generations**: changed weights have a greater generation, greater than any that a gateway
//!   ever reported; they count as confirmed only if every ready gateway (at least one) confirmed
//!   them.
//! - **I3 capacity before weight**: the weight of a candidate rises only if the pods that it needs
//!   are available and a stored status requested them.
//! - **I4 nothing selected shrinks**: a revision that stored, new, or unconfirmed weights may
//!   select (including the shield and the preview address) keeps the replicas that its share of
//!   `spec.replicas` needs; a ReplicaSet is deleted only without pods and without a role.
//! - **I5 only a pass advances**: a judged step ends by a pass on evidence of its own generation
//!   taken after its confirmation, or by a user's command. On absent, stale or unusable evidence
//!   the step holds.
//! - **I6 promotion**: a candidate becomes stable only with all traffic, confirmed, and all its
//!   pods; no other revision becomes stable while the stable one exists.
//! - **I7 abort**: from every state one plan removes all weight from the candidate, independent of
//!   its health, the spec, Prometheus and the autoscaler.
//! - **I8 held**: while `spec.paused` is true there is no new step, no new weight and no promotion;
//!   a rollback is still possible.
//! - **I9 order**: the status is written before the actions if it contains a decision, or if the
//!   actions remove something.
//! - **I10 at rest**: if the observed state does not change by itself, plans become empty: no later
//!   plan changes what a first plan, or a second one that needed the stored status, has done. No
//!   plan wakes in the past.
//! - **I11 ours**: only objects that this ModelDeployment controls are scaled and deleted, and only
//!   objects without a controller are adopted, each with its UID as precondition.
//! - **I12 evidence** is requested only for a confirmed generation, from its confirmation on.
//! - **I13 reported**: the condition `Ready` is always present and the others while they hold, each
//!   with a reason, a message and the generation that it describes; their times change only with
//!   their status.
//! - **I14 total**: every input has a plan.
//! - **I15 one model**: a revision has one pod until that pod has reported its model and the
//!   ReplicaSet is pinned to it; it is never pinned to a model that none of its pods reported.
//! - **I16 remembered**: the marks of a ReplicaSet (stable, rolled back) match the status.
//! - **I17 restored**: changes and deletions of the operator's objects by other clients are
//!   reverted, at once and then at most once a minute for each object.
//! - **I18 pure**: no client, runtime or clock is in the dependency tree.
//! - **I19 restart**: only at rest, and only for `spec.restartTime`, the plan evicts pods of the
//!   stable revision that are older than it: one in a plan, and a ready one only while all wanted
//!   pods are ready. A new pod that does not become ready stops this.

pub mod action;
pub mod check;
pub mod command;
pub mod conflicts;
mod context;
mod draft;
pub mod event;
pub mod fields;
pub mod gateway_rollout;
mod lost_status;
pub mod marks;
pub mod observed;
pub mod plan;
pub mod refusal;
mod replicas;
mod report;
pub mod sizing;
mod strategy;
pub mod text;
mod time;
pub mod traffic;
pub mod validate;
mod wake_times;

pub use report::stalled_status;
