//! The judge: from evidence to a verdict. Pure: it knows no plan, no objects, no client and no
//! clock.
//!
//! A verdict is one of five. **Pass**: a regression worth catching is excluded. **Fail**: the
//! candidate is worse. **NeedMoreData**, **NoData** and **ProviderDown** hold, each saying why.
//! Only Pass advances, only Fail takes back; the absence of evidence does neither.
//!
//! Three gate types compare a rate of the candidate with that of stable in the same window (failed
//! requests, slow requests, wrong predictions) by a [sequential test](self#the-test). A PromQL gate
//! compares one number with thresholds. `docs/judge.md` has the operating characteristics as
//! measured.
//!
//! What is particular to a type of gate (defaults, query, reading, judgement, what makes its
//! settings wrong) is in its file in `gates/`; a new one is a line in the registry of `gates.rs`
//! besides.
//!
//! # The test
//!
//! With `[low, high]` the confidence sequence for (candidate's rate - stable's rate), valid at all
//! times together and so however often it is looked at:
//!
//! - `Pass` when `high` at level [`MISSED_REGRESSION`] is below the smallest increase worth
//!   catching and both arms have the fewest events that the gate asks for;
//! - else `Fail` when `low` at the gate's share of [`JudgeInput::alpha`] is above 0 and the
//!   candidate has [`MIN_EVENTS_TO_FAIL`] events, [`MIN_BAD_TO_FAIL`] of them bad;
//! - else `NeedMoreData`.
//!
//! A candidate that is worse beyond doubt, and beyond doubt by less than is worth catching, passes:
//! that is what "worth catching" means.

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
