//! The judge: derives a verdict from evidence. Pure: it depends on no plan, no objects, no client
//! and no clock.
//!
//! A verdict is one of five. **Pass**: a regression worth detecting is excluded. **Fail**: the
//! candidate is worse. **NeedMoreData**, **NoData** and **ProviderDown** hold, each with a reason.
//! Only Pass advances a rollout, only Fail rolls it back; missing evidence does neither.
//!
//! Three gate types compare a rate of the candidate with that of stable in the same window (failed
//! requests, slow requests, wrong predictions) by a [sequential test](self#the-test). A PromQL gate
//! compares one number with thresholds. `docs/judge.md` has the measured operating characteristics.
//!
//! The behaviour specific to a type of gate (defaults, query, reading, judgement, validation of its
//! settings) is in its file in `gates/`. A new type also needs a line in the registry of
//! `gates.rs`.
//!
//! # The test
//!
//! Let `[low, high]` be the confidence sequence for (candidate's rate - stable's rate). It is valid
//! at all times together, and so independent of how often it is evaluated:
//!
//! - `Pass` if `high` at level [`MISSED_REGRESSION`] is below the smallest increase worth detecting
//!   and both arms have the minimum number of events of the gate;
//! - otherwise `Fail` if `low` at the gate's share of [`JudgeInput::alpha`] is above 0 and the
//!   candidate has [`MIN_EVENTS_TO_FAIL`] events, [`MIN_BAD_TO_FAIL`] of them bad;
//! - otherwise `NeedMoreData`.
//!
//! A candidate passes if it is certainly worse, but certainly by less than is worth detecting: this
//! is the meaning of "worth detecting".

pub mod evidence;
mod finding;
mod gates;
mod input;
mod judgement;
mod query;
mod rates;
mod reading;
pub mod scope;
mod sequential;
mod text;

pub use gates::{
    compares_arms, find_settings_problem, find_share_problem, gate_queries, looks_to_decide,
    resolved_gates, runs_user_query,
};
pub use input::JudgeInput;
pub use judgement::{Judgement, has_good_events, is_read, judge_gates, worst_verdict};
pub use rates::{MIN_BAD_TO_FAIL, MIN_EVENTS_TO_FAIL, MISSED_REGRESSION};

#[cfg(test)]
mod tests;
