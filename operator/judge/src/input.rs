//! The input of a judgement.

use jiff::Timestamp;
use slipway_crds::v1alpha1::{GateSpec, GateStatus};

use crate::evidence::GateEvidence;

/// Everything that a judgement depends on.
#[derive(Clone, Copy, Debug)]
pub struct JudgeInput<'a> {
    /// The gates, as returned by [`resolved_gates`](crate::resolved_gates).
    pub gates: &'a [GateSpec],
    /// Probability that a candidate as good as stable fails in this step, over all gates together.
    pub alpha: f64,
    pub candidate: &'a str,
    pub stable: &'a str,
    pub evidence: Option<&'a GateEvidence>,
    /// Generation of the weights to judge.
    pub generation: i64,
    /// When that generation was confirmed: the start of the window.
    pub confirmed_time: Timestamp,
    /// The current time.
    pub now: Timestamp,
    /// The gates in the stored status, which contain the series of PromQL gates.
    pub previous: &'a [GateStatus],
}
