//! The pure brain of the Slipway operator.
//!
//! [`plan::plan`] is a function of what was observed and of the time that it is given. It knows no
//! client, no clock and no randomness; the same input gives the same bytes out. Everything that it
//! needs to remember is in the status of the ModelDeployment.
//!
//! # The way of a decision
//!
//! validate the spec ([`validate`]) → its revision ([`slipway_objects::revision`]) → which revision
//! serves, and is what is remembered consistent → follow the spec (first revision, new candidate,
//! back to stable) → note confirmations → commands of people ([`command`]) → the stage machine,
//! until nothing moves → objects (`slipway-objects`) and sizes ([`sizing`]) → status with
//! conditions.
//!
//! # Invariants
//!
//! Each is checked for every plan that a test or the simulator makes ([`check`]), besides the tests
//! that bear its name.
//!
//! - **I1 whole**: weights sum to 1000, exactly one backend is stable, and it is the revision that
//!   status calls stable.
//! - **I2 generations**: other weights have a greater generation, greater than any that a gateway
//!   ever reported; only a confirmation by every ready gateway (at least one) confirms.
//! - **I3 capacity before weight**: the weight of a candidate rises only when the pods that it
//!   needs are available and a stored status asked for them.
//! - **I4 nothing selected shrinks**: what stored, new, or unconfirmed weights (the shield and the
//!   preview address included) may select keeps what its share of `spec.replicas` needs; a
//!   ReplicaSet is deleted only without pods and without a role.
//! - **I5 only a pass advances**: a judged step ends by a pass on evidence of its own generation
//!   taken after its confirmation, or by a person's command. Absent, stale or unusable evidence
//!   holds.
//! - **I6 promotion**: a candidate becomes stable only with all traffic, confirmed, and all its
//!   pods; nothing else becomes stable while stable exists.
//! - **I7 abort**: from every state one plan takes all weight from the candidate, whatever its
//!   health, the spec, Prometheus and the autoscaler say.
//! - **I8 held**: while `spec.paused` is true no step, no weight and no promotion happens; taking
//!   back still works.
//! - **I9 order**: a status that carries a decision is written before the actions, and so is one
//!   whose actions take something away.
//! - **I10 at rest**: on a world that does not move by itself, plans end: what a first one made, or
//!   a second one that had to see it stored, is left alone; and no plan wakes in the past.
//! - **I11 ours**: only objects that this ModelDeployment controls are scaled and deleted, and only
//!   those that nobody controls are adopted, each with its UID as precondition.
//! - **I12 evidence** is asked for only about a confirmed generation, from its confirmation on.
//! - **I13 told**: the conditions are there, `Ready` always and the others while they hold, each
//!   with a reason, a message and the generation that it speaks of; their times change only when
//!   they flip.
//! - **I14 total**: any input has a plan.
//! - **I15 one model**: a revision has one pod until that has told which model it found and its
//!   ReplicaSet is pinned to it; nothing else is ever pinned.
//! - **I16 remembered**: what a ReplicaSet is marked with (stable, taken back) is what the status
//!   says.
//! - **I17 restored**: what others change or remove of our objects is put back, at once and then at
//!   most once a minute an object.
//! - **I18 pure**: no client, runtime or clock is in the dependency tree.
//! - **I19 restart**: at rest, and only for `spec.restartTime`, a pod of the stable revision that
//!   was made before it is evicted: one a plan, and one that is ready only while all are that shall
//!   be. A pod that was made for it and is not ready ends that.

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
