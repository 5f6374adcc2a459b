//! What a judgement depends on.

use jiff::Timestamp;
use slipway_crds::v1alpha1::{GateSpec, GateStatus};

use crate::evidence::GateEvidence;

/// Everything that a judgement depends on.
#[derive(Clone, Copy, Debug)]
pub struct JudgeInput<'a> {
    /// The gates, as [`resolved_gates`](crate::resolved_gates) yields them.
    pub gates: &'a [GateSpec],
    /// Chance that a candidate as good as stable fails in this step, all gates together.
    pub alpha: f64,
    /// Revision of the candidate.
    pub candidate: &'a str,
    /// Revision of stable.
    pub stable: &'a str,
    /// The newest evidence.
    pub evidence: Option<&'a GateEvidence>,
    /// Generation of the weights that are judged.
    pub generation: i64,
    /// When that generation was confirmed: start of the window.
    pub confirmed_time: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// The gates as the status has them: memory of PromQL gates.
    pub previous: &'a [GateStatus],
}
